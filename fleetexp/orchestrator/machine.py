"""The run as a pure state machine: `handle(event, now)` returns instructions, does no I/O and reads no clock.

The states are drawn in `fleetexp.domain`, the hosts are in `fleetexp.orchestrator.roll`. Rules that hold everywhere:
- whatever goes wrong, the way out leads through `Revert` for every host that may have been changed;
- a broken period takes its whole block with it, and the block is repeated, up to `Safety.max_attempts` times;
- an event is handled at a cost that does not grow with the fleet, but where a stage opens or the run halts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from fleetexp.domain import Design, PeriodKind, PeriodPlan, PeriodRecord, Plan, RunState, UnitState
from fleetexp.orchestrator.messages import (
    Abandon,
    AddPeriods,
    Analyse,
    Analysed,
    ApplyArm,
    ApprovalGiven,
    CheckHost,
    Collect,
    DriftSeen,
    EnterState,
    Event,
    GuardrailBreached,
    GuardrailsTested,
    HostBack,
    HostLost,
    HostReverted,
    Instruction,
    KnobsSnapshotted,
    KnobsVerified,
    NoteCrossing,
    PauseRequested,
    PeriodBegun,
    PeriodClosed,
    PreflightDone,
    Reconnect,
    Record,
    Revert,
    RevertFailed,
    Snapshot,
    StartPeriod,
    StepFailed,
    StopRequested,
    TestGuardrails,
    TimePassed,
    TripwireCrossed,
    WakeAt,
    WorkloadFinished,
)
from fleetexp.orchestrator.resumption import Past, stage_reached, void, what_is_left
from fleetexp.orchestrator.roll import Change, Roll, Unit, names

RECONNECT_EVERY_SECONDS = 2.0
RECONNECT_AT_MOST = 5
HALTING_TO = "halting_to"  # kind of the event that says where a halt is heading: 'halted: aborted by ann'
AWAITING_APPROVAL = "awaiting_approval"  # kind of the event, and how the run's reason begins meanwhile
NOT_RESTORED = "not_restored"  # kind of the event: this host does not read as it was found, or nobody knows
RESTORED = "restored"  # kind of the event: seen to read as it was found, after all
_TAKEN_OFF = frozenset({UnitState.REVERTING, UnitState.REVERTED})


class Gate(StrEnum):
    """Between two stages: the data so far are tested, then somebody may have to approve."""

    PASSED = "passed"  # the stage is open
    TESTING = "testing the guardrails"
    WAITING = "awaiting approval"


@dataclass(slots=True)
class Machine:
    """A run in progress. Make one with `Machine(plan)` or, for a run that was interrupted, `Machine.resumed`."""

    plan: Plan
    state: RunState = RunState.PLANNED
    stage: int = 0
    gate: Gate = Gate.PASSED
    goal: tuple[RunState, str] | None = None  # where a halt is heading, and why
    again: bool = False  # resumed: an earlier process may have changed hosts
    roll: Roll = field(init=False)
    _stage_ends_at: float | None = None
    _settled: bool = False  # every host of the open stage measures
    _look: int | None = None  # the planned look that the analysis is; None: the run ended at no planned moment
    _fell_last: Unit | None = None
    _prelude: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.roll = Roll.of(self.plan)

    @property
    def units(self) -> dict[str, Unit]:
        return self.roll.units

    @classmethod
    def resumed(cls, plan: Plan, records: Iterable[PeriodRecord], past: Past | None = None) -> Machine:
        """Rebuild the machine from the stored periods: finished blocks stay, broken ones are repeated.

        With the goal of a halt that was interrupted nothing more is measured: hosts are put back, and it ends there.
        A host that a tripwire took out stays out: it is put back once more, in case nobody lived to do that.
        """
        past = past or Past()
        by_host: dict[str, list[PeriodRecord]] = {unit.host: [] for unit in plan.units}
        for record in records:
            by_host[record.host].append(record)
        machine = cls(plan=plan, goal=past.goal, again=True)
        machine.stage = stage_reached(record for own in by_host.values() for record in own)
        for host, unit in machine.units.items():
            unit.queue, unit.troubled, unit.tripped = deque(), host in past.troubled, past.tripped.get(host, "")
            if past.goal is None and not unit.tripped:
                queue, told = what_is_left(host, by_host[host], max_attempts=plan.safety.max_attempts)
                unit.queue.extend(queue)
                machine._prelude += told
        machine.roll.count_all()
        return machine

    # ------------------------------------------------------------------ the outside
    def start(self, now: float) -> list[Instruction]:
        """Leave `planned`: check every host first, change nothing yet."""
        self.state = RunState.PREFLIGHT
        out: list[Instruction] = [EnterState(state=self.state), *self._prelude]
        if self.goal is not None:  # said again: this process may be interrupted as well
            out.append(Record(kind=HALTING_TO, detail=f"{self.goal[0].value}: {self.goal[1]}"))
        out += [CheckHost(host=host) for host in self.units]
        return out

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event at machine time `now` (seconds, monotonic); return what must be done, in order."""
        if self.state.is_terminal or self.state is RunState.PAUSED:
            return []
        match event:
            case PauseRequested(who=who):
                out = self._halt(RunState.PAUSED, f"paused by {who}")
            case StopRequested(who=who):
                out = self._halt(RunState.HALTED, f"aborted by {who}")
            case GuardrailBreached(metric=metric, detail=detail, host=host):
                out = [Record(kind="guardrail_breached", detail=f"{metric}: {detail}", host=host)]
                out += self._halt(RunState.HALTED, f"guardrail {metric}: {detail}")
            case GuardrailsTested(stage=stage, breaches=breaches):
                out = self._tested(stage, breaches, now)
            case ApprovalGiven(who=who):
                out = self._approved(who, now)
            case TimePassed():
                out = self._time(now)
            case Analysed():
                return self._conclude()
            case _:
                unit = self.units[event.host]
                out = self._host_event(unit, event, now)
                self.roll.count(unit)
        return out + self._consider(now)

    def _consider(self, now: float) -> list[Instruction]:
        """What follows from the counts, whatever the event was."""
        out = self._cap()
        if self.state is RunState.PREFLIGHT and not self.roll.counts.unheard:
            out += self._claim_all(now)
        return out + self._let_change() + self._hold(now) + self._settle()

    # ------------------------------------------------------------------ one host
    def _host_event(self, unit: Unit, event: Event, now: float) -> list[Instruction]:
        match event:
            case PreflightDone(problems=problems):
                unit.checked = True
                return self._fail(unit, "; ".join(problems)) if problems else []
            case KnobsSnapshotted():
                self._over(unit, Snapshot)
                if unit.state in _TAKEN_OFF:
                    return []
                unit.state = UnitState.SNAPSHOTTED
                return self._next(unit)
            case KnobsVerified(arm=arm):
                self._over(unit, ApplyArm)
                waits = unit.state in {UnitState.SNAPSHOTTED, UnitState.APPLIED}  # not so where an arm was reapplied
                return self._begin(unit) if waits and unit.current and unit.current.arm == arm else []
            case PeriodBegun():
                return self._begun(unit, now)
            case WorkloadFinished():
                return self._collect(unit)
            case PeriodClosed(invalid=invalid):
                return self._closed(unit, invalid)
            case DriftSeen(detail=detail):
                return self._drift(unit, detail)
            case TripwireCrossed() as crossing:
                return self._trip(unit, crossing)
            case StepFailed(detail=detail):
                self._over(unit, Snapshot, ApplyArm)
                return self._fail(unit, detail)
            case HostLost(detail=detail):
                return self._lost(unit, detail, now)
            case HostBack():
                # A host that was lost is first put back as it was found, whatever comes after.
                return [Record(kind="host_back", detail="", host=unit.host), *self._ask(unit, Revert(host=unit.host))]
            case HostReverted():
                self._over(unit, Revert)
                unit.state, unit.unrestored = UnitState.REVERTED, ""
                return self._take_up_again(unit)
            case RevertFailed(detail=detail):
                self._over(unit, Revert)
                unit.unrestored = detail
                self._fell(unit, detail)
                return [Record(kind="restore_failed", detail=detail, host=unit.host)]
        raise AssertionError(f"no such event: {event!r}")

    def _next(self, unit: Unit) -> list[Instruction]:
        """Start the unit's next period, or take the host back when there is none."""
        if not unit.queue:
            return self._in_turn(unit, Revert(host=unit.host))
        period = unit.queue[0]
        if period.stage > self.stage:
            return []
        unit.current = unit.queue.popleft()
        if unit.holds != (period.arm, period.block, period.attempt):
            unit.holds = (period.arm, period.block, period.attempt)
            return self._in_turn(unit, ApplyArm(host=unit.host, arm=period.arm))
        return self._begin(unit)

    def _begin(self, unit: Unit) -> list[Instruction]:
        if unit.current is None:
            return []
        washout = unit.current.kind is PeriodKind.WASHOUT
        unit.state = UnitState.WASHING_OUT if washout else UnitState.MEASURING
        return [StartPeriod(host=unit.host, period=unit.current)]

    def _begun(self, unit: Unit, now: float) -> list[Instruction]:
        if unit.state in _TAKEN_OFF or unit.current is None:
            return []
        unit.begun = unit.begun or unit.current.kind is PeriodKind.MEASURE
        if self._suspends(unit):
            unit.deadline, unit.remaining_seconds = math.inf, unit.current.seconds
            return []
        return self._until(unit, now + unit.current.seconds)

    def _until(self, unit: Unit, at: float) -> list[Instruction]:
        unit.deadline = at
        self.roll.alarm(unit, at)
        return [WakeAt(at=at)]

    def _collect(self, unit: Unit, invalid: str = "") -> list[Instruction]:
        if unit.current is None or unit.deadline is None:
            return []
        unit.deadline = None
        return [Collect(host=unit.host, period=unit.current, invalid=invalid)]

    def _closed(self, unit: Unit, invalid: str) -> list[Instruction]:
        if unit.state in _TAKEN_OFF or unit.current is None:
            return []
        period, unit.current, unit.deadline = unit.current, None, None
        unit.state = UnitState.APPLIED
        if not invalid:
            unit.reconnects = 0
            return self._next(unit)
        out = self._repeat(unit, period, invalid)
        if unit.failed:
            return out + self._fail(unit, unit.failed)
        return out + self._next(unit)

    def _repeat(self, unit: Unit, broken: PeriodPlan, reason: str) -> list[Instruction]:
        """Strike out the broken period's block and put a repeat of the whole block in front of the queue."""
        if broken.block >= 0:
            block = tuple(p for p in unit.plan.periods if p.block == broken.block)
            while unit.queue and (unit.queue[0].block, unit.queue[0].attempt) == (broken.block, broken.attempt):
                unit.queue.popleft()
        else:
            block = (broken,)
        out = void(unit.host, broken, block, reason)
        unit.holds = None
        if broken.attempt + 1 >= self.plan.safety.max_attempts:
            self._fell(unit, f"block {broken.block} was broken {broken.attempt + 1} times, last: {reason}")
            return out
        again = tuple(replace(p, attempt=broken.attempt + 1) for p in block)
        unit.queue.extendleft(reversed(again))
        return [*out, AddPeriods(host=unit.host, periods=again)]

    def _drift(self, unit: Unit, detail: str) -> list[Instruction]:
        out: list[Instruction] = [Record(kind="drift", detail=detail, host=unit.host)]
        if unit.state in _TAKEN_OFF:
            return out
        if self.plan.safety.on_drift == "halt":
            return out + self._halt(RunState.HALTED, f"{unit.host}: a knob was changed from outside: {detail}")
        if self.plan.safety.on_drift == "reapply" and unit.current is not None and unit.deadline is not None:
            # Written again at once; the period has been disturbed all the same and is repeated with its block.
            out.append(ApplyArm(host=unit.host, arm=unit.current.arm))
        return out + self._collect(unit, f"drift: {detail}")

    # ------------------------------------------------------------------ changes, and whose turn it is
    def _in_turn(self, unit: Unit, change: Change) -> list[Instruction]:
        """Ask the host for a change, or let that wait while as many hosts as allowed are being changed."""
        most = self.plan.safety.max_changing
        if most is None:
            return self._ask(unit, change)
        self.roll.queue_up(unit, change)
        return []

    def _let_change(self) -> list[Instruction]:
        most, out = self.plan.safety.max_changing, list[Instruction]()
        while most is not None and self.roll.counts.changing < most:
            unit = self.roll.next_in_line()
            if unit is None or unit.waiting is None:
                break
            out += self._ask(unit, unit.waiting)
            self.roll.count(unit)
        return out

    def _ask(self, unit: Unit, change: Change) -> list[Instruction]:
        """Ask the host for a change at once."""
        unit.under_way, unit.waiting = change, None
        match change:
            case Snapshot():
                unit.claimed = True
            case Revert():
                unit.state = UnitState.REVERTING
        return [change]

    @staticmethod
    def _over(unit: Unit, *kinds: type) -> None:
        if isinstance(unit.under_way, kinds):
            unit.under_way = None

    # ------------------------------------------------------------------ failures
    def _fail(self, unit: Unit, detail: str, kind: str = "host_failed") -> list[Instruction]:
        """Take a host out of the run for good: it answered, and said no."""
        self._fell(unit, detail)
        return [Record(kind=kind, detail=detail, host=unit.host), *self._revert(unit)]

    def _fell(self, unit: Unit, detail: str) -> None:
        unit.troubled = True
        if not unit.failed:
            unit.failed, self._fell_last = detail, unit

    def _trip(self, unit: Unit, crossing: TripwireCrossed) -> list[Instruction]:
        """Take a host out of the run for good: it came to harm."""
        if unit.failed:
            return []
        arm = unit.current.arm if unit.current else unit.holds[0] if unit.holds else self.plan.control
        unit.tripped = f"{crossing.metric}: {crossing.detail}"
        note = NoteCrossing(crossing=crossing, arm=arm, stage=self.stage)
        return [note, *self._fail(unit, unit.tripped, kind="tripwire")]

    def _lost(self, unit: Unit, detail: str, now: float) -> list[Instruction]:
        known = unit.state is UnitState.LOST and unit.reconnect_at is not None
        if known or unit.state is UnitState.REVERTED or unit.unrestored:
            return []
        out: list[Instruction] = [Record(kind="host_lost", detail=detail, host=unit.host)]
        unit.troubled, unit.under_way, unit.waiting = True, None, None
        period, unit.current, unit.deadline, unit.holds = unit.current, None, None, None
        if period is not None:
            reason = f"host lost: {detail}"
            out.append(Abandon(host=unit.host, period=period, reason=reason))
            out += self._repeat(unit, period, reason)
        if not unit.claimed:  # never changed: nothing to bring back
            unit.state, unit.checked = UnitState.REVERTED, True
            self._fell(unit, detail)
            return out
        unit.state = UnitState.LOST
        unit.reconnects += 1
        if unit.reconnects > RECONNECT_AT_MOST:
            unit.unrestored = f"unreachable: {detail}"
            self._fell(unit, detail)
            return out
        unit.reconnect_at = now + RECONNECT_EVERY_SECONDS * (unit.reconnects - 1)
        self.roll.alarm(unit, unit.reconnect_at)
        return [*out, WakeAt(at=unit.reconnect_at)]

    def _take_up_again(self, unit: Unit) -> list[Instruction]:
        """A host that was lost, is back and clean: its broken block comes first."""
        if self.goal is not None or unit.failed or not unit.queue:
            return []
        unit.state, unit.holds = UnitState.IDLE, None
        return self._in_turn(unit, Snapshot(host=unit.host))

    def _revert(self, unit: Unit) -> list[Instruction]:
        """Put the host back at once, out of turn."""
        if unit.state in _TAKEN_OFF or unit.unrestored:
            return []
        unit.waiting = None
        if not unit.claimed:
            unit.state = UnitState.REVERTED
            return []
        out: list[Instruction] = []
        if unit.current is not None:
            reason = self.goal[1] if self.goal else unit.failed
            out.append(Abandon(host=unit.host, period=unit.current, reason=reason))
            unit.current, unit.deadline = None, None
        if unit.state is UnitState.LOST:  # the revert goes out when it is back
            return out
        return out + self._ask(unit, Revert(host=unit.host))

    def _cap(self) -> list[Instruction]:
        """Halt when more hosts than allowed have failed, or none is left; unreachable hosts count like any other."""
        counts, most = self.roll.counts, self.plan.safety.max_failed_hosts
        if self.goal is not None or (not counts.failed and counts.troubled <= most):
            return []
        if counts.failed == len(self.units):
            return self._nobody_left()
        if counts.troubled > most:
            return self._halt(RunState.PAUSED, f"{counts.troubled} hosts failed or were lost, {most} allowed")
        return []

    def _nobody_left(self) -> list[Instruction]:
        count, last = len(self.units), self._fell_last
        if last is not None and last.tripped:
            where = f", on {last.host}, the last of {count} hosts" if count > 1 else ""
            return self._halt(RunState.HALTED, f"guardrail {last.tripped}{where}")
        first = next(unit.failed for unit in self.units.values())
        untouched = not self.again and not self.roll.counts.claimed
        reason = first if count == 1 else f"all {count} hosts failed: {first}"
        return self._halt(RunState.FAILED if untouched else RunState.PAUSED, reason)

    # ------------------------------------------------------------------ the ramp
    def _claim_all(self, now: float) -> list[Instruction]:
        """Leave preflight: the last host has been heard of, whatever it was."""
        self.state = RunState.RUNNING
        out: list[Instruction] = [EnterState(state=self.state)]
        for unit in self.units.values():
            if not unit.failed:
                out += self._in_turn(unit, Snapshot(host=unit.host))
                self.roll.count(unit)
        return out + self._open_stage(self.stage, now)

    def _open_stage(self, stage: int, now: float) -> list[Instruction]:
        self.stage, self.gate, self._settled = stage, Gate.PASSED, self.plan.design is not Design.PARALLEL
        last = stage + 1 >= len(self.plan.stages)
        self._stage_ends_at = None if last else now + self.plan.stages[stage].hold_seconds
        out: list[Instruction] = [Record(kind="stage_opened", detail=str(stage))]
        if self._stage_ends_at is not None:
            out.append(WakeAt(at=self._stage_ends_at))
        for unit in self.units.values():
            if unit.deadline == math.inf:
                out += self._until(unit, now + unit.remaining_seconds)
            rests = unit.state in {UnitState.SNAPSHOTTED, UnitState.APPLIED} and unit.current is None
            if rests and unit.queue and unit.waiting is None:
                out += self._next(unit)
                self.roll.count(unit)
        return out

    def _time(self, now: float) -> list[Instruction]:
        out: list[Instruction] = []
        for unit in self.roll.due(now):
            if unit.deadline is not None and now >= unit.deadline:
                out += self._collect(unit)
            if unit.reconnect_at is not None and now >= unit.reconnect_at:
                unit.reconnect_at = None
                out.append(Reconnect(host=unit.host))
            self.roll.count(unit)
        ends_at = self._stage_ends_at
        if self.state is RunState.RUNNING and ends_at is not None and now >= ends_at and self._settled:
            out += self._close_stage(now)
        return out

    def _hold(self, now: float) -> list[Instruction]:
        """Count the hold of a parallel stage from the moment at which the last of its hosts measures.

        Claims and writes may take longer than planned; a stage that was tested on less than it was to hold would open
        the next on nothing.
        """
        if self._stage_ends_at is None or self._settled or self.state is not RunState.RUNNING:
            return []
        if any(self.roll.awaited[stage] for stage in range(self.stage + 1)):
            return []
        self._settled = True
        self._stage_ends_at = max(self._stage_ends_at, now + self._measured_seconds(self.stage))
        return [WakeAt(at=self._stage_ends_at)]

    def _measured_seconds(self, stage: int) -> float:
        """How long a stage is to be measured before the next opens: its hold without what comes before measuring."""
        unit = next((unit for unit in self.plan.units if unit.stage == stage), None)
        before = {} if unit is None else {period.kind: period.seconds for period in unit.periods}
        lead = before.get(PeriodKind.WASHOUT, 0.0) + (before.get(PeriodKind.BASELINE, 0.0) if stage == 0 else 0.0)
        return max(0.0, self.plan.stages[stage].hold_seconds - lead)

    def _close_stage(self, now: float) -> list[Instruction]:
        """The hold is over. Measurements that go on past the gate are as long as planned, without the wait at it."""
        self._stage_ends_at, self.gate = None, Gate.TESTING
        for unit in self.units.values():
            if unit.deadline is not None and self._suspends(unit):
                unit.remaining_seconds = max(0.0, unit.deadline - now)
                unit.deadline = math.inf
        return [TestGuardrails(stage=self.stage)]

    def _suspends(self, unit: Unit) -> bool:
        measures = unit.current is not None and unit.current.kind is PeriodKind.MEASURE
        return self.plan.design is Design.PARALLEL and measures and self.gate is not Gate.PASSED

    def _tested(self, stage: int, breaches: tuple[str, ...], now: float) -> list[Instruction]:
        if self.state is not RunState.RUNNING or (stage, self.gate) != (self.stage, Gate.TESTING):
            return []
        if breaches:
            self._look = stage
            out: list[Instruction] = [Record(kind="guardrail_breached", detail=breach) for breach in breaches]
            return out + self._halt(RunState.HALTED, f"guardrail {breaches[0]}")
        if self.plan.stages[stage].approve != "manual":
            return self._open_stage(stage + 1, now)
        self.gate = Gate.WAITING
        detail = f"stage {stage + 1} of {len(self.plan.stages)} has held"
        return [
            Record(kind=AWAITING_APPROVAL, detail=detail),
            EnterState(state=self.state, reason=f"{self.gate.value}: {detail}"),
        ]

    def _approved(self, who: str, now: float) -> list[Instruction]:
        if self.state is not RunState.RUNNING or self.gate is not Gate.WAITING:
            return []
        return [
            Record(kind="approved", detail=f"stage {self.stage + 2} by {who}"),
            EnterState(state=self.state),
            *self._open_stage(self.stage + 1, now),
        ]

    # ------------------------------------------------------------------ the end
    def _halt(self, target: RunState, reason: str) -> list[Instruction]:
        """Turn everything towards `target`; a stronger stop (halted) overrides a pause that is under way."""
        if self.goal is not None and (self.goal[0] is not RunState.PAUSED or target is RunState.PAUSED):
            return []
        self.goal = (target, reason)
        self.state = RunState.HALTING
        out: list[Instruction] = [
            EnterState(state=self.state, reason=reason),
            Record(kind=HALTING_TO, detail=f"{target.value}: {reason}"),  # what `resume` must not forget
        ]
        for unit in self.units.values():
            out += self._revert(unit)
            self.roll.count(unit)
        return out

    def _settle(self) -> list[Instruction]:
        """Go on to the analysis once no host is left that is, or may be, changed."""
        counts = self.roll.counts
        if self.state in {RunState.ANALYSING, RunState.PLANNED} or counts.open:
            return []
        if self.state is RunState.RUNNING and counts.to_measure:
            return []
        if self.goal is None:
            self.goal, self._look = (RunState.COMPLETED, ""), len(self.plan.stages) - 1
        out: list[Instruction] = []
        if counts.unrestored:
            left = {unit.host: unit.unrestored for unit in self.units.values() if unit.unrestored}
            said = names(f"{host} ({why})" for host, why in left.items())
            self.goal = (RunState.RESTORE_INCOMPLETE, f"not restored: {said}")
            out += [Record(kind=NOT_RESTORED, detail=why, host=host) for host, why in left.items()]
        if self.goal[0] in {RunState.FAILED, RunState.PAUSED}:
            return out + self._conclude()
        self.state = RunState.ANALYSING
        return [*out, EnterState(state=self.state), Analyse(stage=self._look)]

    def _conclude(self) -> list[Instruction]:
        assert self.goal is not None  # noqa: S101 - set by _settle, the only way here
        self.state = self.goal[0]
        return [EnterState(state=self.state, reason=self.goal[1])]
