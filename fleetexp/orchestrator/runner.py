"""Carry out the machine's instructions: talk to the fleet, write to the store, wait. All I/O of a run is here.

Writes that a busy or absent database refuses wait in a ledger, in order, while polls go on renewing the leases; a
database that stays away longer than `STORE_OUTAGE_SECONDS` stops the run, and the hosts are restored all the same.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import assert_never

from agents.errors import AgentError, LeaseExpired
from agents.messages import (
    Applied,
    Apply,
    Begin,
    Begun,
    Claim,
    Claimed,
    End,
    Ended,
    HostFacts,
    KnobChange,
    Poll,
    Polled,
    Preflight,
    PreflightReport,
    Release,
    Released,
    Request,
    Reverted,
    Survey,
    WorkloadSpec,
    WorkloadState,
)
from agents.messages import Revert as RevertRequest
from fleetexp.domain import PeriodKind, PeriodPlan, PeriodState, Plan, RunState
from fleetexp.orchestrator.fleet import Answer, Fleet
from fleetexp.orchestrator.guardrails import Tripwires
from fleetexp.orchestrator.ledger import PASSING, Ledger
from fleetexp.orchestrator.machine import Machine
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
from fleetexp.store.store import Store

log = logging.getLogger(__name__)

STORE_OUTAGE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 0.25  # how late a Ctrl-C, a pause or a deadline may be noticed
REQUESTS_EVERY_SECONDS = 1.0
SETTLING_SECONDS = 120.0  # a workload may take so long to get ready (JIT, first touch of its memory)

_ANSWER_WITHIN: dict[type, float] = {
    Survey: 45.0,
    Preflight: 45.0,
    Claim: 45.0,
    Apply: 300.0,
    Begin: 600.0,
    End: 90.0,
    RevertRequest: 120.0,
    Release: 30.0,
}


class Runner:
    """One run from start to its last state. Not thread-safe: everything happens in `run`."""

    def __init__(
        self,
        *,
        run_id: int,
        claim_name: str,
        plan: Plan,
        store: Store,
        fleet: Fleet,
        machine: Machine,
        owner: str,
        restart: dict[str, WorkloadSpec],
        tripwires: Tripwires,
        observe: Callable[[int], None],
        analyse: Callable[[], None],
        progress: Callable[[Runner], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.run_id = run_id
        self.plan = plan
        self.machine = machine
        self.started_at = clock()
        self.latest: dict[str, float] = {}
        self._store = store
        self._fleet = fleet
        self._owner = owner
        self._claim_name = claim_name
        self._restart = restart
        self._tripwires = tripwires
        self._observe = observe
        self._analyse = analyse
        self._progress = progress
        self._clock = clock
        self._events: deque[Event] = deque()
        self._ledger = Ledger(clock)
        self._wakes: list[float] = []
        self._polls_at: dict[str, float] = {}  # claimed hosts -> when to poll next
        self._acknowledged: dict[str, int] = {}
        self._collects: dict[str, Collect] = {}  # an End is under way
        self._closing: dict[str, tuple[Collect, Ended]] = {}  # ended on the host, the stream not yet stored
        self._polling: dict[str, Request] = {}  # the poll under way, one at a time
        # Reverted, the rest of the stream still to be stored; a poll that was under way then does not know it all.
        self._releasing: dict[str, Request | None] = {}
        self._gone: set[str] = set()  # lost in this turn: what else they said in it is void
        self._reconnecting: set[str] = set()
        self._drifting: set[str] = set()
        self._period_ids = {(p.host, p.plan.index, p.plan.attempt): p.period_id for p in store.periods(run_id)}
        self._stop: Event | None = None
        self._requests_at = 0.0
        self._poll_every = min(plan.safety.lease_seconds / 4, max(plan.sample_every_seconds / 2, 0.2), 2.0)

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self.started_at

    def ask(self, event: PauseRequested | StopRequested) -> None:
        """Ask for a pause or an abort; safe to call from a signal handler."""
        self._stop = event

    def run(self) -> RunState:
        """Drive the run to a state in which nothing more happens, every reachable host restored."""
        try:
            self._carry_out(self.machine.start(self._clock()))
            while not (self._over() or self._given_up()):
                self._turn()
        except BaseException:
            self._bail_out()
            raise
        self._ledger.flush(STORE_OUTAGE_SECONDS / 2)
        return self.machine.state

    def _bail_out(self) -> None:
        """A defect, or a second Ctrl-C: whatever else is lost, put the hosts back before leaving."""
        waiting = set(self._polls_at)
        for host in waiting:
            self._fleet.forget(host)
            self._fleet.send(host, RevertRequest(), _ANSWER_WITHIN[RevertRequest])
        deadline = self._clock() + _ANSWER_WITHIN[RevertRequest]
        while waiting and self._clock() < deadline:
            for answer in self._fleet.receive(LONGEST_WAIT_SECONDS):
                if isinstance(answer.request, RevertRequest):
                    self._fleet.send(answer.host, Release(), _ANSWER_WITHIN[Release])
                elif isinstance(answer.request, Release):
                    waiting.discard(answer.host)

    def _over(self) -> bool:
        state = self.machine.state
        return (state.is_terminal or state is RunState.PAUSED) and not self._events

    def _given_up(self) -> bool:
        """The store stays away and every host is safe: nothing is left to wait for."""
        return self._store_is_gone() and all(unit.done for unit in self.machine.units.values())

    def _store_is_gone(self) -> bool:
        return self._ledger.outage_seconds() > STORE_OUTAGE_SECONDS

    # ------------------------------------------------------------------ one turn of the loop
    def _turn(self) -> None:
        now = self._clock()
        self._listen(now)
        for host, due in list(self._polls_at.items()):
            if now >= due and host not in self._polling:
                self._poll(host)
        self._gone.clear()
        for answer in self._fleet.receive(self._patience(now)):
            if answer.host not in self._gone:
                self._answered(answer)
        now = self._clock()
        if self._wakes and now >= self._wakes[0]:
            while self._wakes and now >= self._wakes[0]:
                heapq.heappop(self._wakes)
            self._events.append(TimePassed())
        self._mind_the_store()
        while self._events:
            self._carry_out(self.machine.handle(self._events.popleft(), self._clock()))
        self._progress(self)

    def _patience(self, now: float) -> float:
        polls = [at for host, at in self._polls_at.items() if host not in self._polling]
        due = [*polls, *self._wakes[:1], now + LONGEST_WAIT_SECONDS]
        return max(0.0, min(due) - now)

    def _listen(self, now: float) -> None:
        """Take a pause or an abort from a signal, or from another process by way of the store."""
        if self._stop is None and now >= self._requests_at:
            self._requests_at = now + REQUESTS_EVERY_SECONDS
            try:
                request = self._store.requested(self.run_id)
            except PASSING:
                request = None
            if request is not None:
                how, who = request
                self._stop = PauseRequested(who=who) if how == "pause" else StopRequested(who=who)
        if self._stop is not None:
            self._events.append(self._stop)
            self._stop = None
            self._requests_at = now + 3600.0  # said once is enough

    def _poll(self, host: str) -> None:
        within = max(1.0, self.plan.safety.lease_seconds / 2)
        self._polling[host] = poll = Poll(acknowledged=self._acknowledged.get(host, 0))
        self._fleet.send(host, poll, within)

    def _mind_the_store(self) -> None:
        self._ledger.settle()
        if self._store_is_gone() and self.machine.goal is None:
            self._events.append(StopRequested(who=f"fleetexp: the store refuses writes: {self._ledger.last_error}"))

    # ------------------------------------------------------------------ instructions
    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            log.debug("%s", instruction)
            self._one(instruction)

    def _one(self, instruction: Instruction) -> None:
        match instruction:
            case CheckHost(host=host):
                self._send(host, Survey())
            case Snapshot(host=host):
                claim = Claim(
                    run=self._claim_name,
                    owner=self._owner,
                    knobs=self.plan.knobs,
                    lease_seconds=self.plan.safety.lease_seconds,
                )
                self._send(host, claim)
            case ApplyArm(host=host, arm=arm):
                self._send(host, Apply(arm=self.plan.arm(arm), restart=self._restart.get(arm)))
            case StartPeriod(host=host, period=period):
                # Behind a repeated block's rows: without them the period has no id, and no place for its samples.
                self._ledger.write(lambda: self._start_period(host, period))
            case Collect(host=host, period=period):
                self._collects[host] = instruction
                self._send(host, End(period_id=self._id(host, period)))
            case Abandon(host=host, period=period, reason=reason):
                self._end_period(host, period, PeriodState.INVALID, reason)
            case InvalidateBlock():
                self._ledger.write(lambda: self._invalidate_block(instruction))
            case AddPeriods(host=host, periods=periods):
                self._ledger.write(lambda: self._add_periods(host, periods))
            case Revert(host=host):
                self._closing.pop(host, None)
                self._collects.pop(host, None)
                self._send(host, RevertRequest())
            case Reconnect(host=host):
                self._reconnecting.add(host)
                self._fleet.reconnect(host, _ANSWER_WITHIN[Survey])
            case EnterState(state=state, reason=reason):
                self._ledger.write(lambda: self._store.set_run_state(self.run_id, state, reason))
            case Record(kind=kind, detail=detail, host=host):
                at = datetime.now(UTC)
                self._ledger.write(
                    lambda: self._store.record_event(self.run_id, kind, detail, host=host or None, at=at)
                )
            case Analyse():
                self._ledger.write(self._analyse)
                self._ledger.write(lambda: self._events.append(Analysed()))
            case WakeAt(at=at):
                heapq.heappush(self._wakes, at)
            case _:
                assert_never(instruction)

    def _send(self, host: str, request: Request) -> None:
        self._fleet.send(host, request, _ANSWER_WITHIN[type(request)])

    def _id(self, host: str, period: PeriodPlan) -> int:
        return self._period_ids[host, period.index, period.attempt]

    def _is_current(self, host: str, period_id: int) -> bool:
        """Whether this is still the period that the machine has the host in; an answer may come too late for it."""
        period = self.machine.units[host].current
        return period is not None and self._period_ids.get((host, period.index, period.attempt)) == period_id

    def _start_period(self, host: str, period: PeriodPlan) -> None:
        if not self._is_current(host, self._id(host, period)):
            return  # the host was lost or reverted while this waited for the store
        workload = self.plan.workloads.get(period.arm)
        if workload is not None and workload.kind != "service" and period.kind is not PeriodKind.MEASURE:
            workload = None  # a service runs through; a benchmark runs in the measured period only
        request = Begin(
            period_id=self._id(host, period),
            sample_every_seconds=self.plan.sample_every_seconds,
            workload=workload,
            time_limit_seconds=period.seconds + SETTLING_SECONDS,
        )
        self._send(host, request)

    def _end_period(self, host: str, period: PeriodPlan, state: PeriodState, reason: str) -> None:
        ended_at = datetime.now(UTC)
        self._ledger.write(lambda: self._store.end_period(self._id(host, period), ended_at, state, reason))

    def _invalidate_block(self, block: InvalidateBlock) -> None:
        now = datetime.now(UTC)
        for record in self._store.periods(self.run_id):
            plan = record.plan
            ours = (record.host, plan.block, plan.attempt) == (block.host, block.block, block.attempt)
            if ours and record.state is not PeriodState.INVALID:
                self._store.end_period(record.period_id, record.ended_at or now, PeriodState.INVALID, block.reason)

    def _add_periods(self, host: str, periods: tuple[PeriodPlan, ...]) -> None:
        ids = self._store.add_periods(self.run_id, host, periods)
        for period, period_id in zip(periods, ids, strict=True):
            self._period_ids[host, period.index, period.attempt] = period_id

    # ------------------------------------------------------------------ answers
    def _answered(self, answer: Answer) -> None:
        host, request = answer.host, answer.request
        if answer.lost or isinstance(answer.error, LeaseExpired):
            self._lost(host, str(answer.error))
        elif answer.error is not None:
            self._said_no(host, request, answer.error)
        else:
            self._said_yes(answer)

    def _lost(self, host: str, detail: str) -> None:
        self._fleet.forget(host)
        self._polls_at.pop(host, None)
        self._closing.pop(host, None)
        self._collects.pop(host, None)
        self._reconnecting.discard(host)
        self._releasing.pop(host, None)
        self._polling.pop(host, None)
        self._gone.add(host)
        self._drifting.discard(host)
        self._events.append(HostLost(host=host, detail=detail.splitlines()[0] if detail else "no answer"))

    def _said_no(self, host: str, request: Request, error: Exception) -> None:
        detail = str(error)
        if not isinstance(error, AgentError):
            log.error("%s: %s failed", host, type(request).__name__, exc_info=error)
        match request:
            case Poll():
                self._lost(host, detail)
            case Survey() if host in self._reconnecting:
                self._lost(host, detail)
            case Survey() | Preflight():
                self._events.append(PreflightDone(host=host, problems=(detail,)))
            case Begin(period_id=period_id) | End(period_id=period_id):
                if self._is_current(host, period_id):
                    now = datetime.now(UTC)
                    self._ledger.write(lambda: self._store.end_period(period_id, now, PeriodState.INVALID, detail))
                    self._events.append(PeriodClosed(host=host, invalid=detail))
            case RevertRequest() | Release():
                self._polls_at.pop(host, None)
                self._events.append(RevertFailed(host=host, detail=detail))
            case _:
                self._events.append(StepFailed(host=host, detail=detail))

    def _said_yes(self, answer: Answer) -> None:
        host = answer.host
        match answer.reply:
            case HostFacts() as facts:
                self._surveyed(host, facts)
            case PreflightReport(problems=problems) as report:
                for problem in problems:
                    text = f"{problem.what} [{problem.where}] — {problem.remedy}"
                    self._one(Record(kind=f"preflight_{problem.severity.value}", detail=text, host=host))
                errors = tuple(f"{p.what} [{p.where}] — {p.remedy}" for p in problems if p.severity.value == "error")
                assert report.ok == (not errors)  # noqa: S101
                self._events.append(PreflightDone(host=host, problems=errors))
            case Claimed(leftovers=leftovers):
                self._changed(host, leftovers)
                self._acknowledged[host] = 0
                self._polls_at[host] = self._clock()
                self._events.append(KnobsSnapshotted(host=host))
            case Applied(arm=arm, changes=changes):
                self._changed(host, changes)
                self._drifting.discard(host)
                self._events.append(KnobsVerified(host=host, arm=arm))
            case Begun(period_id=period_id, begun_at=begun_at, boot_id=boot_id):
                if not self._is_current(host, period_id):
                    return  # struck out meanwhile: it must not be noted as running
                self._ledger.write(lambda: self._store.start_period(period_id, begun_at, boot_id))
                self._events.append(PeriodBegun(host=host))
            case Polled() as polled:
                self._polling.pop(host, None)
                self._polled(host, answer.request, polled)
            case Ended() as ended:
                collect = self._collects.pop(host, None)
                if collect is not None:
                    self._closing[host] = (collect, ended)
                    self._polls_at[host] = self._clock()
            case Reverted(changes=changes) as reverted:
                self._changed(host, changes)
                if not reverted.ok:
                    self._polls_at.pop(host, None)  # the lease runs out, and the guardian tries as well
                    failed = "; ".join(f"{c.knob} reads {c.after!r}: {c.error}" for c in changes if c.error)
                    self._events.append(RevertFailed(host=host, detail=failed))
                elif host in self._polls_at:  # the rest of the stream first, then the claim may end
                    self._releasing[host] = self._polling.get(host)
                    self._polls_at[host] = self._clock()
                else:
                    self._send(host, Release())
            case Released():
                self._polls_at.pop(host, None)
                self._events.append(HostReverted(host=host))
            case None:
                raise AssertionError("an answer without reply or error")

    def _surveyed(self, host: str, facts: HostFacts) -> None:
        self._ledger.write(lambda: self._store.record_host_facts(self.run_id, facts))
        if host in self._reconnecting:
            self._reconnecting.discard(host)
            self._events.append(HostBack(host=host))
            return
        distinct = {repr(spec): spec for spec in self.plan.workloads.values()}
        self._send(host, Preflight(arms=self.plan.arms, workloads=tuple(distinct.values())))

    def _polled(self, host: str, poll: Request, polled: Polled) -> None:
        if host not in self._polls_at:
            return  # the claim is ending: its agent keeps what this was to acknowledge
        if polled.readings:
            try:
                self._store.append(host, polled.readings)
            except PASSING as error:
                self._ledger.refused(error)
                self._polls_at[host] = self._clock() + self._poll_every
                if host in self._releasing and self._store_is_gone():
                    self._release(host)  # what could not be stored stays in the host's spool
                return  # not acknowledged: the agent keeps it and sends it again
            self._ledger.taken()
            self._acknowledged[host] = polled.readings[-1].position
            if (breach := self._tripwires.watch(host, polled.readings)) is not None:
                self._events.append(breach)
            self._note_latest(polled)
        self._polls_at[host] = self._clock() + (0.0 if polled.more else self._poll_every)
        current = self._is_current(host, polled.period_id)
        if current and polled.drift and host not in self._drifting:
            self._drifting.add(host)
            self._events.append(DriftSeen(host=host, detail=", ".join(polled.drift)))
        if current and polled.workload in {WorkloadState.FINISHED, WorkloadState.FAILED}:
            self._events.append(WorkloadFinished(host=host))
        if not polled.more:
            self._finish_collect(host)
        if host in self._closing or host in self._releasing:
            self._polls_at[host] = self._clock()
            everything = not polled.readings and poll is not self._releasing.get(host)  # stored and acknowledged
            if host in self._releasing and everything:
                self._release(host)

    def _release(self, host: str) -> None:
        del self._releasing[host]
        self._polls_at.pop(host)
        self._send(host, Release())

    def _note_latest(self, polled: Polled) -> None:
        for reading in polled.readings:
            metric = getattr(reading, "metric", None)
            if metric is not None:
                self.latest[metric] = getattr(reading, "value", 0.0)

    def _finish_collect(self, host: str) -> None:
        """Close the period once everything that it read is stored."""
        if host not in self._closing:
            return
        collect, ended = self._closing[host]
        if self._acknowledged.get(host, 0) < ended.last_position:
            return
        del self._closing[host]
        invalid = collect.invalid or ended.invalid
        period_id = ended.period_id

        def close() -> None:
            if not self._is_current(host, period_id):
                return  # struck out while this waited for the store
            state = PeriodState.INVALID if invalid else PeriodState.COMPLETE
            self._observe(period_id)
            self._store.end_period(period_id, ended.ended_at, state, invalid)
            self._events.append(PeriodClosed(host=host, invalid=invalid))

        self._ledger.write(close)

    def _changed(self, host: str, changes: tuple[KnobChange, ...]) -> None:
        if changes:
            self._ledger.write(lambda: self._store.record_knob_changes(self.run_id, host, changes))
