"""What one host goes through, whatever the others do: its periods, its failures, the way back. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from fleetexp.control.host_registry import Change, HostRegistry, HostState
from fleetexp.control.messages import (
    Abandon,
    AddPeriods,
    ApplyArm,
    Collect,
    DriftSeen,
    HostBack,
    HostLost,
    HostReverted,
    Instruction,
    KnobsSnapshotted,
    KnobsVerified,
    NoteCrossing,
    PeriodBegun,
    PeriodClosed,
    PreflightDone,
    RecordFact,
    RevertFailed,
    RevertHost,
    Snapshot,
    StartPeriod,
    StepFailed,
    TripwireCrossed,
    UnitEvent,
    WakeAt,
    WorkloadFinished,
)
from fleetexp.control.resumption import void
from fleetexp.control.transitions import HOST, Ignored, unlisted
from fleetexp.domain import BrokenBy, Design, DriftPolicy, EventKind, PeriodKind, PeriodPlan, Plan, UnitState

RECONNECT_EVERY_SECONDS = 2.0
RECONNECT_AT_MOST = 5
TAKEN_OFF = frozenset({UnitState.REVERTING, UnitState.REVERTED})


@dataclass(slots=True)
class Hosts:
    """The hosts' side of a machine, which says how far the ramp is, and whether the run is being halted."""

    plan: Plan
    registry: HostRegistry
    stage: int = 0
    at_gate: bool = False  # between two stages
    halting: str | None = None  # why the run is being halted, None while it is not
    fell_last: HostState | None = None

    def handle(self, unit: HostState, event: UnitEvent, now: float) -> list[Instruction]:
        cell = HOST[unit.state].get(type(event))
        if cell is None:
            return [unlisted(event, unit.state)]
        if isinstance(cell, Ignored):
            return []
        out: list[Instruction] = getattr(self, cell.handler)(unit, event, now)
        return out

    # ------------------------------------------------------------------ the table's handlers; those of failures below
    def checked(self, unit: HostState, event: PreflightDone, now: float) -> list[Instruction]:
        unit.checked = True
        return self.fail(unit, "; ".join(event.problems)) if event.problems else []

    def snapshotted(self, unit: HostState, event: KnobsSnapshotted, now: float) -> list[Instruction]:
        self.over(unit, Snapshot)
        unit.state = UnitState.SNAPSHOTTED
        return self.next(unit)

    def verified(self, unit: HostState, event: KnobsVerified, now: float) -> list[Instruction]:
        self.over(unit, ApplyArm)
        return self.begin(unit) if unit.current and unit.current.arm == event.arm else []

    def reapplied(self, unit: HostState, event: KnobsVerified, now: float) -> list[Instruction]:
        self.over(unit, ApplyArm)
        return []

    def begun(self, unit: HostState, event: PeriodBegun, now: float) -> list[Instruction]:
        if unit.current is None:
            return []
        unit.begun = unit.begun or unit.current.kind is PeriodKind.MEASURE
        if self.suspends(unit):
            unit.deadline, unit.remaining_seconds = math.inf, unit.current.seconds
            return []
        return self.until(unit, now + unit.current.seconds)

    def finished(self, unit: HostState, event: WorkloadFinished, now: float) -> list[Instruction]:
        return self.collect(unit)

    def closed(self, unit: HostState, event: PeriodClosed, now: float) -> list[Instruction]:
        if unit.current is None:
            return []
        period, unit.current, unit.deadline = unit.current, None, None
        unit.state = UnitState.APPLIED
        if not event.invalid:
            unit.reconnects = 0
            return self.next(unit)
        out = self.repeat(unit, period, event.invalid)
        if unit.failed:
            return out + self.fail(unit, unit.failed)
        return out + self.next(unit)

    def back(self, unit: HostState, event: HostBack, now: float) -> list[Instruction]:
        """A host that was lost is first put back as it was found, whatever comes after."""
        return [RecordFact(kind=EventKind.HOST_BACK, host=unit.host), *self.ask(unit, RevertHost(host=unit.host))]

    def reverted(self, unit: HostState, event: HostReverted, now: float) -> list[Instruction]:
        """Leave it at that; but a host that was lost, is back and clean, goes on: its broken block comes first."""
        self.over(unit, RevertHost)
        unit.state, unit.unrestored = UnitState.REVERTED, ""
        if self.halting is not None or unit.failed or not unit.queue:
            return []
        unit.state, unit.holds = UnitState.IDLE, None
        return self.in_turn(unit, Snapshot(host=unit.host))

    # ------------------------------------------------------------------ its periods
    def next(self, unit: HostState) -> list[Instruction]:
        """Start the unit's next period, or take the host back when there is none."""
        if not unit.queue:
            return self.in_turn(unit, RevertHost(host=unit.host))
        period = unit.queue[0]
        if period.stage > self.stage:
            return []
        unit.current = unit.queue.popleft()
        if unit.holds != (period.arm, period.block, period.attempt):
            unit.holds = (period.arm, period.block, period.attempt)
            return self.in_turn(unit, ApplyArm(host=unit.host, arm=period.arm))
        return self.begin(unit)

    def begin(self, unit: HostState) -> list[Instruction]:
        if unit.current is None:
            return []
        washout = unit.current.kind is PeriodKind.WASHOUT
        unit.state = UnitState.WASHING_OUT if washout else UnitState.MEASURING
        return [StartPeriod(host=unit.host, period=unit.current)]

    def until(self, unit: HostState, at: float) -> list[Instruction]:
        unit.deadline = at
        self.registry.alarm(unit, at)
        return [WakeAt(at=at)]

    def collect(self, unit: HostState, invalid: str = "") -> list[Instruction]:
        if unit.current is None or unit.deadline is None:
            return []
        unit.deadline = None
        return [Collect(host=unit.host, period=unit.current, invalid=invalid)]

    def repeat(self, unit: HostState, broken: PeriodPlan, reason: str) -> list[Instruction]:
        """Strike out the broken period's block and put a repeat of the whole block in front of the queue."""
        if broken.block >= 0:
            block = tuple(p for p in unit.plan.periods if p.block == broken.block)
            while unit.queue and (unit.queue[0].block, unit.queue[0].attempt) == (broken.block, broken.attempt):
                unit.queue.popleft()
        else:
            block = (broken,)
        out = void(unit.host, broken, block, reason, BrokenBy.HOST)
        unit.holds = None
        if broken.attempt + 1 >= self.plan.safety.max_attempts:
            self.fell(unit, f"block {broken.block} was broken {broken.attempt + 1} times, last: {reason}")
            return out
        again = tuple(replace(p, attempt=broken.attempt + 1) for p in block)
        unit.queue.extendleft(reversed(again))
        return [*out, AddPeriods(host=unit.host, periods=again)]

    # ------------------------------------------------------------------ changes, and whose turn it is
    def in_turn(self, unit: HostState, change: Change) -> list[Instruction]:
        """Ask the host for a change, or let that wait while as many hosts as allowed are being changed."""
        most = self.plan.safety.max_changing
        if most is None:
            return self.ask(unit, change)
        self.registry.queue_up(unit, change)
        return []

    def let_change(self) -> list[Instruction]:
        most, out = self.plan.safety.max_changing, list[Instruction]()
        while most is not None and self.registry.counts.changing < most:
            unit = self.registry.next_in_line()
            if unit is None or unit.waiting is None:
                break
            out += self.ask(unit, unit.waiting)
            self.registry.count(unit)
        return out

    def ask(self, unit: HostState, change: Change) -> list[Instruction]:
        """Ask the host for a change at once."""
        unit.under_way, unit.waiting = change, None
        match change:
            case Snapshot():
                unit.claimed = True
            case RevertHost():
                unit.state = UnitState.REVERTING
        return [change]

    @staticmethod
    def over(unit: HostState, *kinds: type) -> None:
        if isinstance(unit.under_way, kinds):
            unit.under_way = None

    # ------------------------------------------------------------------ failures
    def drift(self, unit: HostState, event: DriftSeen, now: float) -> list[Instruction]:
        """Somebody else wrote a knob: the period is broken. Where that halts the run, the machine sees to it."""
        out = self.drift_of_none(unit, event, now)
        if self.plan.safety.on_drift == DriftPolicy.HALT:
            return out
        if self.plan.safety.on_drift == DriftPolicy.REAPPLY and unit.current is not None and unit.deadline is not None:
            # Written again at once; the period has been disturbed all the same and is repeated with its block.
            out.append(ApplyArm(host=unit.host, arm=unit.current.arm))
        return out + self.collect(unit, f"drift: {event.detail}")

    def drift_of_none(self, unit: HostState, event: DriftSeen, now: float) -> list[Instruction]:
        """Somebody else wrote a knob, and no period is under way."""
        return [RecordFact(kind=EventKind.DRIFT, detail=event.detail, host=unit.host)]

    def refused(self, unit: HostState, event: StepFailed, now: float) -> list[Instruction]:
        self.over(unit, Snapshot, ApplyArm)
        return self.fail(unit, event.detail)

    def revert_failed(self, unit: HostState, event: RevertFailed, now: float) -> list[Instruction]:
        self.over(unit, RevertHost)
        unit.unrestored = event.detail
        self.fell(unit, event.detail)
        return [RecordFact(kind=EventKind.RESTORE_FAILED, detail=event.detail, host=unit.host)]

    def fail(self, unit: HostState, detail: str, kind: EventKind = EventKind.HOST_FAILED) -> list[Instruction]:
        """Take a host out of the run for good: it answered, and said no."""
        self.fell(unit, detail)
        return [RecordFact(kind=kind, detail=detail, host=unit.host), *self.revert(unit)]

    def fell(self, unit: HostState, detail: str) -> None:
        unit.troubled = True
        if not unit.failed:
            unit.failed, self.fell_last = detail, unit

    def trip(self, unit: HostState, event: TripwireCrossed, now: float) -> list[Instruction]:
        """Take a host out of the run for good: it came to harm."""
        if unit.failed:
            return []
        present = unit.current.arm if unit.current else unit.holds[0] if unit.holds else self.plan.control
        arm = event.arm or present
        unit.tripped = f"{event.metric}: {event.detail}"
        note = NoteCrossing(crossing=event, arm=arm, stage=self.stage)
        return [note, *self.fail(unit, unit.tripped, kind=EventKind.TRIPWIRE)]

    def lost(self, unit: HostState, event: HostLost, now: float) -> list[Instruction]:
        known, detail = unit.state is UnitState.LOST and unit.reconnect_at is not None, event.detail
        if known or unit.unrestored:
            return []
        out: list[Instruction] = [RecordFact(kind=EventKind.HOST_LOST, detail=detail, host=unit.host)]
        unit.troubled, unit.under_way, unit.waiting = True, None, None
        period, unit.current, unit.deadline, unit.holds = unit.current, None, None, None
        if period is not None:
            reason = f"host lost: {detail}"
            out.append(Abandon(host=unit.host, period=period, reason=reason, broken_by=BrokenBy.HOST))
            out += self.repeat(unit, period, reason)
        if not unit.claimed:  # never changed: nothing to bring back
            unit.state, unit.checked = UnitState.REVERTED, True
            self.fell(unit, detail)
            return out
        unit.state = UnitState.LOST
        unit.reconnects += 1
        if unit.reconnects > RECONNECT_AT_MOST:
            unit.unrestored = f"unreachable: {detail}"
            self.fell(unit, detail)
            return out
        unit.reconnect_at = now + RECONNECT_EVERY_SECONDS * (unit.reconnects - 1)
        self.registry.alarm(unit, unit.reconnect_at)
        return [*out, WakeAt(at=unit.reconnect_at)]

    def revert(self, unit: HostState, broken_by: BrokenBy = BrokenBy.HOST) -> list[Instruction]:
        """Put the host back at once, out of turn; `broken_by` is what that does to the period that was under way."""
        if unit.state in TAKEN_OFF or unit.unrestored:
            return []
        unit.waiting = None
        if not unit.claimed:
            unit.state = UnitState.REVERTED
            return []
        out: list[Instruction] = []
        if unit.current is not None:
            reason = unit.failed if self.halting is None else self.halting
            out.append(Abandon(host=unit.host, period=unit.current, reason=reason, broken_by=broken_by))
            unit.current, unit.deadline = None, None
        if unit.state is UnitState.LOST:  # the revert goes out when it is back
            return out
        return out + self.ask(unit, RevertHost(host=unit.host))

    def suspends(self, unit: HostState) -> bool:
        measures = unit.current is not None and unit.current.kind is PeriodKind.MEASURE
        return self.plan.design is Design.PARALLEL and measures and self.at_gate
