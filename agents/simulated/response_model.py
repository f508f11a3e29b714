"""How the numbers of a simulated host move: a protocol, and a plain model with effects that are planted on purpose."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from agents.simulated.files import THP, MachineFiles


class ResponseModel(Protocol):
    """The memory of one host. Before any answer it is told how far time has come, and what the knobs held until then.

    `knobs` maps the path of a knob file to the value that it holds.
    """

    def advance(self, at_seconds: float, knobs: Mapping[str, str]) -> None:
        """Let everything move on to this instant (virtual time, never back)."""
        ...

    def restart(self, at_seconds: float) -> None:
        """Begin anew, as after a boot."""
        ...

    def vmstat(self) -> Mapping[str, int]: ...
    def meminfo_kib(self) -> Mapping[str, int]: ...

    def thp_stat(self, size_kib: int, stat: str) -> int: ...

    def events(self) -> Mapping[str, int]:
        """Return what has been counted of each perf event since boot."""
        ...

    def grant(self, size_kib: int, held_pages: int, asked_pages: int) -> int:
        """Return how many pages a hugetlb pool holds after it was asked to hold so many."""
        ...

    def measure(self) -> Mapping[str, float]:
        """Return what the host's workload reports at this instant."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricModel:
    """A metric around `mean`: hosts differ by `host_spread`, one host drifts about its own by `noise`; both relative.

    The drift is an autoregression of first order: after `memory_seconds` it is correlated by 1/e with what it was.
    """

    mean: float = 100.0
    host_spread: float = 0.1
    noise: float = 0.02
    memory_seconds: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """Relative effects on metrics that come while all these knob files hold these values, and with their backing.

    After `fades_seconds` of that 63 % of them have gone again.
    """

    when: Mapping[str, str]
    effects: Mapping[str, float]
    fades_seconds: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelParameters:
    """The parameters of a plain model, the same for all hosts."""

    metrics: Mapping[str, MetricModel] = field(
        default_factory=lambda: {"throughput": MetricModel(mean=1000.0), "dtlb_load_misses": MetricModel(mean=1e7)}
    )
    treatments: tuple[Treatment, ...] = ()
    backing_seconds: float = 5.0  # after so long 63 % of the backing has changed to what the knobs ask for
    backed_share: float = 0.4  # of the memory that is used, by a size that is set to always
    used_share: float = 0.6  # of memory
    pool_share: float = 0.5  # of free memory, at most, for hugetlb pools


# Per second and host; the metrics of the same names move with them.
_RATES: Mapping[str, float] = MappingProxyType({"pgfault": 20_000.0, "pgmajfault": 2.0, "compact_stall": 0.5})
_EVENTS: Mapping[str, float] = MappingProxyType(
    {
        "instructions": 2e9,
        "cycles": 3e9,
        "dtlb_load_misses": 1e7,
        "dtlb_store_misses": 3e6,
        "dtlb_walk_cycles": 1.5e8,
        "context_switches": 5e3,
    }
)
_SPLITS_PER_BACKED_PAGE_SECOND = 2e-5
_USED = "memory_used_bytes"
RESPONDING = (_USED, *_RATES, *_EVENTS)  # of the host's own metrics, those that planted effects move
_MEMORY = MetricModel(host_spread=0.1, noise=0.01, memory_seconds=60.0)  # the mean is `used_share`


class PlainModel:
    """Counters at steady rates, levels that follow the backing, metrics with spread and drift, planted effects.

    Everything follows from (seed, host) and the instants at which it is looked at.
    """

    __slots__ = (
        "_at",
        "_backed",
        "_counts",
        "_doses",
        "_drift",
        "_events",
        "_fresh",
        "_given",
        "_host",
        "_machine",
        "_models",
        "_p",
        "_random",
        "_split",
    )

    def __init__(self, parameters: ModelParameters, machine: MachineFiles, *, seed: int, host: str) -> None:
        self._p = parameters
        self._machine = machine
        self._random = random.Random(f"{seed} {host}")  # noqa: S311 - a simulation
        self._models = {**parameters.metrics, _USED: _MEMORY}
        # Of any other metric so many are counted in a second as it is high: a source may be an event.
        self._events = {**{name: one.mean for name, one in parameters.metrics.items()}, **_EVENTS}
        self._host = {name: 1.0 + one.host_spread * self._random.gauss() for name, one in self._models.items()}
        self._at = 0.0
        self.restart(0.0)

    def restart(self, at_seconds: float) -> None:
        self._at = at_seconds
        self._drift = {name: self._random.gauss() for name in self._models}
        self._doses = [0.0] * len(self._p.treatments)
        self._fresh = [1.0] * len(self._p.treatments)
        self._counts = dict.fromkeys((*_RATES, *self._events), 0.0)
        self._backed = dict.fromkeys(self._machine.thp_sizes_kib, 0.0)  # share of the memory that is used
        self._given = dict.fromkeys(self._machine.thp_sizes_kib, 0.0)  # pages
        self._split = dict.fromkeys(self._machine.thp_sizes_kib, 0.0)  # pages

    def advance(self, at_seconds: float, knobs: Mapping[str, str]) -> None:
        seconds = at_seconds - self._at
        if seconds <= 0:
            return
        self._at = at_seconds
        kept = math.exp(-seconds / self._p.backing_seconds) if self._p.backing_seconds > 0 else 0.0
        before = {size: self._pages(size) for size in self._backed}
        for place, treatment in enumerate(self._p.treatments):
            there = all(knobs.get(path) == value for path, value in treatment.when.items())
            self._doses[place] = there + (self._doses[place] - there) * kept
            self._fresh[place] = self._fresh[place] * math.exp(-seconds / treatment.fades_seconds) if there else 1.0
        for name, one in self._models.items():
            like = math.exp(-seconds / one.memory_seconds) if one.memory_seconds > 0 else 0.0
            self._drift[name] = self._drift[name] * like + self._random.gauss() * math.sqrt(1.0 - like * like)
        for size, had in before.items():
            wanted = self._wanted(size, knobs)
            self._backed[size] = wanted + (self._backed[size] - wanted) * kept
            split = had * _SPLITS_PER_BACKED_PAGE_SECOND * seconds
            self._split[size] += split
            self._given[size] += split + max(0, self._pages(size) - had)  # what was split is given anew
        for rates in (_RATES, self._events):
            for name, rate in rates.items():
                self._counts[name] += rate * self._factor(name) * seconds

    def _wanted(self, size: int, knobs: Mapping[str, str]) -> float:
        value = knobs.get(f"{THP}/hugepages-{size}kB/enabled", "never")
        if value == "inherit":
            value = knobs.get(f"{THP}/enabled", "never")
        return self._p.backed_share * {"always": 1.0, "madvise": 0.2}.get(value, 0.0)

    def _factor(self, name: str) -> float:
        """The host's own level, its drift now, and what the treatments do to it."""
        factor = self._effect(name)
        if name in self._drift:
            factor *= self._host[name] * (1.0 + self._models[name].noise * self._drift[name])
        return max(0.0, factor)

    def _effect(self, name: str) -> float:
        factor = 1.0
        for treatment, dose, fresh in zip(self._p.treatments, self._doses, self._fresh, strict=True):
            factor *= 1.0 + treatment.effects.get(name, 0.0) * dose * fresh
        return factor

    def _pages(self, size: int) -> int:
        return int(self._used_kib() * self._backed[size] / size)

    def _used_kib(self) -> float:
        return min(0.95, self._p.used_share * self._factor(_USED)) * self._machine.memory_kib

    def vmstat(self) -> Mapping[str, int]:
        given = sum(self.thp_stat(size, "anon_fault_alloc") for size in self._backed if size >= 2048)
        split = int(sum(self._split.values()))
        counts = self._counts
        return {
            "nr_free_pages": self.meminfo_kib()["MemFree"] // 4,
            "nr_page_table_pages": 40_000,
            "pgfault": int(counts["pgfault"]),
            "pgmajfault": int(counts["pgmajfault"]),
            "oom_kill": 0,
            "thp_fault_alloc": given,
            "thp_fault_fallback": given // 20,
            "thp_split_page": split,
            "thp_split_pmd": split,
            "thp_split_pud": int(self._split.get(1048576, 0.0)),
            "compact_stall": int(counts["compact_stall"]),
        }

    def meminfo_kib(self) -> Mapping[str, int]:
        total = self._machine.memory_kib
        used = int(self._used_kib())
        backed = int(sum(share for size, share in self._backed.items() if size >= 2048) * used)
        return {
            "MemTotal": total,
            "MemFree": total - used,
            "MemAvailable": total - used,
            "SwapTotal": 0,
            "AnonPages": int(0.8 * used),
            "AnonHugePages": min(backed, int(0.8 * used)),  # several sizes may ask for all of it
            "PageTables": max(8192, (used - backed) // 512),
        }

    def thp_stat(self, size_kib: int, stat: str) -> int:
        match stat:
            case "nr_anon":
                return self._pages(size_kib)
            case "anon_fault_alloc":
                return int(self._given[size_kib])
            case "anon_fault_fallback":
                return int(self._given[size_kib] / 20)
            case "split":
                return int(self._split[size_kib])
        return 0

    def events(self) -> Mapping[str, int]:
        return {name: int(self._counts[name]) for name in self._events}

    def grant(self, size_kib: int, held_pages: int, asked_pages: int) -> int:
        free = int(self.meminfo_kib()["MemFree"] * self._p.pool_share / size_kib)
        return asked_pages if asked_pages <= held_pages else min(asked_pages, held_pages + free)

    def measure(self) -> Mapping[str, float]:
        metrics = self._p.metrics
        return {name: one.mean * self._factor(name) for name, one in metrics.items() if name not in _EVENTS}
