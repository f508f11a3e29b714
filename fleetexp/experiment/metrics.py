"""The metrics of an experiment: what is known of each name, and the plan of analysis that follows."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

from agents.catalogue import (
    CATALOGUE,
    COMMON_SIZES_KIB,
    DERIVED,
    PATTERNS,
    Metric,
    MetricKind,
    describe,
    find_derived,
    is_known,
)
from agents.messages import AT_LEAST, AT_MOST
from analysis.plan import (
    AnalysisPlan,
    AssignedUnit,
    Direction,
    GuardrailPlan,
    MetricPlan,
    Role,
    Rule,
    TradePlan,
)
from fleetexp.experiment.knob_names import pool_sizes, thp_sizes
from fleetexp.experiment.model import Experiment, Guardrail

_MOST_COMPARED = 500  # names that a misspelt one is compared with
OBSERVER_METRIC = "agent_cpu_seconds"
_EXPOSURE_OF_A_POOL = ("total_pages", "free_pages")
_EXPOSURE_OF_THE_TOP_LEVEL = ("anon_huge_bytes", "thp_fault_alloc", "thp_fault_fallback")  # all there is before 6.8
_EXPOSURE_OF_A_SIZE = ("backed_bytes", "anon_fault_alloc", "anon_fault_fallback", "split")


def known(name: str) -> Metric | None:
    """Return what the catalogue knows of a name, None where it knows nothing."""
    return describe(name) if is_known(name) else None


def better(experiment: Experiment, name: str) -> Direction | None:
    """Return the good direction of a metric: what the spec says, else what the catalogue does."""
    said = experiment.metrics.better.get(name)
    metric = known(name)
    direction = said or (metric.better if metric else None)
    return Direction(direction) if direction else None


def worse(experiment: Experiment, guardrail: Guardrail) -> Direction | None:
    """Return the bad direction of a guardrail: what it says, else the opposite of the good one."""
    if guardrail.worse is not None:
        return Direction(guardrail.worse)
    match better(experiment, guardrail.metric):
        case Direction.INCREASE:
            return Direction.DECREASE
        case Direction.DECREASE:
            return Direction.INCREASE
        case None:
            return Direction.INCREASE if guardrail.tripwire is not None else None


def nearest_metrics(experiment: Experiment, name: str) -> list[str]:
    """Return up to three legal names that look like this one."""
    sizes = {size for knobs in experiment.arms.values() for size in thp_sizes(knobs)} or COMMON_SIZES_KIB
    own = [f"thp_{size}kB_{what}" for size in sorted(sizes) for what in ("backed_bytes", "fallback_share", "split")]
    legal = [*CATALOGUE, *DERIVED, *(pattern.example for pattern in PATTERNS), *own, *experiment.metrics.sources]
    return difflib.get_close_matches(name, islice(dict.fromkeys(legal), _MOST_COMPARED), n=3, cutoff=0.5)


def analysis_plan(experiment: Experiment, units: Sequence[AssignedUnit] = ()) -> AnalysisPlan:
    """Fix what will be estimated: each metric once, in the strictest role that the spec gives it."""
    plans: dict[str, MetricPlan] = {}
    for name, role in _roles(experiment):
        plans.setdefault(name, _planned(experiment, name, role))
    return AnalysisPlan(
        design=experiment.design,
        control=experiment.control,
        arms=experiment.arm_names,
        metrics=tuple(plans.values()),
        guardrails=tuple(_guardrails(experiment)),
        units=tuple(units),
        alpha=experiment.alpha,
        seed=experiment.seed,
        order=experiment.order,
        ratio=tuple(float(experiment.ratio[arm]) for arm in experiment.arm_names),
        method=experiment.method.name,
        balance_rule=experiment.balance_rule if experiment.method.by_rule else None,
        trade=_trade(experiment, plans),
    )


def _trade(experiment: Experiment, planned: Mapping[str, MetricPlan]) -> TradePlan | None:
    """Return the trade that the spec names, else the usual one where both of its metrics are estimated anyway."""
    said = experiment.metrics.trade
    if said is not None:
        return TradePlan(
            throughput=said.throughput,
            memory=said.memory,
            memory_bound_share=said.memory_bound,
            rule=Rule(said.decides),
        )
    return usual_trade(planned)


def usual_trade(planned: Collection[str]) -> TradePlan | None:
    """Return the trade of throughput against memory, where both are estimated."""
    usual = TradePlan(throughput="throughput", memory="memory_used_bytes")
    return usual if {usual.throughput, usual.memory} <= set(planned) else None


def _planned(experiment: Experiment, name: str, role: Role) -> MetricPlan:
    metric, source = known(name), experiment.metrics.sources.get(name)
    # What the host counts is observed as a rate; what is derived from counts has its own unit.
    counter = metric is not None and metric.kind is MetricKind.COUNTER and find_derived(name) is None
    unit = metric.unit if metric else ""
    if source is not None:
        counter = source.counter(name)
        unit = source.unit or ("" if counter else unit)
    of_histogram = source is not None and source.question is not None
    return MetricPlan(
        name=name,
        unit=f"{unit} per second".lstrip() if counter else unit,
        role=role,
        better=better(experiment, name),
        counter=counter,
        at_least=name + AT_LEAST if of_histogram else "",
        at_most=name + AT_MOST if of_histogram else "",
    )


def _roles(experiment: Experiment) -> Iterator[tuple[str, Role]]:
    metrics = experiment.metrics
    yield metrics.primary, Role.PRIMARY
    for name in metrics.secondary:
        yield name, Role.SECONDARY
    for guardrail in metrics.guardrails:
        yield guardrail.metric, Role.GUARDRAIL
    for name in metrics.sources:
        yield name, Role.EXPLORATORY
    for size in sorted({size for knobs in experiment.arms.values() for size in thp_sizes(knobs)}):
        for what in _EXPOSURE_OF_A_SIZE:
            yield f"thp_{size}kB_{what}", Role.EXPOSURE
    if any("thp/enabled" in knobs for knobs in experiment.arms.values()):
        for name in _EXPOSURE_OF_THE_TOP_LEVEL:
            yield name, Role.EXPOSURE
    for size in sorted({size for knobs in experiment.arms.values() for size in pool_sizes(knobs)}):
        for what in _EXPOSURE_OF_A_POOL:
            yield f"hugetlb_{size}kB_{what}", Role.EXPOSURE
    yield OBSERVER_METRIC, Role.OBSERVER
    if experiment.workload is not None:
        for name in experiment.workload.reports:
            yield name, Role.EXPLORATORY


def _guardrails(experiment: Experiment) -> Iterator[GuardrailPlan]:
    for guardrail in experiment.metrics.guardrails:
        direction = worse(experiment, guardrail)
        assert direction is not None  # noqa: S101 - checked when the spec was read
        yield GuardrailPlan(
            metric=guardrail.metric, worse=direction, margin=guardrail.margin, tripwire=guardrail.tripwire
        )
