"""The run as a pure state machine: `handle(event, now)` returns instructions, does no I/O and reads no clock.

The states are drawn in `fleetexp.domain`. Two rules hold everywhere:
- whatever goes wrong, the way out leads through `Revert` for every host that may have been changed;
- a broken period takes its whole block with it, and the block is repeated, up to `Safety.max_attempts` times.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from fleetexp.domain import PeriodKind, PeriodPlan, PeriodRecord, PeriodState, Plan, RunState, UnitPlan, UnitState
from fleetexp.orchestrator.messages import (
    Abandon,
    AddPeriods,
    Analyse,
    Analysed,
    ApplyArm,
    CheckHost,
    Collect,
    DriftSeen,
    EnterState,
    Event,
    GuardrailBreached,
    HostBack,
    HostLost,
    HostReverted,
    Instruction,
    InvalidateBlock,
    KnobsSnapshotted,
    KnobsVerified,
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
    TimePassed,
    WakeAt,
    WorkloadFinished,
)

RECONNECT_EVERY_SECONDS = 2.0
RECONNECT_AT_MOST = 5
HALTING_TO = "halting_to"  # kind of the event that says where a halt is heading: 'halted: aborted by ann'
_TAKEN_OFF = frozenset({UnitState.REVERTING, UnitState.REVERTED})


@dataclass(slots=True)
class Unit:
    """One host as the machine sees it."""

    plan: UnitPlan
    queue: deque[PeriodPlan]
    state: UnitState = UnitState.IDLE
    current: PeriodPlan | None = None
    holds: tuple[str, int, int] | None = None  # (arm, block, attempt) that was applied last
    deadline: float | None = None  # when the current period ends
    checked: bool = False
    claimed: bool = False  # a Snapshot was sent: from here on only a Revert is the way out
    failed: str = ""  # why this host takes no further part
    unrestored: str = ""  # why its knobs can't be said to read as found
    reconnects: int = 0
    reconnect_at: float | None = None

    @property
    def host(self) -> str:
        return self.plan.host

    @property
    def done(self) -> bool:
        """Nothing more can or need be done with this host."""
        return self.state is UnitState.REVERTED or bool(self.unrestored)


@dataclass(slots=True)
class Machine:
    """A run in progress. Make one with `Machine(plan)` or, for a run that was interrupted, `Machine.resumed`."""

    plan: Plan
    state: RunState = RunState.PLANNED
    units: dict[str, Unit] = field(default_factory=dict)
    stage: int = 0
    goal: tuple[RunState, str] | None = None  # where a halt is heading, and why
    lost_or_failed: set[str] = field(default_factory=set)
    again: bool = False  # resumed: an earlier process may have changed hosts
    _stage_ends_at: float | None = None
    _prelude: list[Instruction] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.units:
            self.units = {u.host: Unit(plan=u, queue=deque(u.periods)) for u in self.plan.units}

    @classmethod
    def resumed(cls, plan: Plan, records: Iterable[PeriodRecord], goal: tuple[RunState, str] | None = None) -> Machine:
        """Rebuild the machine from the stored periods: finished blocks stay, broken ones are repeated.

        With the `goal` of a halt that was interrupted nothing more is measured: hosts are put back, and it ends there.
        """
        by_host: dict[str, list[PeriodRecord]] = {unit.host: [] for unit in plan.units}
        for record in records:
            by_host[record.host].append(record)
        units = {u.host: Unit(plan=u, queue=deque()) for u in plan.units}
        machine = cls(plan=plan, units=units, goal=goal, again=True)
        for host, unit in machine.units.items():
            if goal is None:
                machine._requeue(unit, by_host[host])
        return machine

    def _requeue(self, unit: Unit, records: list[PeriodRecord]) -> None:
        attempts: dict[tuple[int, int], list[PeriodRecord]] = {}
        for record in records:
            # Outside a block every period stands alone, keyed by its own place in the schedule.
            key = record.plan.block if record.plan.block >= 0 else -1 - record.plan.index
            attempts.setdefault((key, record.plan.attempt), []).append(record)
        last = {key: max(attempt for k, attempt in attempts if k == key) for key, _ in attempts}
        for key in sorted(last, key=lambda key: min(r.plan.index for r in attempts[key, last[key]])):
            block = sorted(attempts[key, last[key]], key=lambda record: record.plan.index)
            states = {record.state for record in block}
            periods = tuple(record.plan for record in block)
            if states == {PeriodState.COMPLETE}:
                continue
            if states == {PeriodState.PLANNED}:
                unit.queue.extend(periods)
                continue
            reason = "the run was interrupted in this block"
            if states != {PeriodState.INVALID}:
                self._prelude += self._void(unit, periods[0], periods, reason)
            if periods[0].attempt + 1 < self.plan.safety.max_attempts:
                again = tuple(replace(period, attempt=period.attempt + 1) for period in periods)
                self._prelude.append(AddPeriods(host=unit.host, periods=again))
                unit.queue.extend(again)

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
                return [
                    Record(kind="pause_requested", detail=who),
                    *self._halt(RunState.PAUSED, f"paused by {who}", now),
                ]
            case StopRequested(who=who):
                return [
                    Record(kind="abort_requested", detail=who),
                    *self._halt(RunState.HALTED, f"aborted by {who}", now),
                ]
            case GuardrailBreached(metric=metric, detail=detail, host=host):
                out: list[Instruction] = [Record(kind="guardrail_breached", detail=f"{metric}: {detail}", host=host)]
                return out + self._halt(RunState.HALTED, f"guardrail {metric}: {detail}", now)
            case TimePassed():
                return self._time(now)
            case Analysed():
                return self._conclude()
            case _:
                return self._host_event(self.units[event.host], event, now)

    # ------------------------------------------------------------------ one host
    def _host_event(self, unit: Unit, event: Event, now: float) -> list[Instruction]:
        match event:
            case PreflightDone(problems=problems):
                return self._checked(unit, "; ".join(problems), now)
            case KnobsSnapshotted():
                if unit.state in _TAKEN_OFF:
                    return []
                unit.state = UnitState.SNAPSHOTTED
                return self._next(unit, now)
            case KnobsVerified(arm=arm):
                waits = unit.state in {UnitState.SNAPSHOTTED, UnitState.APPLIED}  # not so where an arm was reapplied
                return self._begin(unit) if waits and unit.current and unit.current.arm == arm else []
            case PeriodBegun():
                if unit.state in _TAKEN_OFF or unit.current is None:
                    return []
                unit.deadline = now + unit.current.seconds
                return [WakeAt(at=unit.deadline)]
            case WorkloadFinished():
                return self._collect(unit)
            case PeriodClosed(invalid=invalid):
                return self._closed(unit, invalid, now)
            case DriftSeen(detail=detail):
                return self._drift(unit, detail, now)
            case StepFailed(detail=detail):
                return self._fail(unit, detail, now)
            case HostLost(detail=detail):
                return self._lost(unit, detail, now)
            case HostBack():
                return self._back(unit)
            case HostReverted():
                unit.state, unit.unrestored = UnitState.REVERTED, ""
                return self._reverted(unit, now)
            case RevertFailed(detail=detail):
                unit.unrestored, unit.failed = detail, unit.failed or detail
                self.lost_or_failed.add(unit.host)
                out: list[Instruction] = [Record(kind="restore_failed", detail=detail, host=unit.host)]
                return out + self._cap(now)
        raise AssertionError(f"no such event: {event!r}")

    def _checked(self, unit: Unit, problems: str, now: float) -> list[Instruction]:
        unit.checked = True
        out: list[Instruction] = []
        if problems:
            out += self._fail(unit, problems, now)
        return out + self._claim_all(now)

    def _claim_all(self, now: float) -> list[Instruction]:
        """Leave preflight once the last host has been heard of, whatever it was."""
        out: list[Instruction] = []
        if self.state is not RunState.PREFLIGHT or not all(u.checked or u.failed for u in self.units.values()):
            return out
        live = [u for u in self.units.values() if not u.failed]
        if not live:
            return out
        self.state = RunState.RUNNING
        out.append(EnterState(state=self.state))
        for u in live:
            u.claimed = True
            out.append(Snapshot(host=u.host))
        return out + self._open_stage(0, now)

    def _next(self, unit: Unit, now: float) -> list[Instruction]:
        """Start the unit's next period, or take the host back when there is none."""
        if not unit.queue:
            return self._revert(unit)
        period = unit.queue[0]
        if period.stage > self.stage:
            return []
        unit.current = unit.queue.popleft()
        if unit.holds != (period.arm, period.block, period.attempt):
            unit.holds = (period.arm, period.block, period.attempt)
            return [ApplyArm(host=unit.host, arm=period.arm)]
        return self._begin(unit)

    def _begin(self, unit: Unit) -> list[Instruction]:
        if unit.current is None:
            return []
        washout = unit.current.kind is PeriodKind.WASHOUT
        unit.state = UnitState.WASHING_OUT if washout else UnitState.MEASURING
        return [StartPeriod(host=unit.host, period=unit.current)]

    def _collect(self, unit: Unit, invalid: str = "") -> list[Instruction]:
        if unit.current is None or unit.deadline is None:
            return []
        unit.deadline = None
        return [Collect(host=unit.host, period=unit.current, invalid=invalid)]

    def _closed(self, unit: Unit, invalid: str, now: float) -> list[Instruction]:
        if unit.state in _TAKEN_OFF or unit.current is None:
            return []
        period, unit.current, unit.deadline = unit.current, None, None
        unit.state = UnitState.APPLIED
        if not invalid:
            unit.reconnects = 0
            return self._next(unit, now)
        out = self._repeat(unit, period, invalid)
        if unit.failed:
            return out + self._fail(unit, unit.failed, now)
        return out + self._next(unit, now)

    def _void(self, unit: Unit, period: PeriodPlan, periods: Iterable[PeriodPlan], reason: str) -> list[Instruction]:
        """Strike out an attempt at a block, or the lone period where there is no block."""
        if period.block >= 0:
            return [InvalidateBlock(host=unit.host, block=period.block, attempt=period.attempt, reason=reason)]
        return [Abandon(host=unit.host, period=p, reason=reason) for p in periods]

    def _repeat(self, unit: Unit, broken: PeriodPlan, reason: str) -> list[Instruction]:
        """Strike out the broken period's block and put a repeat of the whole block in front of the queue."""
        if broken.block >= 0:
            block = tuple(p for p in unit.plan.periods if p.block == broken.block)
            while unit.queue and (unit.queue[0].block, unit.queue[0].attempt) == (broken.block, broken.attempt):
                unit.queue.popleft()
        else:
            block = (broken,)
        out = self._void(unit, broken, block, reason)
        unit.holds = None
        if broken.attempt + 1 >= self.plan.safety.max_attempts:
            unit.failed = f"block {broken.block} was broken {broken.attempt + 1} times, last: {reason}"
            return out
        again = tuple(replace(p, attempt=broken.attempt + 1) for p in block)
        unit.queue.extendleft(reversed(again))
        return [*out, AddPeriods(host=unit.host, periods=again)]

    def _drift(self, unit: Unit, detail: str, now: float) -> list[Instruction]:
        out: list[Instruction] = [Record(kind="drift", detail=detail, host=unit.host)]
        if unit.state in _TAKEN_OFF:
            return out
        if self.plan.safety.on_drift == "halt":
            return out + self._halt(RunState.HALTED, f"{unit.host}: a knob was changed from outside: {detail}", now)
        if self.plan.safety.on_drift == "reapply" and unit.current is not None and unit.deadline is not None:
            # Written again at once; the period has been disturbed all the same and is repeated with its block.
            out.append(ApplyArm(host=unit.host, arm=unit.current.arm))
        return out + self._collect(unit, f"drift: {detail}")

    # ------------------------------------------------------------------ failures
    def _fail(self, unit: Unit, detail: str, now: float) -> list[Instruction]:
        """Take a host out of the run for good: it answered, and said no."""
        unit.failed = unit.failed or detail
        self.lost_or_failed.add(unit.host)
        out: list[Instruction] = [Record(kind="host_failed", detail=detail, host=unit.host)]
        out += self._revert(unit)
        return out + self._cap(now)

    def _lost(self, unit: Unit, detail: str, now: float) -> list[Instruction]:
        known = unit.state is UnitState.LOST and unit.reconnect_at is not None
        if known or unit.state is UnitState.REVERTED or unit.unrestored:
            return []
        out: list[Instruction] = [Record(kind="host_lost", detail=detail, host=unit.host)]
        self.lost_or_failed.add(unit.host)
        period, unit.current, unit.deadline, unit.holds = unit.current, None, None, None
        if period is not None:
            reason = f"host lost: {detail}"
            out.append(Abandon(host=unit.host, period=period, reason=reason))
            out += self._repeat(unit, period, reason)
        if not unit.claimed:  # never changed: nothing to bring back
            unit.state, unit.failed, unit.checked = UnitState.REVERTED, detail, True
            return [*out, *self._cap(now), *self._claim_all(now)]
        unit.state = UnitState.LOST
        unit.reconnects += 1
        if unit.reconnects > RECONNECT_AT_MOST:
            unit.failed = unit.failed or detail
            unit.unrestored = f"unreachable: {detail}"
            return out + self._cap(now)
        unit.reconnect_at = now + RECONNECT_EVERY_SECONDS * (unit.reconnects - 1)
        return [*out, WakeAt(at=unit.reconnect_at), *self._cap(now)]

    def _back(self, unit: Unit) -> list[Instruction]:
        """A host that was lost is first put back as it was found, whatever comes after."""
        unit.state = UnitState.REVERTING
        return [Record(kind="host_back", detail="", host=unit.host), Revert(host=unit.host)]

    def _reverted(self, unit: Unit, now: float) -> list[Instruction]:
        if self.goal is None and not unit.failed and unit.queue:
            # It was lost, is back and clean: take it up again, its broken block first.
            unit.state, unit.holds = UnitState.IDLE, None
            return [Snapshot(host=unit.host)]
        return self._settle(now)

    def _cap(self, now: float) -> list[Instruction]:
        """Halt when more hosts than allowed have failed, or none is left; unreachable hosts count like any other."""
        if self.goal is not None:
            return self._settle(now)
        failed = [u for u in self.units.values() if u.failed]
        if len(failed) == len(self.units):
            reason = failed[0].failed if len(failed) == 1 else f"all {len(failed)} hosts failed: {failed[0].failed}"
            untouched = not self.again and not any(u.claimed for u in self.units.values())
            return self._halt(RunState.FAILED if untouched else RunState.PAUSED, reason, now)
        if len(self.lost_or_failed) > self.plan.safety.max_failed_hosts:
            detail = (
                f"{len(self.lost_or_failed)} hosts failed or were lost, {self.plan.safety.max_failed_hosts} allowed"
            )
            return self._halt(RunState.PAUSED, detail, now)
        return self._settle(now)

    def _revert(self, unit: Unit) -> list[Instruction]:
        if unit.state in _TAKEN_OFF or unit.unrestored:
            return []
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
        unit.state = UnitState.REVERTING
        return [*out, Revert(host=unit.host)]

    # ------------------------------------------------------------------ the whole run
    def _halt(self, target: RunState, reason: str, now: float) -> list[Instruction]:
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
        return out + self._settle(now)

    def _settle(self, now: float) -> list[Instruction]:
        """Go on to the analysis once no host is left that is, or may be, changed."""
        if self.state in {RunState.ANALYSING, RunState.PLANNED} or not all(u.done for u in self.units.values()):
            return []
        if self.state is RunState.RUNNING and any(u.queue and not u.failed for u in self.units.values()):
            return []
        self.goal = self.goal or (RunState.COMPLETED, "")
        if any(u.unrestored for u in self.units.values()):
            hosts = ", ".join(f"{u.host} ({u.unrestored})" for u in self.units.values() if u.unrestored)
            self.goal = (RunState.RESTORE_INCOMPLETE, f"not restored: {hosts}")
        if self.goal[0] in {RunState.FAILED, RunState.PAUSED}:
            return self._conclude()
        self.state = RunState.ANALYSING
        return [EnterState(state=self.state), Analyse()]

    def _conclude(self) -> list[Instruction]:
        assert self.goal is not None  # noqa: S101 - set by _settle, the only way here
        self.state = self.goal[0]
        return [EnterState(state=self.state, reason=self.goal[1])]

    def _open_stage(self, stage: int, now: float) -> list[Instruction]:
        self.stage = stage
        last = stage + 1 >= len(self.plan.stages)
        self._stage_ends_at = None if last else now + self.plan.stages[stage].hold_seconds
        out: list[Instruction] = [Record(kind="stage_opened", detail=str(stage))]
        if self._stage_ends_at is not None:
            out.append(WakeAt(at=self._stage_ends_at))
        for unit in self.units.values():
            if unit.state in {UnitState.SNAPSHOTTED, UnitState.APPLIED} and unit.current is None and unit.queue:
                out += self._next(unit, now)
        return out

    def _time(self, now: float) -> list[Instruction]:
        out: list[Instruction] = []
        for unit in self.units.values():
            if unit.deadline is not None and now >= unit.deadline:
                out += self._collect(unit)
            if unit.reconnect_at is not None and now >= unit.reconnect_at:
                unit.reconnect_at = None
                out.append(Reconnect(host=unit.host))
        if self.state is RunState.RUNNING and self._stage_ends_at is not None and now >= self._stage_ends_at:
            out += self._open_stage(self.stage + 1, now)
        return out
