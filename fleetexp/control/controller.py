"""Drive a run: hear what hosts and people say, let the machine decide, see that it is done and written down.

All I/O of a run is here and in the parts that this puts together: `instruction_executor` (what the machine says),
`reply_handler` (what hosts say), `write_queue` (what must be stored). Writes that a busy or absent database refuses
wait in the queue, in order, while polls go on renewing the leases; a database that stays away longer than
`STORE_OUTAGE_SECONDS` stops the run, and the hosts are restored all the same.
Nothing here waits for one host while others could be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from agents.messages import Release, Revert
from fleetexp.control.central_readings import CentralReadings
from fleetexp.control.instruction_executor import InstructionExecutor
from fleetexp.control.messages import (
    ApprovalGiven,
    GuardrailsTested,
    PauseRequested,
    RecordFact,
    StopRequested,
    TimePassed,
)
from fleetexp.control.reply_handler import ReplyHandler
from fleetexp.control.run_context import ANSWER_WITHIN, Job, RunContext, Traffic
from fleetexp.control.write_queue import PASSING
from fleetexp.domain import EventKind, RunCause, RunRequest, RunState

STORE_OUTAGE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 0.25  # how late a Ctrl-C, a pause or a deadline may be noticed
LONGEST_VIRTUAL_WAIT_SECONDS = 60.0  # it takes no time
REQUESTS_EVERY_SECONDS = 1.0
REQUESTS_APART_SECONDS = 0.05  # in real time, where that of the run is virtual
WORK_SECONDS = 0.5  # of summing up and writing in a row, before hosts are heard again

GuardrailTest = Iterator[GuardrailsTested | None]  # None: there is more to do


class Analyst(Protocol):
    """Whoever makes something of the readings."""

    def observe(self, period_ids: Sequence[int]) -> None:
        """Sum up periods that have ended."""
        ...

    def analyse(self, stage: int | None) -> None:
        """Store what a planned look (the end of a stage) or an unplanned one (None) finds."""
        ...

    def test_guardrails(self, stage: int, unread: frozenset[str]) -> GuardrailTest:
        """Begin the test at the end of a stage; it is worked off in slices, so that leases are renewed."""
        ...


class Controller:
    """One run from start to its last state. Not thread-safe: everything happens in `run`."""

    def __init__(self, job: Job, *, analyst: Analyst, progress: Callable[[Controller], None]) -> None:
        self._context = RunContext(job, observe=analyst.observe)
        self.run_id, self.machine = job.run_id, job.machine
        self.planned_seconds = job.machine.plan.seconds
        self.started_at = self._context.clock()
        self._write_queue, self._clock = self._context.write_queue, self._context.clock
        self._store, self._fleet = job.store, job.fleet
        self._analyst, self._progress = analyst, progress
        self._events, self._polls = self._context.events, self._context.polls
        self._central = None if job.central is None else CentralReadings(self._context, job.central)
        self._context.elsewhere = self._central
        self._replies = ReplyHandler(self._context, store_is_gone=self._store_is_gone)
        self._executor = InstructionExecutor(self._context, analyse=analyst.analyse, test_guardrails=self._begin_test)
        self._test: tuple[int, frozenset[str], GuardrailTest] | None = None  # stage, unread, what is left of the test
        self._asked: PauseRequested | StopRequested | None = None
        self._requests_at = self._requests_at_real = 0.0
        self._longest_wait = LONGEST_VIRTUAL_WAIT_SECONDS if self._context.virtual else LONGEST_WAIT_SECONDS

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self.started_at

    @property
    def latest(self) -> dict[str, float]:
        """The newest value of each metric that workloads report."""
        return self._context.latest

    @property
    def traffic(self) -> Traffic:
        return self._context.traffic

    @property
    def newest_reading_age_seconds(self) -> float | None:
        newest = self._context.traffic.newest_reading_at
        return None if newest is None else max(0.0, (self._context.now() - newest).total_seconds())

    @property
    def oldest_poll_seconds(self) -> float:
        return self._polls.oldest_seconds(self._clock())

    @property
    def store_outage_seconds(self) -> float:
        return self._write_queue.outage_seconds()

    @property
    def writes_waiting(self) -> int:
        return len(self._write_queue)

    def ask(self, event: PauseRequested | StopRequested) -> None:
        """Ask for a pause or an abort; safe to call from a signal handler."""
        self._asked = event

    def run(self) -> RunState:
        """Drive the run to a state in which nothing more happens, every reachable host restored."""
        try:
            self._executor.carry_out(self.machine.start(self._clock()))
            while not (self._over() or self._given_up()):
                self._turn()
        except BaseException:
            self._bail_out()
            raise
        finally:
            if self._central is not None:
                self._central.close()
        self._write_queue.flush(STORE_OUTAGE_SECONDS / 2, self._fleet.receive)
        return self.machine.state

    def _bail_out(self) -> None:
        """A defect, or a second Ctrl-C: whatever else is lost, put the hosts back before leaving."""
        waiting = set(self._polls)
        for host in waiting:
            self._fleet.forget(host)
            self._fleet.send(host, Revert(), ANSWER_WITHIN[Revert])
        deadline = self._clock() + ANSWER_WITHIN[Revert]
        while waiting and self._clock() < deadline:
            for answer in self._fleet.receive(LONGEST_WAIT_SECONDS):
                if isinstance(answer.request, Revert):
                    self._fleet.send(answer.host, Release(), ANSWER_WITHIN[Release])
                elif isinstance(answer.request, Release):
                    waiting.discard(answer.host)

    def _over(self) -> bool:
        state = self.machine.state
        return (state.is_terminal or state is RunState.PAUSED) and not self._events

    def _given_up(self) -> bool:
        """The store stays away and every host is safe: nothing is left to wait for."""
        return self._store_is_gone() and not self.machine.registry.counts.open

    def _store_is_gone(self) -> bool:
        return self._write_queue.outage_seconds() > STORE_OUTAGE_SECONDS

    # ------------------------------------------------------------------ one turn of the loop
    def _turn(self) -> None:
        now = self._clock()
        self._listen(now)
        for host in self._polls.due(now):
            self._context.poll(host)
        self._replies.take(self._fleet.receive(self._wait_seconds(now)))
        now = self._clock()
        if self._executor.woken(now):
            self._events.append(TimePassed())
        if self._store_is_gone() and self.machine.goal is None:
            who = f"fleetexp: the store refuses writes: {self._write_queue.last_error}"
            self._events.append(StopRequested(who=who, cause=RunCause.STORE))
        if self._central is not None:
            self._central.turn()
        self._work(now + WORK_SECONDS)
        self._progress(self)

    def _wait_seconds(self, now: float) -> float:
        """How long to wait for an answer: not at all where there is something to do."""
        if self._events or (self._write_queue.may_try() and (len(self._write_queue) or self._test)):
            return 0.0
        due = [self._polls.next_at(), *self._executor.wakes[:1], now + self._longest_wait]
        return max(0.0, min(due) - now)

    def _work(self, until: float) -> None:
        """Let the machine decide on all that has happened, and write down what it decided; then what follows."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._executor.carry_out(self.machine.handle(event, self._clock()))
            settled = self._write_queue.settle(until)
            if not self._events:
                break
        if settled:
            self._go_on_testing(until)

    def _listen(self, now: float) -> None:
        """Take a pause or an abort from a signal, or whatever another process asks for by way of the store."""
        if self._asked is not None:
            asked, self._asked = self._asked, None
            pausing = isinstance(asked, PauseRequested)
            kind = EventKind.PAUSE_REQUESTED if pausing else EventKind.ABORT_REQUESTED
            self._context.note(RecordFact(kind=kind, detail=f"by {asked.who}"))
            self._events.append(asked)
        real = time.monotonic()
        if now < self._requests_at or real < self._requests_at_real or not self._write_queue.may_try():
            return
        self._requests_at, self._requests_at_real = now + REQUESTS_EVERY_SECONDS, real + REQUESTS_APART_SECONDS
        try:
            request = self._store.requested(self.run_id)
        except PASSING:  # the next write says so, and how long it lasts
            return
        match request:
            case (RunRequest.PAUSE, who):
                self._events.append(PauseRequested(who=who))
            case (RunRequest.ABORT, who):
                self._events.append(StopRequested(who=who))
            case (RunRequest.APPROVE, who):
                self._events.append(ApprovalGiven(who=who))

    # ------------------------------------------------------------------ guardrails between stages
    def _begin_test(self, stage: int, unread: frozenset[str]) -> None:
        self._test = stage, unread, self._analyst.test_guardrails(stage, unread)

    def _go_on_testing(self, until: float) -> None:
        """Work on the test for a while; where the store goes away, it begins anew once that is back."""
        if self._test is None or not self._write_queue.may_try():
            return
        stage, unread, test = self._test
        try:
            for tested in test:
                if tested is not None:
                    self._test = None
                    self._events.append(tested)
                    return
                self._write_queue.taken()
                if self._clock() > until:
                    return
        except PASSING as error:
            self._write_queue.refused(error)
            self._begin_test(stage, unread)
