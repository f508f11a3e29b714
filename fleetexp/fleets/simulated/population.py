"""The hosts that a spec asks for, made up: pools, strata, kernels, memory and names that its population takes."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import unquote

from agents.catalogue import is_known
from agents.simulated import MachineFiles
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment
from fleetexp.experiment.population import Condition, parse_conditions, size_in_bytes

_THP_LABEL = re.compile(r"thp_([0-9]+)kB")
_OF_MACHINE = ("kernel", "memory", "cpus")
_KERNELS = ("6.12", "6.8", "6.1", "5.15", "5.14", "5.4", "4.18", "3.10")  # of distributions, the newest first
_STRATA = 2  # values of a label that hosts are to be compared within
_LEVELS = 8  # values of a label that hosts are to be balanced by


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedPopulation:
    """What simulated hosts are called, what their machine is, and the values that each label takes in turn."""

    patterns: tuple[str, ...] = ()
    machine: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, experiment: Experiment, hosts: int) -> SimulatedPopulation:
        """Choose for an experiment; RunError where no host can meet what it asks for."""
        asked = experiment.population
        labels: dict[str, tuple[str, ...]] = {"pool": asked.pools} if asked.pools else {}
        machine: dict[str, str] = {}
        for label, text in asked.where.items():
            value = _meeting(label, parse_conditions(text, label))
            if label in _OF_MACHINE:
                machine[label] = value
            elif label != "pool" or not asked.pools:
                labels[label] = (value,)
        said = {*labels, *_default_labels(), *_OF_MACHINE}
        for label in experiment.assignment.strata:
            if label not in said:
                labels[label] = tuple(f"{label}-{number + 1}" for number in range(_STRATA))
        for label, limit in experiment.safety.max_per.items():
            if label not in {*said, *labels}:
                labels[label] = tuple(f"{label}-{number + 1}" for number in range(math.ceil(hosts / limit)))
        for name in experiment.assignment.balance:
            if name not in {*said, *labels} and not is_known(name) and name not in experiment.metrics.sources:
                labels[name] = tuple(str(number + 1) for number in range(_LEVELS))
        return cls(patterns=asked.hosts, machine=machine, labels=labels)

    # ------------------------------------------------------------------ in words
    def words(self) -> Iterator[str]:
        yield from (f"host:{pattern}" for pattern in self.patterns)
        yield from (f"{name}={value}" for name, value in self.machine.items())
        yield from (f"label:{label}={'|'.join(map(_escaped, values))}" for label, values in self.labels.items())

    @classmethod
    def parse(cls, words: Sequence[str]) -> tuple[SimulatedPopulation, list[str]]:
        """Read what `words` gave; return also the words that are about something else."""
        patterns, machine, labels, rest = list[str](), dict[str, str](), dict[str, tuple[str, ...]](), list[str]()
        for word in words:
            kind, _, said = word.partition(":")
            name, _, value = word.partition("=")
            if kind == "host" and said:
                patterns.append(said)
            elif kind == "label" and "=" in said:
                label, _, values = said.partition("=")
                labels[label] = tuple(map(unquote, values.split("|")))
            elif name in _OF_MACHINE and value:
                machine[name] = value
            else:
                rest.append(word)
        return cls(patterns=tuple(patterns), machine=machine, labels=labels), rest

    # ------------------------------------------------------------------ hosts
    def names(self, count: int) -> tuple[str, ...]:
        """Return so many names: those that are listed, then of each pattern in turn; fewer where all are listed."""
        listed = [pattern for pattern in self.patterns if not set("*?[") & set(pattern)]
        open_ones = [pattern for pattern in self.patterns if "*" in pattern and not set("?[") & set(pattern)]
        made: Iterator[str] = iter(listed)
        if open_ones or not listed:
            digits = max(4, len(str(count)))
            numbered = (f"{number:0{digits}}" for number in itertools.count(1))
            patterns = itertools.cycle(open_ones or ["sim-*"])
            made = itertools.chain(made, (next(patterns).replace("*", number) for number in numbered))
        return tuple(itertools.islice(dict.fromkeys(itertools.islice(made, 2 * count)), count))

    def labels_of(self, hosts: Sequence[str]) -> dict[str, dict[str, str]]:
        """Give each host a value of each label: every combination comes in turn, if there are so many hosts."""
        out: dict[str, dict[str, str]] = {host: {} for host in hosts}
        step = 1
        for label, values in self.labels.items():
            crossed = step * len(values) <= len(hosts)  # else there are too few hosts for every combination
            for number, host in enumerate(hosts):
                out[host][label] = values[(number // step if crossed else number) % len(values)]
            step *= len(values) if crossed else 1
        return out

    @property
    def thp_sizes_kib(self) -> tuple[int, ...]:
        """Page sizes that a label asks for."""
        matches = (_THP_LABEL.fullmatch(label) for label, values in self.labels.items() if values != ("absent",))
        return tuple(int(match[1]) for match in matches if match)

    def on(self, machine: MachineFiles) -> MachineFiles:
        """Return the machine as it is asked for."""
        return replace(
            machine,
            kernel=self.machine.get("kernel", machine.kernel),
            memory_kib=int(self.machine.get("memory", machine.memory_kib * 1024)) // 1024,
            cpus=int(self.machine.get("cpus", machine.cpus)),
        )


def _escaped(value: str) -> str:
    return value.replace("%", "%25").replace("|", "%7C")


def _default_labels() -> dict[str, str]:
    """What a simulated machine says of itself, as far as a condition can name it."""
    plain = MachineFiles()
    return {
        "architecture": "x86_64",
        "cpu_model": "Simulated CPU",
        "cpus": str(plain.cpus),
        "kernel": plain.kernel,
        "memory": str(plain.memory_kib * 1024),
        "numa_nodes": "1",
        "virtualisation": "none",
    }


def _meeting(label: str, conditions: Sequence[Condition]) -> str:
    """Return a value that meets every condition: the machine's own where it does, else one beside those named."""
    own = _default_labels().get(label, "never" if _THP_LABEL.fullmatch(label) else f"{label}-1")
    named = [value for condition in conditions for value in (condition.value, *_beside(label, condition.value))]
    candidates = [own, *named]
    if label == "kernel":  # it shows that it is made up, where the condition lets it
        candidates = [own, *(f"{value}-simulated" for value in (*named, *_KERNELS)), *named]
    elif label == "memory":
        candidates = [own, *(str(size) for size in map(size_in_bytes, named) if size is not None)]
    for value in candidates:
        if all(condition.holds(value) for condition in conditions):
            return value
    text = ", ".join(map(str, conditions))
    raise RunError(
        f"no simulated host can meet {label} {text}", where="population.where", remedy="relax it, or name fewer limits"
    )


def _beside(label: str, value: str) -> Iterator[str]:
    """Yield the value with its last number one above and one below."""
    match = re.match(r"((?:[0-9]+\.)*)([0-9]+)()" if label == "kernel" else r"(.*?)([0-9]+)([^0-9]*)", value)
    if match is None:
        return
    for number in (int(match[2]) + 1, int(match[2]) - 1):
        if number >= 0:
            yield f"{match[1]}{number}{match[3]}"
