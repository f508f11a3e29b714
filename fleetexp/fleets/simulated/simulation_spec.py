"""A simulation in words, as the record of a run keeps it: 'hosts=1000 seed=3 effect:throughput=+5.9%@KNOB=VALUE'.

Hosts are those that the spec asks for: 'label:pool=web-a|web-b' gives them the pools in turn, 'kernel=', 'memory=' and
'cpus=' say what machine they are, 'host:web-*' what they are called.

An effect comes on a host while the knobs behind the @ hold those values, and with their backing; one '@' for each arm
that has it. Metrics that a workload reports are named, 'metric:latency', so that simulated workloads report them too.
"""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agents.catalogue import Owner, describe, is_known
from agents.knobs import find_knob, find_knobs
from agents.messages import HostFacts
from agents.simulated import HostClock, MachineFiles, MetricModel, ModelParameters, PlainModel, SimulatedRoot, Treatment
from agents.simulated.files import GIGANTIC_KIB, PMD_KIB
from agents.simulated.response_model import RESPONDING
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment, analysis_plan
from fleetexp.fleets.simulated.hosts import Simulation
from fleetexp.fleets.simulated.population import SimulatedPopulation

HOSTS = 20
_DEFAULT_METRICS = ("throughput", "dtlb_load_misses")
_PERCENT = re.compile(r"([+-]?\d+(?:\.\d+)?)%")
_SIZE = re.compile(r"(thp|hugetlb)/(?:node\d+/)?(\d+)kB/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """An effect on a metric, relative, while these knobs, by name, hold these values."""

    metric: str
    relative: float
    when: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulationChoice:
    """What a person chooses of a simulation."""

    hosts: int = HOSTS
    seed: int = 1
    actors: int = 0  # Ray actors that the hosts are spread over, 0 for this process
    metrics: tuple[str, ...] = ()
    planted: tuple[Planted, ...] = ()
    knobs: tuple[str, ...] = field(default=())  # named by the experiment: their page sizes are there
    population: SimulatedPopulation = field(default_factory=SimulatedPopulation)

    def __str__(self) -> str:
        words = [f"hosts={self.hosts}", f"seed={self.seed}"]
        words += [f"actors={self.actors}"] if self.actors else []
        words += [f"metric:{metric}" for metric in self.metrics]
        words += [f"knob:{knob}" for knob in self.knobs]
        words += map(shlex.quote, self.population.words())
        for one in self.planted:
            when = ",".join(f"{knob}={value}" for knob, value in one.when.items())
            words.append(f"effect:{one.metric}={one.relative * 100:+.12g}%@{when}")
        return " ".join(words)

    @classmethod
    def parse(cls, text: str) -> SimulationChoice:
        """Read what `str` wrote; RunError where it is something else."""
        numbers: dict[str, int] = {}
        metrics, knobs, planted = list[str](), list[str](), list[Planted]()
        words = shlex.split(text)
        population, words = SimulatedPopulation.parse(words)
        for word in words:
            kind, _, rest = word.partition(":")
            name, _, value = word.partition("=")
            if name in {"hosts", "seed", "actors"} and value.isdecimal():
                numbers[name] = int(value)
            elif kind == "metric" and rest:
                metrics.append(rest)
            elif kind == "knob" and rest:
                knobs.append(rest)
            elif kind == "effect":
                effect, _, when = rest.partition("@")
                metric, relative = parse_effect(effect)
                pairs = (pair.partition("=") for pair in when.split(",") if pair)
                planted.append(Planted(metric=metric, relative=relative, when={knob: held for knob, _, held in pairs}))
            else:
                raise RunError(f"{word!r} says nothing of a simulation", where="--fleet simulated", remedy=_EXAMPLE)
        if not 1 <= numbers.get("hosts", HOSTS) <= MOST_HOSTS:
            raise RunError(f"{numbers['hosts']} simulated hosts", where="--hosts", remedy=f"choose 1 to {MOST_HOSTS:,}")
        return cls(metrics=tuple(metrics), knobs=tuple(knobs), planted=tuple(planted), population=population, **numbers)

    @classmethod
    def of(
        cls, experiment: Experiment, *, hosts: int, seed: int, effects: Iterable[str] = (), actors: int = 0
    ) -> SimulationChoice:
        """Choose for an experiment: its treatment arms get the effects, its workload reports its metrics.

        RunError for an effect on a metric that no simulated host of this experiment shows: it would be looked for in
        vain.
        """
        plan = analysis_plan(experiment)
        named = dict.fromkeys([*(metric.name for metric in plan.metrics), *(one.metric for one in plan.guardrails)])
        arms = {arm.name: dict(arm.knobs) for arm in experiment.agent_arms}
        control = arms.pop(experiment.control)
        wanted = [*map(parse_effect, effects)]
        shown = dict.fromkeys([*filter(_reported, named), *_DEFAULT_METRICS, *RESPONDING])
        if (vain := next((metric for metric, _ in wanted if metric not in shown), None)) is not None:
            what = f"no simulated host of {experiment.name} shows {vain}, so that no effect on it would be seen"
            raise RunError(what, where="--effect", remedy=f"plant it on one of {', '.join(shown)}")
        planted = [
            Planted(metric=metric, relative=relative, when=apart)
            for metric, relative in wanted
            for apart in ({k: v for k, v in knobs.items() if control.get(k) != v} for knobs in arms.values())
            if apart
        ]
        knobs = dict.fromkeys(knob for held in (control, *arms.values()) for knob in held)
        metrics = filter(_reported, named)
        return cls(
            hosts=hosts,
            seed=seed,
            actors=actors,
            metrics=tuple(metrics),
            planted=tuple(planted),
            knobs=tuple(knobs),
            population=SimulatedPopulation.of(experiment, hosts),
        )

    def simulation(self, like: Sequence[HostFacts] = ()) -> Simulation:
        """Make the simulation; UnknownKnob where simulated machines lack a knob.

        With hosts to be like, there is one for each of them, 'sim-' before its name, with its labels; all are
        machines like the first of them.
        """
        machine = self._machine() if not like else machine_like(like[0])
        treatments = tuple(
            Treatment(when=_paths(machine, dict(when)), effects=effects) for when, effects in self._treatments().items()
        )
        metrics = {name: MetricModel() for name in dict.fromkeys([*_DEFAULT_METRICS, *self.metrics])}
        response_model = ModelParameters(metrics=metrics, treatments=treatments)
        if not like:
            hosts = self.population.names(self.hosts)
            labels = self.population.labels_of(hosts)
            return Simulation(
                hosts=hosts, seed=self.seed, machine=machine, response_model=response_model, labels=labels
            )
        names = {f"sim-{facts.host}": facts for facts in like}
        labels = {name: dict(facts.labels) for name, facts in names.items()}
        return Simulation(
            hosts=tuple(names), seed=self.seed, machine=machine, response_model=response_model, labels=labels
        )

    def _machine(self) -> MachineFiles:
        sizes: dict[str, set[int]] = {"thp": {64, PMD_KIB, GIGANTIC_KIB}, "hugetlb": {PMD_KIB, GIGANTIC_KIB}}
        for knob in self.knobs:
            if match := _SIZE.match(knob):
                sizes[match[1]].add(int(match[2]))
        sizes["thp"].update(self.population.thp_sizes_kib)
        machine = MachineFiles(thp_sizes_kib=tuple(sorted(sizes["thp"])), hugetlb_kib=tuple(sorted(sizes["hugetlb"])))
        return self.population.on(machine)

    def _treatments(self) -> dict[tuple[tuple[str, str], ...], dict[str, float]]:
        found: defaultdict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(dict)
        for one in self.planted:
            found[tuple(one.when.items())][one.metric] = one.relative
        return found


MOST_HOSTS = 100_000
_EXAMPLE = "write --fleet simulated --hosts 1000 --seed 3 --effect throughput=+5.9%"


def machine_like(facts: HostFacts) -> MachineFiles:
    """Make a machine with the page sizes, the memory and the settings that a real host was found with."""
    machine = MachineFiles(
        kernel=f"{facts.kernel}-simulated",
        memory_kib=max(facts.memory_total_bytes // 1024, PMD_KIB),
        cpus=max(1, facts.cpus),
        thp_sizes_kib=tuple(
            size.size_kib for size in facts.thp_sizes if facts.thp_switch(size.size_kib) != "thp/enabled"
        ),
        hugetlb_kib=tuple(pool.size_kib for pool in facts.hugetlb_pools),
    )
    there = {knob.name: knob.path for knob in find_knobs(_root_of(machine))}
    found = {there[name]: value for name, value in facts.knobs.items() if name in there}
    return replace(machine, found={path: value for path, value in found.items() if path in machine.knobs})


def parse_effect(text: str) -> tuple[str, float]:
    """Read 'throughput=+5.9%': the metric, and 0.059."""
    metric, _, size = text.partition("=")
    match = _PERCENT.fullmatch(size.strip())
    if match is None or not metric.strip():
        raise RunError(f"{text!r} is not an effect", where="--effect", remedy="write METRIC=PERCENT: throughput=+5.9%")
    return metric.strip(), float(match[1]) / 100


def _reported(metric: str) -> bool:
    """Whether a workload reports the metric, and no file of the host shows it."""
    return not is_known(metric) or describe(metric).owner is Owner.WORKLOAD


def _paths(machine: MachineFiles, when: Mapping[str, str]) -> dict[str, str]:
    """Return the same values by the paths of the knobs' files."""
    root = _root_of(machine)
    return {find_knob(root, knob).path: value for knob, value in when.items()}


def _root_of(machine: MachineFiles) -> SimulatedRoot:
    response_model = PlainModel(ModelParameters(), machine, seed=0, host="")
    return SimulatedRoot(machine, response_model, host="", clock=HostClock(Simulation.of(1).epoch), state_dir=Path())
