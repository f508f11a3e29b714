"""The run as a pure state machine: `handle(event, now)` returns instructions, does no I/O and reads no clock.

What may come when, and where it leads, is the table in `transitions`; what one host goes through is in
`host_machine`, who they are and how many in `host_registry`. Rules that hold everywhere:
- whatever goes wrong, the way out leads through `Revert` for every host that may have been changed;
- a broken period takes its whole block with it, and the block is repeated, up to `Safety.max_attempts` times;
- an event is handled at a cost that does not grow with the fleet, but where a stage opens or the run halts.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from fleetexp.control.host_machine import TAKEN_OFF, Hosts
from fleetexp.control.host_registry import HostRegistry, HostState, names
from fleetexp.control.messages import (
    Analyse,
    Analysed,
    ApprovalGiven,
    CheckHost,
    DriftSeen,
    EnterState,
    Event,
    GuardrailBreached,
    GuardrailsTested,
    Instruction,
    PauseRequested,
    Reconnect,
    RecordFact,
    Snapshot,
    StopRequested,
    TestGuardrails,
    TimePassed,
    UnitEvent,
    WakeAt,
)
from fleetexp.control.resumption import Past, stage_reached, what_is_left
from fleetexp.control.transitions import RUN, UNDER_WAY, Ignored, unlisted
from fleetexp.domain import (
    Approval,
    BrokenBy,
    Design,
    DriftPolicy,
    EventKind,
    Goal,
    PeriodKind,
    PeriodRecord,
    Plan,
    RunCause,
    RunState,
    UnitState,
)


class Gate(StrEnum):
    """Between two stages: the data so far are tested, then somebody may have to approve."""

    PASSED = "passed"  # the stage is open
    TESTING = "testing the guardrails"
    WAITING = "awaiting approval"


@dataclass(slots=True)
class RunMachine:
    """A run in progress. Make one with `RunMachine(plan)` or, for one that was interrupted, `RunMachine.resumed`."""

    plan: Plan
    state: RunState = RunState.PLANNED
    gate: Gate = Gate.PASSED
    goal: Goal | None = None  # where the run is heading, once it takes up nothing new
    again: bool = False  # resumed: an earlier process may have changed hosts
    registry: HostRegistry = field(init=False)
    hosts: Hosts = field(init=False)
    _stage_ends_at: float | None = field(init=False, default=None)
    _settled: bool = field(init=False, default=False)  # every host of the open stage measures
    _look: int | None = field(init=False, default=None)  # the planned look that the analysis is; None: unplanned
    _prelude: list[Instruction] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.registry = HostRegistry.of(self.plan)
        halting = None if self.goal is None else self.goal.reason
        self.hosts = Hosts(plan=self.plan, registry=self.registry, halting=halting)

    @property
    def stage(self) -> int:
        """The stage that is open, from 0."""
        return self.hosts.stage

    @property
    def units(self) -> dict[str, HostState]:
        return self.registry.units

    @classmethod
    def resumed(cls, plan: Plan, records: Iterable[PeriodRecord], past: Past | None = None) -> RunMachine:
        """Rebuild the machine from the stored periods: finished blocks stay, broken ones are repeated.

        With the goal of a halt that was interrupted nothing more is measured: hosts are put back, and it ends there.
        A host that a tripwire took out stays out: it is put back once more, in case nobody lived to do that.
        """
        past = past or Past()
        by_host: dict[str, list[PeriodRecord]] = {unit.host: [] for unit in plan.units}
        for record in records:
            by_host[record.host].append(record)
        machine = cls(plan=plan, goal=past.goal, again=True)
        machine.hosts.stage = stage_reached(record for own in by_host.values() for record in own)
        for host, unit in machine.units.items():
            unit.queue, unit.troubled, unit.tripped = deque(), host in past.troubled, past.tripped.get(host, "")
            if past.goal is None and not unit.tripped:
                queue, told = what_is_left(host, by_host[host], max_attempts=plan.safety.max_attempts)
                unit.queue.extend(queue)
                machine._prelude += told
        machine.registry.count_all()
        return machine

    # ------------------------------------------------------------------ the outside
    def start(self, now: float) -> list[Instruction]:
        """Leave `planned`: check every host first, change nothing yet."""
        self.state = RunState.PREFLIGHT
        out: list[Instruction] = [EnterState(state=self.state), *self._prelude]
        if self.goal is not None:  # said again: this process may be interrupted as well
            out.append(_heading_to(self.goal))
        out += [CheckHost(host=host) for host in self.units]
        return out

    def handle(self, event: Event, now: float) -> list[Instruction]:
        """Take one event at machine time `now` (seconds, monotonic); return what must be done, in order."""
        cell = RUN[self.state].get(type(event))
        if cell is None:
            return [unlisted(event, self.state)]
        if isinstance(cell, Ignored):
            return []
        out: list[Instruction] = getattr(self, cell.handler)(event, now)
        return out + self._consider(now)

    def _consider(self, now: float) -> list[Instruction]:
        """What follows from the counts, whatever the event was."""
        out = self._cap()
        if self.state is RunState.PREFLIGHT and not self.registry.counts.unheard:
            out += self._claim_all(now)
        return out + self.hosts.let_change() + self._hold(now) + self._settle()

    # ------------------------------------------------------------------ the table's handlers; two more at the gates
    def host(self, event: UnitEvent, now: float) -> list[Instruction]:
        unit = self.units[event.host]
        out = self.hosts.handle(unit, event, now)
        self.registry.count(unit)
        if (
            isinstance(event, DriftSeen)
            and unit.state not in TAKEN_OFF
            and self.plan.safety.on_drift == DriftPolicy.HALT
        ):
            what = f"{unit.host}: a knob was changed from outside: {event.detail}"
            out += self._halt(RunState.HALTED, RunCause.DRIFT, what, unit.host)
        return out

    def pause(self, event: PauseRequested, now: float) -> list[Instruction]:
        return self._halt(RunState.PAUSED, RunCause.REQUEST, f"paused by {event.who}")

    def stop(self, event: StopRequested, now: float) -> list[Instruction]:
        return self._halt(RunState.HALTED, event.cause, f"aborted by {event.who}")

    def breach(self, event: GuardrailBreached, now: float) -> list[Instruction]:
        what = f"{event.metric}: {event.detail}"
        out: list[Instruction] = [RecordFact(kind=EventKind.GUARDRAIL_BREACHED, detail=what, host=event.host)]
        return out + self._halt(RunState.HALTED, RunCause.GUARDRAIL, f"guardrail {what}", event.host)

    def time(self, event: TimePassed, now: float) -> list[Instruction]:
        out: list[Instruction] = []
        for unit in self.registry.due(now):
            if unit.deadline is not None and now >= unit.deadline:
                out += self.hosts.collect(unit)
            if unit.reconnect_at is not None and now >= unit.reconnect_at:
                unit.reconnect_at = None
                out.append(Reconnect(host=unit.host))
            self.registry.count(unit)
        ends_at = self._stage_ends_at
        if self.state is RunState.RUNNING and ends_at is not None and now >= ends_at and self._settled:
            out += self._close_stage(now)
        return out

    def conclude(self, event: Analysed, now: float) -> list[Instruction]:
        return self._conclude()

    # ------------------------------------------------------------------ the caps
    def _cap(self) -> list[Instruction]:
        """Halt when more hosts than allowed have failed, or none is left; unreachable hosts count like any other."""
        counts, most = self.registry.counts, self.plan.safety.max_failed_hosts
        if self.goal is not None or (not counts.failed and counts.troubled <= most):
            return []
        if counts.failed == len(self.units):
            return self._nobody_left()
        if counts.troubled > most:
            said = f"{counts.troubled} hosts failed or were lost, {most} allowed"
            return self._halt(RunState.PAUSED, RunCause.HOSTS, said)
        return []

    def _nobody_left(self) -> list[Instruction]:
        count, last = len(self.units), self.hosts.fell_last
        if last is not None and last.tripped:
            where = f", on {last.host}, the last of {count} hosts" if count > 1 else ""
            return self._halt(RunState.HALTED, RunCause.GUARDRAIL, f"guardrail {last.tripped}{where}")
        first = next(unit.failed for unit in self.units.values())
        untouched = not self.again and not self.registry.counts.claimed
        reason = first if count == 1 else f"all {count} hosts failed: {first}"
        return self._halt(RunState.FAILED if untouched else RunState.PAUSED, RunCause.HOSTS, reason)

    # ------------------------------------------------------------------ the ramp
    def _claim_all(self, now: float) -> list[Instruction]:
        """Leave preflight: the last host has been heard of, whatever it was."""
        self.state = RunState.RUNNING
        out: list[Instruction] = [EnterState(state=self.state)]
        for unit in self.units.values():
            if not unit.failed:
                out += self.hosts.in_turn(unit, Snapshot(host=unit.host))
                self.registry.count(unit)
        return out + self._open_stage(self.stage, now)

    def _open_stage(self, stage: int, now: float) -> list[Instruction]:
        self.hosts.stage, self.hosts.at_gate = stage, False
        self.gate, self._settled = Gate.PASSED, self.plan.design is not Design.PARALLEL
        last = stage + 1 >= len(self.plan.stages)
        self._stage_ends_at = None if last else now + self.plan.stages[stage].hold_seconds
        out: list[Instruction] = [RecordFact(kind=EventKind.STAGE_OPENED, detail=str(stage), stage=stage)]
        if self._stage_ends_at is not None:
            out.append(WakeAt(at=self._stage_ends_at))
        for unit in self.units.values():
            if unit.deadline == math.inf:
                out += self.hosts.until(unit, now + unit.remaining_seconds)
            rests = unit.state in {UnitState.SNAPSHOTTED, UnitState.APPLIED} and unit.current is None
            if rests and unit.queue and unit.waiting is None:
                out += self.hosts.next(unit)
                self.registry.count(unit)
        return out

    def _hold(self, now: float) -> list[Instruction]:
        """Count the hold of a parallel stage from the moment at which the last of its hosts measures.

        Claims and writes may take longer than planned; a stage that was tested on less than it was to hold would open
        the next on nothing.
        """
        if self._stage_ends_at is None or self._settled or self.state is not RunState.RUNNING:
            return []
        if any(self.registry.awaited[stage] for stage in range(self.stage + 1)):
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
        self._stage_ends_at, self.gate, self.hosts.at_gate = None, Gate.TESTING, True
        for unit in self.units.values():
            if unit.deadline is not None and self.hosts.suspends(unit):
                unit.remaining_seconds = max(0.0, unit.deadline - now)
                unit.deadline = math.inf
        return [TestGuardrails(stage=self.stage)]

    def tested(self, event: GuardrailsTested, now: float) -> list[Instruction]:
        stage, breaches = event.stage, event.breaches
        if (stage, self.gate) != (self.stage, Gate.TESTING):
            return []
        if breaches:
            self._look = stage
            out: list[Instruction] = [
                RecordFact(kind=EventKind.GUARDRAIL_BREACHED, detail=breach) for breach in breaches
            ]
            return out + self._halt(RunState.HALTED, RunCause.GUARDRAIL, f"guardrail {breaches[0]}")
        unjudged = {
            "the metrics' server gave no answer": event.unread,
            "it was read on less than half of an arm's hosts": event.silent,
        }
        if self.plan.stages[stage].approve != Approval.MANUAL and not any(unjudged.values()):
            return self._open_stage(stage + 1, now)
        self.gate = Gate.WAITING
        detail = f"stage {stage + 1} of {len(self.plan.stages)} has held"
        for why, metrics in unjudged.items():
            detail += f", but its guardrail {names(metrics)} is not judged: {why}" if metrics else ""
        if any(unjudged.values()):
            detail += ". Once it is back, 'fleetexp resume' lets the next stage open; 'fleetexp abort' ends the run"
        return [
            *(
                RecordFact(kind=EventKind.GUARDRAIL_UNREAD, metric=one, stage=stage)
                for one in (*event.unread, *event.silent)
            ),
            RecordFact(kind=EventKind.AWAITING_APPROVAL, detail=detail),
            EnterState(state=self.state, cause=RunCause.APPROVAL, reason=f"{self.gate.value}: {detail}"),
        ]

    def approve(self, event: ApprovalGiven, now: float) -> list[Instruction]:
        if self.gate is not Gate.WAITING:
            return []
        return [
            RecordFact(kind=EventKind.APPROVED, detail=f"stage {self.stage + 2} by {event.who}"),
            EnterState(state=self.state),
            *self._open_stage(self.stage + 1, now),
        ]

    # ------------------------------------------------------------------ the end
    def _halt(self, target: RunState, cause: RunCause, reason: str, host: str = "") -> list[Instruction]:
        """Turn everything towards `target`; a stronger stop (halted) overrides a pause that is under way.

        `host`: what it is for happened there, under its arm; '' where that was no host's own.
        """
        if self.goal is not None and (self.goal.state is not RunState.PAUSED or target is RunState.PAUSED):
            return []
        self.goal, self.hosts.halting = Goal(state=target, cause=cause, reason=reason), reason
        self.state = RunState.HALTING
        out: list[Instruction] = [
            EnterState(state=self.state, cause=cause, reason=reason),
            _heading_to(self.goal),  # what `resume` must not forget
        ]
        for unit in self.units.values():
            out += self.hosts.revert(unit, BrokenBy.HOST if unit.host == host else BrokenBy.RUN)
            self.registry.count(unit)
        return out

    def _settle(self) -> list[Instruction]:
        """Go on to the analysis once no host is left that is, or may be, changed."""
        counts = self.registry.counts
        if self.state not in UNDER_WAY or counts.open:
            return []
        if self.state is RunState.RUNNING and counts.to_measure:
            return []
        if self.goal is None:
            self.goal, self._look = Goal(state=RunState.COMPLETED), len(self.plan.stages) - 1
        out: list[Instruction] = []
        if counts.unrestored:
            left = {unit.host: unit.unrestored for unit in self.units.values() if unit.unrestored}
            said = names(f"{host} ({why})" for host, why in left.items())
            self.goal = Goal(state=RunState.RESTORE_INCOMPLETE, cause=RunCause.RESTORE, reason=f"not restored: {said}")
            out += [RecordFact(kind=EventKind.NOT_RESTORED, detail=why, host=host) for host, why in left.items()]
        if self.goal.state in {RunState.FAILED, RunState.PAUSED}:
            return out + self._conclude()
        self.state = RunState.ANALYSING
        return [*out, EnterState(state=self.state), Analyse(stage=self._look)]

    def _conclude(self) -> list[Instruction]:
        assert self.goal is not None  # noqa: S101 - set by _settle, the only way here
        self.state = self.goal.state
        return [EnterState(state=self.state, cause=self.goal.cause, reason=self.goal.reason)]


def _heading_to(goal: Goal) -> RecordFact:
    return RecordFact(kind=EventKind.HALTING_TO, goal=goal.state, cause=goal.cause, detail=goal.reason)
