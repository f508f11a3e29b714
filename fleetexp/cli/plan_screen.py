"""A plan on one screen: arms, knobs and their values now, schedule, blast radius, duration."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from agents.messages import HostFacts, WorkloadSpec
from fleetexp.cli.output import duration, labelled, size, visible
from fleetexp.domain import Design, PeriodKind, Plan, UnitPlan

_HOSTS_SHOWN = 8


def blast_radius(plan: Plan) -> int:
    """Return how many hosts may be off control at once, at worst."""
    if plan.design is Design.SWITCHBACK:
        return len(plan.units)
    return sum(1 for unit in plan.units if unit.arm != plan.control)


def plan_lines(name: str, hypothesis: str, plan: Plan, facts: HostFacts, *, columns: int) -> list[str]:
    """Lay out the whole plan as seen from the host with these facts."""
    rows = [
        ("experiment", f"{name}: {plan.design.value}, seed {plan.seed}"),
        ("hypothesis", hypothesis or "none was written down"),
        *_arms(plan),
        *_workloads(plan),
        *_sources(plan),
        *_knobs(plan, facts),
        *_hosts(plan),
        *_schedule(plan),
        ("blast radius", _radius(plan)),
        ("if it fails", _safety(plan)),
        ("takes", f"about {duration(plan.seconds)}, and the time in which workloads get ready"),
    ]
    return [labelled(label, visible(text), columns=columns) for label, text in rows]


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
        where = source.url or source.file or shlex.join(source.argv)
        labels = ", ".join(f'{name}="{value}"' for name, value in source.labels.items())
        pick = f", {source.pick}{f'{{{labels}}}' if labels else ''}" if source.pick else ""
        yield "reads", f"{source.metric}, a {'counter' if source.counter else 'gauge'}: {where}{pick}"


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


def _knobs(plan: Plan, facts: HostFacts) -> Iterator[tuple[str, str]]:
    for knob in plan.knobs:
        if knob not in facts.knobs:
            yield "writes", f"{knob}: NOT on this host"
        elif knob not in facts.writable_knobs:
            why = facts.not_writable_because or "refused by the kernel"
            yield "writes", f"{knob}: reads {facts.knobs[knob]}, and can NOT be written here: {why}"
        else:
            yield "writes", f"{knob}: reads {facts.knobs[knob]} now, and will again at the end"


def _hosts(plan: Plan) -> Iterator[tuple[str, str]]:
    for unit in plan.units[:_HOSTS_SHOWN]:
        arm = f"arm {unit.arm}, joins at stage {unit.stage + 1}" if unit.arm else "every arm in turn"
        yield "host", f"{unit.host}: {arm}"
    if len(plan.units) > _HOSTS_SHOWN:
        yield "", f"and {len(plan.units) - _HOSTS_SHOWN} more; 'fleetexp plan --json' lists them all"


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


def _safety(plan: Plan) -> str:
    safety = plan.safety
    return (
        f"a host that is not heard from for {duration(safety.lease_seconds)} undoes itself; a broken block is tried "
        f"{safety.max_attempts} times; more failed hosts than {safety.max_failed_hosts} end the run; "
        f"somebody else's write to a knob: {safety.on_drift}"
    )
