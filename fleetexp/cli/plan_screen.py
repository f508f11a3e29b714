"""A plan on one screen: arms, knobs and their values now, schedule, blast radius, duration."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from agents.knobs.families import POOL_SIZE
from agents.messages import HostFacts, SourceForm, WorkloadSpec
from analysis.assignment_method import find_method
from fleetexp.cli.doctor_screen import hugetlb_area
from fleetexp.cli.output import duration, labelled, size, visible
from fleetexp.control.central_trial import CentralTrial
from fleetexp.control.prepare import instead_of
from fleetexp.domain import Design, PeriodKind, Plan, ShortPoolPolicy, UnitPlan

_HOSTS_SHOWN = 40
_NAMED = 3  # hosts named where only some are


def blast_radius(plan: Plan) -> int:
    """Return how many hosts may be off control at once, at worst."""
    if plan.design is Design.SWITCHBACK:
        return len(plan.units)
    return sum(1 for unit in plan.units if unit.arm != plan.control)


def blast_radius_by_stage(plan: Plan) -> list[int]:
    """Return how many hosts may be off control by the end of each stage."""
    return [sum(unit.stage <= stage.index and unit.arm != plan.control for unit in plan.units) for stage in plan.stages]


def blast_radius_by_pool(plan: Plan, facts: Sequence[HostFacts]) -> dict[str, tuple[int, int]]:
    """Return for each pool how many of its hosts may be off control at once, and how many take part."""
    pools = {one.host: one.labels.get("pool", "") for one in facts}
    out: dict[str, tuple[int, int]] = {}
    for unit in plan.units:
        off, all_of = out.get(pools.get(unit.host, ""), (0, 0))
        out[pools.get(unit.host, "")] = (off + (unit.arm != plan.control), all_of + 1)
    return dict(sorted(out.items()))


def plan_lines(
    name: str,
    hypothesis: str,
    plan: Plan,
    facts: Sequence[HostFacts],
    *,
    columns: int,
    every_host: bool = False,
    left_out: Mapping[str, int] | None = None,
    power: str = "",
    warnings: Sequence[str] = (),
    central: Sequence[CentralTrial] = (),
) -> list[str]:
    """Lay out the whole plan over hosts with these facts; `power` says what it can show, `warnings` what is unwise.

    `central`: what a metrics' server had for each of its queries.
    `left_out`: condition of the population -> how many hosts it took away.
    """
    own = {unit.host for unit in plan.units}
    facts = [one for one in facts if one.host in own]
    rows = [
        ("experiment", f"{name}: {plan.design.value}, seed {plan.seed}"),
        ("hypothesis", hypothesis or "none was written down"),
        *_arms(plan),
        *_workloads(plan),
        *([("pressure", _workload(plan.pressure))] if plan.pressure else ()),
        *_sources(plan),
        *(("asks", trial.text) for trial in central),
        *_knobs(plan, facts),
        *_assignment(plan),
        *([("left out", taken_away(left_out))] if left_out else []),
        *_hosts(plan, every_host=every_host),
        *_schedule(plan),
        ("blast radius", _radius(plan)),
        *_radius_parts(plan, facts),
        *([("can show", power)] if power else []),
        ("if it fails", _safety(plan)),
        *(("warning", warning) for warning in warnings),
        ("takes", f"about {duration(plan.seconds)}, and the time in which workloads get ready"),
    ]
    return [labelled(label, visible(text), columns=columns) for label, text in rows]


def taken_away(by_condition: Mapping[str, int]) -> str:
    """Say how many hosts each condition of the population took away."""
    return ", ".join(f"{count} by {condition}" for condition, count in by_condition.items())


def _arms(plan: Plan) -> Iterator[tuple[str, str]]:
    for arm in plan.arms:
        sets = ", ".join(f"{knob}={value}" for knob, value in arm.knobs.items()) or "every knob as found"
        yield "arm", f"{arm.name}{' (control)' if arm.name == plan.control else ''}: {sets}"


def _workloads(plan: Plan) -> Iterator[tuple[str, str]]:
    by_arm = {arm.name: plan.workloads.get(arm.name) for arm in plan.arms}
    if len({repr(spec) for spec in by_arm.values()}) == 1:
        yield "workload", _workload(next(iter(by_arm.values()), None))
        return
    for arm, spec in by_arm.items():
        yield "workload", f"{arm}: {_workload(spec)}"


def _sources(plan: Plan) -> Iterator[tuple[str, str]]:
    for source in plan.sources:
        where = source.url or source.at or source.perf or shlex.join(source.argv)
        where += " in the workload's cgroup" if source.in_cgroup else ""
        labels = ", ".join(f'{name}="{value}"' for name, value in source.labels.items())
        pick = f", {source.pick}{f'{{{labels}}}' if labels else ''}" if source.pick else ""
        kind = "counter" if source.counter else "gauge"
        what = f"the {source.question} of a histogram" if source.form is SourceForm.HISTOGRAM else f"a {kind}"
        yield "reads", f"{source.metric}, {what}: {where}{pick}"


def _workload(spec: WorkloadSpec | None) -> str:
    if spec is None:
        return "none: whatever runs on the host is watched"
    options = ", ".join(_option(name, value) for name, value in spec.options.items() if value)
    return f"{spec.kind}: {options}" if options else spec.kind


def _option(name: str, value: object) -> str:
    """Write one option of a workload; one that is off, empty or 0 is left out by the caller."""
    if value is True:
        return name
    for ending, kibibytes in (("_bytes", 1 / 1024), ("_kib", 1)):
        if name.endswith(ending) and isinstance(value, (int, float)):
            return f"{name.removesuffix(ending)} {size(value * kibibytes)}"
    if isinstance(value, tuple):
        return f"{name} {shlex.join(str(part) for part in value)}"
    return f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"


def _knobs(plan: Plan, facts: Sequence[HostFacts]) -> Iterator[tuple[str, str]]:
    """What each knob reads now, over all hosts; hosts that lack it or can't write it are named."""
    several = len(facts) > 1
    for knob in plan.knobs:
        values = Counter(one.knobs[knob] for one in facts if knob in one.knobs)
        lacking = [one.host for one in facts if knob not in one.knobs]
        stuck = [one for one in facts if knob in one.knobs and knob not in one.writable_knobs]
        reads = ", ".join(
            f"{value} on {count} host{'s' if count != 1 else ''}" if several else value
            for value, count in values.most_common()
        )
        if not values:
            where = "any host" if several else "this host"
            yield "writes", f"{knob}: NOT on {where}{''.join(f'; {instead_of(knob, one)}' for one in facts[:1])}"
        elif not several and stuck:
            yield "writes", f"{knob}: reads {reads}, and can NOT be written here: {_why(stuck[0])}"
        else:
            yield "writes", f"{knob}: reads {reads} now, and will again at the end"
        if several and lacking and values:
            yield "", f"{knob}: NOT on {_some(lacking)}"
        if several and stuck:
            reasons = ", ".join(sorted({_why(one) for one in stuck}))
            yield "", f"{knob}: can NOT be written on {_some([one.host for one in stuck])}: {reasons}"
    if any(knob.endswith(POOL_SIZE) for knob in plan.knobs):
        kept = Counter(area for one in facts if (area := hugetlb_area(one)))
        for area, count in kept.most_common():
            yield "hugetlb", f"{area} on {count} of {len(facts)} hosts" if several else area


def _why(facts: HostFacts) -> str:
    return facts.not_writable_because or "refused by the kernel"


def _some(hosts: Sequence[str]) -> str:
    more = f" and {len(hosts) - _NAMED} more" if len(hosts) > _NAMED else ""
    return f"{', '.join(hosts[:_NAMED])}{more}"


def _assignment(plan: Plan) -> Iterator[tuple[str, str]]:
    how = plan.assignment
    if plan.design is Design.PARALLEL:
        sets = len({unit.pair for unit in plan.units})
        yield "assignment", find_method(how.method).words(how, sets)
    if how.holdout:
        held = f"{len(how.held_out)} hosts" + (f" ({_some(how.held_out)})" if how.held_out else "")
        yield "held out", f"{held}, {how.holdout * 100:.3g} % by salt {how.holdout_salt!r}: never touched"


def _hosts(plan: Plan, *, every_host: bool) -> Iterator[tuple[str, str]]:
    """Every host by name, or where they are many, counted by stage, arm and stratum."""
    strata = {unit.stratum for unit in plan.units}
    if every_host or len(plan.units) <= _HOSTS_SHOWN:
        for unit in plan.units:
            where = f", stratum {unit.stratum}" if len(strata) > 1 else ""
            pair = f", set {unit.pair}" if unit.pair else ""
            arm = f"arm {unit.arm}, joins at stage {unit.stage + 1}" if unit.arm else "every arm in turn"
            yield "host", f"{unit.host}: {arm}{where}{pair}"
        return
    counts = Counter((unit.stage, unit.arm or "every arm in turn", unit.stratum) for unit in plan.units)
    for (stage, arm, stratum), count in sorted(counts.items()):
        where = f", stratum {stratum}" if len(strata) > 1 else ""
        yield "hosts", f"stage {stage + 1}, {arm}{where}: {count}"
    yield "", f"{len(plan.units)} hosts; --hosts names them all, --json has everything"


def _schedule(plan: Plan) -> Iterator[tuple[str, str]]:
    if not plan.units:
        return
    unit = plan.units[0]
    baseline = sum(period.seconds for period in unit.periods if period.kind is PeriodKind.BASELINE)
    if baseline:
        yield "schedule", f"baseline {duration(baseline)} first"
    blocks = sorted({period.block for period in unit.periods if period.block >= 0})
    if blocks:
        yield "schedule", f"{len(blocks)} blocks, each with every arm once: {_block(unit, blocks[0])}"
        yield "order", f"{_orders(unit, blocks)}, drawn with seed {plan.seed}"
    elif plan.stages:
        for stage in plan.stages:
            yield "stage", f"{stage.hosts} hosts for {duration(stage.hold_seconds)}, next step: {stage.approve}"
    yield "sampling", f"every {duration(plan.sample_every_seconds)}"


def _block(unit: UnitPlan, block: int) -> str:
    periods = [period for period in unit.periods if period.block == block]
    washouts = {period.seconds for period in periods if period.kind is PeriodKind.WASHOUT}
    measures = {period.seconds for period in periods if period.kind is PeriodKind.MEASURE}
    washout = f"washout {_lengths(washouts)}, then " if washouts else ""
    return f"{washout}measured for {_lengths(measures)} at most"


def _lengths(seconds: Iterable[float]) -> str:
    return " or ".join(duration(length) for length in sorted(seconds))


def _orders(unit: UnitPlan, blocks: list[int]) -> str:
    """Write the order of the arms: 'a b | b a | ...', the first blocks only where there are many."""
    orders = [
        " ".join(p.arm for p in unit.periods if p.block == block and p.kind is PeriodKind.MEASURE) for block in blocks
    ]
    return " | ".join(orders[:8]) + (" | ..." if len(orders) > 8 else "")


def _radius(plan: Plan) -> str:
    worst, hosts = blast_radius(plan), len(plan.units)
    return f"at most {worst} of {hosts} host{'s' if hosts != 1 else ''} off control at once"


def _radius_parts(plan: Plan, facts: Sequence[HostFacts]) -> Iterator[tuple[str, str]]:
    if len(plan.stages) > 1:
        by_stage = blast_radius_by_stage(plan)
        yield "", "by stage: " + ", ".join(f"{number + 1}: {off}" for number, off in enumerate(by_stage))
    pools = blast_radius_by_pool(plan, facts)
    if any(pools):
        yield "", "by pool: " + ", ".join(f"{pool or 'none'}: {off} of {size}" for pool, (off, size) in pools.items())


def _safety(plan: Plan) -> str:
    safety = plan.safety
    return (
        f"a host that is not heard from for {duration(safety.lease_seconds)} undoes itself; a broken block is tried "
        f"{safety.max_attempts} times; more failed hosts than {safety.max_failed_hosts} end the run; "
        f"somebody else's write to a knob: {safety.on_drift}"
        + (
            "; a hugetlb pool that is granted in part is taken as it is"
            if safety.on_short_pool == ShortPoolPolicy.ACCEPT
            else ""
        )
    )
