"""Drive a run: hear what hosts and people say, let the machine decide, see that it is done and written down.

All I/O of a run is here and in the parts that this puts together: `errands` (what the machine says), `answers` (what
hosts say), `ledger` (what must be stored). Writes that a busy or absent database refuses wait in the ledger, in order,
while polls go on renewing the leases; a database that stays away longer than `STORE_OUTAGE_SECONDS` stops the run,
and the hosts are restored all the same. Nothing here waits for one host while others could be served.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

from agents.messages import Release, Revert, WorkloadSpec
from fleetexp.domain import EventKind, Plan, RunCause, RunState
from fleetexp.orchestrator.answers import Answers
from fleetexp.orchestrator.desk import ANSWER_WITHIN, Desk, Traffic
from fleetexp.orchestrator.entries import Entries
from fleetexp.orchestrator.errands import Errands
from fleetexp.orchestrator.fleet import Fleet
from fleetexp.orchestrator.guardrails import Tripwires
from fleetexp.orchestrator.ledger import PASSING, Ledger
from fleetexp.orchestrator.machine import Machine
from fleetexp.orchestrator.messages import (
    ApprovalGiven,
    GuardrailsTested,
    PauseRequested,
    Record,
    StopRequested,
    TimePassed,
)
from fleetexp.orchestrator.polls import LONGEST_SECONDS, LONGEST_VIRTUAL_SECONDS, Polls, poll_every_seconds
from fleetexp.store.store import Store

STORE_OUTAGE_SECONDS = 60.0
LONGEST_WAIT_SECONDS = 0.25  # how late a Ctrl-C, a pause or a deadline may be noticed
LONGEST_VIRTUAL_WAIT_SECONDS = 60.0  # it takes no time
REQUESTS_EVERY_SECONDS = 1.0
REQUESTS_APART_SECONDS = 0.05  # in real time, where that of the run is virtual
WORK_SECONDS = 0.5  # of summing up and writing in a row, before hosts are heard again

GuardrailTest = Iterator[tuple[str, ...] | None]  # None: there is more to do; a tuple: these guardrails are breached


def utc_now() -> datetime:
    return datetime.now(UTC)


class Runner:
    """One run from start to its last state. Not thread-safe: everything happens in `run`.

    `clock` counts seconds and never goes back, `now` tells the date: a simulation brings its own, and its time is
    `virtual`: a wait takes none, so that nothing need happen between two events.
    `test_guardrails` begins the test at the end of a stage; it is worked off in slices, so that leases are renewed.
    """

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
        observe: Callable[[Sequence[int]], None],
        analyse: Callable[[int | None], None],
        test_guardrails: Callable[[int], GuardrailTest],
        progress: Callable[[Runner], None],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        virtual: bool = False,
    ) -> None:
        self.run_id = run_id
        self.plan = plan
        self.planned_seconds = plan.seconds
        self.machine = machine
        self.started_at = clock()
        self._ledger = Ledger(clock, store.together)
        safety = plan.safety
        self._desk = Desk(
            run_id=run_id,
            claim_name=claim_name,
            owner=owner,
            plan=plan,
            store=store,
            fleet=fleet,
            machine=machine,
            ledger=self._ledger,
            tripwires=tripwires,
            restart=restart,
            clock=clock,
            now=now,
            poll_every=poll_every_seconds(
                lease_seconds=safety.lease_seconds,
                sample_every_seconds=plan.sample_every_seconds,
                hosts=len(plan.units),
                longest=LONGEST_VIRTUAL_SECONDS if virtual else LONGEST_SECONDS,
            ),
            period_ids={(p.host, p.plan.index, p.plan.attempt): p.period_id for p in store.periods(run_id)},
        )
        self._desk.entries = Entries.of(store, run_id, plan, observe=observe, is_current=self._desk.is_current)
        self._store = store
        self._fleet = fleet
        self._clock = clock
        self._test_guardrails = test_guardrails
        self._progress = progress
        self._events = self._desk.events
        self._polls: Polls = self._desk.polls
        self._answers = Answers(self._desk, store_is_gone=self._store_is_gone)
        self._errands = Errands(self._desk, analyse=analyse, test_guardrails=self._begin_test)
        self._test: tuple[int, GuardrailTest] | None = None  # (stage, what is left of the test at its end)
        self._asked: PauseRequested | StopRequested | None = None
        self._requests_at = self._requests_at_real = 0.0
        self._longest_wait = LONGEST_VIRTUAL_WAIT_SECONDS if virtual else LONGEST_WAIT_SECONDS

    @property
    def elapsed_seconds(self) -> float:
        return self._clock() - self.started_at

    @property
    def latest(self) -> dict[str, float]:
        """The newest value of each metric that workloads report."""
        return self._desk.latest

    @property
    def traffic(self) -> Traffic:
        return self._desk.traffic

    @property
    def newest_reading_age_seconds(self) -> float | None:
        newest = self._desk.traffic.newest_reading_at
        return None if newest is None else max(0.0, (self._desk.now() - newest).total_seconds())

    @property
    def oldest_poll_seconds(self) -> float:
        return self._polls.oldest_seconds(self._clock())

    @property
    def store_outage_seconds(self) -> float:
        return self._ledger.outage_seconds()

    @property
    def writes_waiting(self) -> int:
        return len(self._ledger)

    def ask(self, event: PauseRequested | StopRequested) -> None:
        """Ask for a pause or an abort; safe to call from a signal handler."""
        self._asked = event

    def run(self) -> RunState:
        """Drive the run to a state in which nothing more happens, every reachable host restored."""
        try:
            self._errands.carry_out(self.machine.start(self._clock()))
            while not (self._over() or self._given_up()):
                self._turn()
        except BaseException:
            self._bail_out()
            raise
        self._ledger.flush(STORE_OUTAGE_SECONDS / 2, self._fleet.receive)
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
        return self._store_is_gone() and not self.machine.roll.counts.open

    def _store_is_gone(self) -> bool:
        return self._ledger.outage_seconds() > STORE_OUTAGE_SECONDS

    # ------------------------------------------------------------------ one turn of the loop
    def _turn(self) -> None:
        now = self._clock()
        self._listen(now)
        for host in self._polls.due(now):
            self._desk.poll(host)
        self._answers.take(self._fleet.receive(self._patience(now)))
        now = self._clock()
        if self._errands.woken(now):
            self._events.append(TimePassed())
        if self._store_is_gone() and self.machine.goal is None:
            who = f"fleetexp: the store refuses writes: {self._ledger.last_error}"
            self._events.append(StopRequested(who=who, cause=RunCause.STORE))
        self._work(now + WORK_SECONDS)
        self._progress(self)

    def _patience(self, now: float) -> float:
        """How long to wait for an answer: not at all where there is something to do."""
        if self._events or (self._ledger.may_try() and (len(self._ledger) or self._test)):
            return 0.0
        due = [self._polls.next_at(), *self._errands.wakes[:1], now + self._longest_wait]
        return max(0.0, min(due) - now)

    def _work(self, until: float) -> None:
        """Let the machine decide on all that has happened, and write down what it decided; then what follows."""
        while True:
            while self._events:
                event = self._events.popleft()
                self._errands.carry_out(self.machine.handle(event, self._clock()))
            settled = self._ledger.settle(until)
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
            self._desk.note(Record(kind=kind, detail=f"by {asked.who}"))
            self._events.append(asked)
        real = time.monotonic()
        if now < self._requests_at or real < self._requests_at_real or not self._ledger.may_try():
            return
        self._requests_at, self._requests_at_real = now + REQUESTS_EVERY_SECONDS, real + REQUESTS_APART_SECONDS
        try:
            request = self._store.requested(self.run_id)
        except PASSING:  # the next write says so, and how long it lasts
            return
        match request:
            case ("pause", who):
                self._events.append(PauseRequested(who=who))
            case ("abort", who):
                self._events.append(StopRequested(who=who))
            case ("approve", who):
                self._events.append(ApprovalGiven(who=who))

    # ------------------------------------------------------------------ guardrails between stages
    def _begin_test(self, stage: int) -> None:
        self._test = stage, self._test_guardrails(stage)

    def _go_on_testing(self, until: float) -> None:
        """Work on the test for a while; where the store goes away, it begins anew once that is back."""
        if self._test is None or not self._ledger.may_try():
            return
        stage, test = self._test
        try:
            for breaches in test:
                if breaches is not None:
                    self._test = None
                    self._events.append(GuardrailsTested(stage=stage, breaches=breaches))
                    return
                self._ledger.taken()
                if self._clock() > until:
                    return
        except PASSING as error:
            self._ledger.refused(error)
            self._begin_test(stage)
