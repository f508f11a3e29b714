"""Metrics computed from others: plain data, so that whoever aggregates a period can compute them.

A derived counter metric is sum(weights x differences) / sum(weights x differences) over one period; a derived gauge
is the same over the levels of one sample. Numerator and denominator are summed apart, within the host and the
period, before they are divided: the ratio of sums, not the mean of ratios.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from agents.catalogue.metric import Better, MetricKind

Terms = tuple[tuple[str, float], ...]  # (metric, weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedMetric:
    """A weighted sum of metrics over another, times `scale`. An empty denominator stands for 1.

    A second such ratio, `times` over `per`, is a factor where it is given. `where_read` are further terms of the
    numerator, on the hosts where these metrics are read. `kind` says what the terms are: COUNTER: differences over the
    period; GAUGE: levels in one sample.
    """

    name: str
    unit: str
    kind: MetricKind
    numerator: Terms
    denominator: Terms = ()
    where_read: Terms = ()
    times: Terms = ()
    per: Terms = ()
    scale: float = 1.0
    meaning: str
    better: Better | None = None

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the metrics it needs, each once."""
        return tuple(dict.fromkeys(name for name, _ in (*self.numerator, *self.denominator, *self.times, *self.per)))

    def over(self, read: Container[str]) -> Terms:
        """Return the terms of the numerator on a host on which these metrics are read."""
        return (*self.numerator, *((name, weight) for name, weight in self.where_read if name in read))


def derive(metric: DerivedMetric, values: Mapping[str, float]) -> float | None:
    """Compute a derived metric from levels (gauge) or differences (counter).

    None where an input is missing or the denominator is zero: unavailable, never zero.
    """
    if any(name not in values for name in metric.inputs):
        return None

    def total(terms: Terms) -> float:
        return sum(values[name] * weight for name, weight in terms)

    value = total(metric.over(values))
    for above, below in (((), metric.denominator), (metric.times, metric.per)):
        if below:
            bottom = total(below)
            if bottom == 0:
                return None
            value = value * (total(above) if above else 1.0) / bottom
    return value * metric.scale


_C, _G = MetricKind.COUNTER, MetricKind.GAUGE

_FIXED = (
    DerivedMetric(
        name="memory_used_bytes",
        unit="bytes",
        kind=_G,
        numerator=(("memory_total_bytes", 1.0), ("memory_available_bytes", -1.0)),
        where_read=(("per_cpu_free_bytes", -1.0),),
        meaning="memory that could not be allocated without swapping: total minus available, and minus the free pages "
        "on the CPUs' own lists where these are read: there available leaves out much; counts what the kernel keeps "
        "back too, vm.min_free_kbytes and more, which it raises where huge pages are turned on",
        better="decrease",
    ),
    DerivedMetric(
        name="anon_huge_share",
        unit="ratio",
        kind=_G,
        numerator=(("anon_huge_bytes", 1.0),),
        denominator=(("anon_bytes", 1.0),),
        meaning="share of anonymous memory in huge pages",
    ),
    DerivedMetric(
        name="cgroup_anon_thp_share",
        unit="ratio",
        kind=_G,
        numerator=(("cgroup_anon_thp_bytes", 1.0),),
        denominator=(("cgroup_anon_bytes", 1.0),),
        meaning="share of the cgroup's anonymous memory in huge pages",
    ),
    DerivedMetric(
        name="cycles_per_instruction",
        unit="cycles per instruction",
        kind=_C,
        numerator=(("cycles", 1.0),),
        denominator=(("instructions", 1.0),),
        meaning="core cycles per instruction, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="dtlb_load_misses_per_kilo_instruction",
        unit="misses per 1000 instructions",
        kind=_C,
        numerator=(("dtlb_load_misses", 1.0),),
        denominator=(("instructions", 1.0),),
        scale=1000.0,
        meaning="loads that missed the data TLB, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="dtlb_store_misses_per_kilo_instruction",
        unit="misses per 1000 instructions",
        kind=_C,
        numerator=(("dtlb_store_misses", 1.0),),
        denominator=(("instructions", 1.0),),
        scale=1000.0,
        meaning="stores that missed the data TLB, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="dtlb_walk_cycles_share",
        unit="ratio",
        kind=_C,
        numerator=(("dtlb_walk_cycles", 1.0),),
        denominator=(("cycles", 1.0),),
        meaning="share of cycles with a page walk for a load, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="dtlb_store_walk_cycles_share",
        unit="ratio",
        kind=_C,
        numerator=(("dtlb_store_walk_cycles", 1.0),),
        denominator=(("cycles", 1.0),),
        meaning="share of cycles with a page walk for a store, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="itlb_walk_cycles_share",
        unit="ratio",
        kind=_C,
        numerator=(("itlb_walk_cycles", 1.0),),
        denominator=(("cycles", 1.0),),
        meaning="share of cycles with a page walk for an instruction fetch, all CPUs",
        better="decrease",
    ),
    DerivedMetric(
        name="thp_fault_fallback_share",
        unit="ratio",
        kind=_C,
        numerator=(("thp_fault_fallback", 1.0),),
        denominator=(("thp_fault_alloc", 1.0), ("thp_fault_fallback", 1.0)),
        meaning="share of huge-page faults that got small pages; mixes the PMD size and larger ones",
        better="decrease",
    ),
)
DERIVED: Mapping[str, DerivedMetric] = MappingProxyType({metric.name: metric for metric in _FIXED})


@dataclass(frozen=True, slots=True, kw_only=True)
class DerivedPattern:
    """A family of derived metrics, one for each page size or event."""

    shape: str
    expression: re.Pattern[str]
    make: Callable[[str], DerivedMetric]
    needs: re.Pattern[str]  # a metric that shows the family's member exists; its first part is the argument of `make`
    example: str  # such an argument


def _backed(size: str) -> DerivedMetric:
    return DerivedMetric(
        name=f"thp_{size}kB_backed_bytes",
        unit="bytes",
        kind=_G,
        numerator=((f"thp_{size}kB_nr_anon", float(int(size) * 1024)),),
        meaning=f"anonymous memory in pages of {size} KiB",
    )


def _fallback(size: str) -> DerivedMetric:
    alloc, fallback = f"thp_{size}kB_anon_fault_alloc", f"thp_{size}kB_anon_fault_fallback"
    return DerivedMetric(
        name=f"thp_{size}kB_fallback_share",
        unit="ratio",
        kind=_C,
        numerator=((fallback, 1.0),),
        denominator=((alloc, 1.0), (fallback, 1.0)),
        meaning=f"share of faults wanting a page of {size} KiB that got a smaller one",
        better="decrease",
    )


def _coverage(event: str) -> DerivedMetric:
    return DerivedMetric(
        name=f"{event}_coverage",
        unit="ratio",
        kind=_C,
        numerator=((f"{event}_time_running_seconds", 1.0),),
        denominator=((f"{event}_time_enabled_seconds", 1.0),),
        meaning=f"share of the time in which {event} was really on the PMU",
    )


def _per_kilo_instruction(event: str) -> DerivedMetric:
    what = event.rpartition("_")[2] if event.endswith(("misses", "hits", "walks")) else "walks"
    return DerivedMetric(
        name=f"{event}_per_kilo_instruction",
        unit=f"{what} per 1000 instructions",
        kind=_C,
        numerator=((event, 1.0),),
        denominator=(("instructions", 1.0),),
        scale=1000.0,
        meaning=f"{event} for each 1000 instructions, all CPUs",
        better=None if what == "hits" or not event.endswith(what) else "decrease",
    )


def _share_of_walks(event: str) -> DerivedMetric:
    return DerivedMetric(
        name=f"{event}_share",
        unit="ratio",
        kind=_C,
        numerator=((event, 1.0),),
        denominator=((event.rpartition("_")[0], 1.0),),
        meaning=f"{event} as a share of such walks to pages of any size, all CPUs",
    )


def _cycles_per_walk(walks: str) -> DerivedMetric:
    return DerivedMetric(
        name=f"{walks}_mean_cycles",
        unit="cycles per walk",
        kind=_C,
        numerator=((f"{walks}_pending", 1.0),),
        denominator=((walks, 1.0),),
        meaning="cycles that a page walk takes, mean over all CPUs",
        better="decrease",
    )


def _nanoseconds_per_walk(walks: str) -> DerivedMetric:
    return DerivedMetric(
        name=f"{walks}_mean_nanoseconds",
        unit="nanoseconds per walk",
        kind=_C,
        numerator=((f"{walks}_pending", 1.0),),
        denominator=((walks, 1.0),),
        times=(("cycles_time_enabled_seconds", 1.0), ("cpu_idle_seconds", -1.0)),
        per=(("cycles", 1.0),),
        scale=1e9,
        meaning="time that a page walk takes: its cycles, times what a cycle took of the time in which CPUs were not "
        "idle; mean over all CPUs",
        better="decrease",
    )


_WALKS = r"(?:dtlb_load|dtlb_store|dtlb|itlb)_walks"
_SIZED = rf"{_WALKS}_(?:4k|2m|1g|coalesced|small|large)"
_COUNTED = rf"(?:{_SIZED}|{_WALKS}|(?:dtlb|itlb|l2_tlb)_misses|(?:dtlb_load|dtlb_store|itlb)_l2_hits)"

DERIVED_PATTERNS: tuple[DerivedPattern, ...] = (
    DerivedPattern(
        shape="<TLB event>_per_kilo_instruction",
        expression=re.compile(rf"({_COUNTED})_per_kilo_instruction"),
        make=_per_kilo_instruction,
        needs=re.compile(rf"({_COUNTED})"),
        example="dtlb_load_walks",
    ),
    DerivedPattern(
        shape="{dtlb,dtlb_load,dtlb_store,itlb}_walks_<size>_share",
        expression=re.compile(rf"({_SIZED})_share"),
        make=_share_of_walks,
        needs=re.compile(rf"({_SIZED})"),
        example="dtlb_load_walks_1g",
    ),
    DerivedPattern(
        shape="{dtlb,dtlb_load,dtlb_store,itlb}_walks_mean_cycles",
        expression=re.compile(rf"({_WALKS})_mean_cycles"),
        make=_cycles_per_walk,
        needs=re.compile(rf"({_WALKS})_pending"),
        example="dtlb_load_walks",
    ),
    DerivedPattern(
        shape="{dtlb,dtlb_load,dtlb_store,itlb}_walks_mean_nanoseconds",
        expression=re.compile(rf"({_WALKS})_mean_nanoseconds"),
        make=_nanoseconds_per_walk,
        needs=re.compile(rf"({_WALKS})_pending"),
        example="dtlb_load_walks",
    ),
    DerivedPattern(
        shape="thp_<N>kB_backed_bytes",
        expression=re.compile(r"thp_([1-9]\d*)kB_backed_bytes"),
        make=_backed,
        needs=re.compile(r"thp_([1-9]\d*)kB_nr_anon"),
        example="2048",
    ),
    DerivedPattern(
        shape="thp_<N>kB_fallback_share",
        expression=re.compile(r"thp_([1-9]\d*)kB_fallback_share"),
        make=_fallback,
        needs=re.compile(r"thp_([1-9]\d*)kB_anon_fault_fallback"),
        example="2048",
    ),
    DerivedPattern(
        shape="<event>_coverage",
        expression=re.compile(r"([a-z0-9_]+)_coverage"),
        make=_coverage,
        needs=re.compile(r"([a-z0-9_]+)_time_enabled_seconds"),
        example="dtlb_load_misses",
    ),
)


def derived_for(names: Iterable[str]) -> tuple[DerivedMetric, ...]:
    """Return every derived metric whose inputs are all among `names`, by name."""
    have = set(names)
    made = list(DERIVED.values())
    for pattern in DERIVED_PATTERNS:
        made += [pattern.make(match[1]) for match in map(pattern.needs.fullmatch, have) if match]
    return tuple(sorted((m for m in made if have.issuperset(m.inputs)), key=lambda m: m.name))
