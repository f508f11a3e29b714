"""Where a run that was interrupted goes on: what is done stays, what was broken off is repeated. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from fleetexp.control.messages import Abandon, AddPeriods, Instruction, InvalidateBlock
from fleetexp.domain import BrokenBy, Goal, PeriodPlan, PeriodRecord, PeriodState

INTERRUPTED = "the run was interrupted in this block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the audit trail says of a run so far, beside its periods."""

    goal: Goal | None = None  # where a halt was heading that nobody lived to finish
    tripped: Mapping[str, str] = field(default_factory=dict)  # host -> the tripwire that took it out for good
    troubled: frozenset[str] = frozenset()  # hosts that failed or were lost since somebody last let the run go on


def stage_reached(records: Iterable[PeriodRecord]) -> int:
    """Return the stage that was open: the last in which a period began."""
    return max((record.plan.stage for record in records if record.started_at is not None), default=0)


def what_is_left(
    host: str, records: Iterable[PeriodRecord], *, max_attempts: int
) -> tuple[list[PeriodPlan], list[Instruction]]:
    """Return the periods that a host still has to go through, and what the store must be told before they are."""
    attempts: dict[tuple[int, int], list[PeriodRecord]] = {}
    for record in records:
        # Outside a block every period stands alone, keyed by its own place in the schedule.
        key = record.plan.block if record.plan.block >= 0 else -1 - record.plan.index
        attempts.setdefault((key, record.plan.attempt), []).append(record)
    last: dict[int, int] = {}
    for key, attempt in attempts:
        last[key] = max(attempt, last.get(key, 0))
    queue: list[PeriodPlan] = []
    told: list[Instruction] = []
    for key in sorted(last, key=lambda key: min(r.plan.index for r in attempts[key, last[key]])):
        block = sorted(attempts[key, last[key]], key=lambda record: record.plan.index)
        states = {record.state for record in block}
        periods = tuple(record.plan for record in block)
        if states == {PeriodState.COMPLETE}:
            continue
        if states == {PeriodState.PLANNED}:
            queue += periods
            continue
        if states != {PeriodState.INVALID}:
            told += void(host, periods[0], periods, INTERRUPTED, BrokenBy.RUN)
        if periods[0].attempt + 1 < max_attempts:
            again = tuple(replace(period, attempt=period.attempt + 1) for period in periods)
            told.append(AddPeriods(host=host, periods=again))
            queue += again
    return queue, told


def void(
    host: str, period: PeriodPlan, periods: Iterable[PeriodPlan], reason: str, broken_by: BrokenBy
) -> list[Instruction]:
    """Strike out an attempt at a block, or the lone periods where there is no block."""
    if period.block >= 0:
        return [
            InvalidateBlock(host=host, block=period.block, attempt=period.attempt, reason=reason, broken_by=broken_by)
        ]
    return [Abandon(host=host, period=p, reason=reason, broken_by=broken_by) for p in periods]
