"""The runner against a fleet that says what the test wants, on a clock of its own; the store is real."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents import messages as a
from agents.clock import Clock, SystemClock
from agents.errors import LeaseExpired, WorkloadError
from agents.facts import survey
from agents.sysroot import FolderRoot
from fleetexp.control.controller import Controller
from fleetexp.control.messages import GuardrailsTested, StopRequested
from fleetexp.control.run_context import Holder, Job
from fleetexp.control.run_machine import RunMachine
from fleetexp.control.run_recovery import past_of
from fleetexp.control.tripwires import Tripwires
from fleetexp.domain import BrokenBy, EventKind, Goal, PeriodState, RunCause, RunState
from fleetexp.fleets.base import HostReply
from fleetexp.store.records import EventRecord
from fleetexp.store.store import Store, open_store
from tests.fleetexp.control.machine_world import make_plan

NOW = datetime(2026, 2, 2, tzinfo=UTC)
STOP = StopRequested(who="ann")


@dataclass
class Scripted:
    """A healthy host 'h0', but for what `say` answers in its place: None leaves a request unanswered."""

    facts: a.HostFacts
    say: Callable[[a.Request], a.Reply | Exception | None]
    name: str = "scripted"
    now: float = 0.0
    sent: list[tuple[float, a.Request]] = field(default_factory=list)
    answers: deque[HostReply] = field(default_factory=deque)
    position: int = 0
    acknowledged: int = 0
    period_id: int = 0
    ran: str = ""

    @property
    def clock(self) -> Clock:
        return TestClock(self)

    def hosts(self) -> tuple[str, ...]:
        return ("h0",)

    def send(self, host: str, request: a.Request, timeout_seconds: float) -> None:
        self.sent.append((self.now, request))
        reply = self.say(request)
        if isinstance(reply, Exception):
            lost = isinstance(reply, ConnectionError)
            self.answers.append(HostReply(host=host, request=request, error=reply, lost=lost))
        elif reply is not None:
            self.answers.append(HostReply(host=host, request=request, reply=reply))

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        self.now += 0.01 if self.answers else max(timeout_seconds, 0.01)
        out = list(self.answers)
        self.answers.clear()
        return out

    def forget(self, host: str) -> None:
        self.answers.clear()

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        self.forget(host)
        self.send(host, a.Survey(), timeout_seconds)

    def close(self) -> None:
        pass

    def healthy(self, request: a.Request) -> a.Reply:
        match request:
            case a.Survey():
                return self.facts
            case a.Preflight():
                return a.PreflightReport(problems=())
            case a.Claim():
                return a.Claimed(found={}, leftovers=(), boot_id="b")
            case a.Apply(arm=arm):
                return a.Applied(arm=arm.name, changes=())
            case a.Begin(period_id=period_id):
                self.period_id, self.position = period_id, self.position + 1
                return a.Begun(period_id=period_id, begun_at=NOW, boot_id="b")
            case a.Poll(acknowledged=acknowledged):
                self.acknowledged = acknowledged
                return self.polled(acknowledged)
            case a.End(period_id=period_id):
                self.period_id, self.position = 0, self.position + 1
                return a.Ended(
                    period_id=period_id,
                    ended_at=NOW,
                    last_position=self.position,
                    workload=a.WorkloadState.NONE,
                    workload_detail="",
                    invalid="",
                )
            case a.Revert():
                return a.Reverted(changes=())
            case a.Release():
                return a.Released()

    def polled(
        self, acknowledged: int, *, period_id: int | None = None, state: a.WorkloadState = a.WorkloadState.NONE
    ) -> a.Polled:
        readings = tuple(
            a.Measurement(position=n, period_id=1, sequence=n, taken_at=NOW, metric="latency", value=1.0)
            for n in range(acknowledged + 1, self.position + 1)
        )
        return a.Polled(
            readings=readings,
            more=False,
            lease_remaining_seconds=9.0,
            period_id=self.period_id if period_id is None else period_id,
            workload=state,
            workload_detail="",
            drift=(),
        )

    def count(self, kind: type) -> int:
        return sum(isinstance(request, kind) for _, request in self.sent)

    def lengths(self) -> list[float]:
        """Seconds from each Begin to its End."""
        ends = {r.period_id: at for at, r in self.sent if isinstance(r, a.End)}
        return [ends[r.period_id] - at for at, r in self.sent if isinstance(r, a.Begin) and r.period_id in ends]


class TestClock(SystemClock):
    """The clock of this machine, but for the seconds, which the fleet counts."""

    __test__ = False  # no test of pytest's

    def __init__(self, fleet: Scripted) -> None:
        self._fleet = fleet

    def monotonic(self) -> float:
        return self._fleet.now


@dataclass
class Nothing:
    """No analysis; `observe` is what the test says."""

    observe: Callable[[object], None]

    def analyse(self, stage: int | None) -> None:
        pass

    def test_guardrails(self, stage: int, unread: frozenset[str]) -> Iterator[GuardrailsTested | None]:
        return iter([GuardrailsTested(stage=stage)])


@dataclass
class Bench:
    store: Store
    fleet: Scripted
    runner: Controller

    def states(self) -> list[str]:
        return [period.state.value for period in self.store.periods(1)]

    def broken_by(self) -> list[BrokenBy]:
        """What broke each period of the first attempt that was struck out."""
        return [p.broken_by for p in self.store.periods(1) if p.state is PeriodState.INVALID and not p.plan.attempt]


Make = Callable[..., Bench]


@pytest.fixture
def make(tmp_path: Path, host_tree: Callable[..., FolderRoot]) -> Iterator[Make]:
    opened: list[Store] = []
    facts = survey(host_tree(), host="h0")

    def build(
        say: Callable[[Scripted, a.Request], a.Reply | Exception | None] | None = None,
        *,
        observe: Callable[[object], None] = lambda _: None,
        blocks: int = 1,
    ) -> Bench:
        plan = make_plan(blocks=blocks)
        store = open_store(f"sqlite:///{tmp_path / 'x.db'}")
        opened.append(store)
        run_id = store.create_run(
            experiment_name="x",
            hypothesis="",
            spec_text="x",
            spec_json={},
            plan=plan,
            launched_by="me",
            versions={},
            fleet="scripted",
        )
        fleet = Scripted(facts=facts, say=lambda request: say(fleet, request) if say else fleet.healthy(request))
        job = Job(
            run_id=run_id,
            holder=Holder(claim_name="1-x", owner="me"),
            machine=RunMachine(plan=plan),
            store=store,
            fleet=fleet,
            tripwires=Tripwires((), counters=frozenset()),
        )
        runner = Controller(job, analyst=Nothing(observe=observe), progress=lambda _: _in_time(fleet))
        return Bench(store=store, fleet=fleet, runner=runner)

    yield build
    for store in opened:
        with contextlib.closing(store):
            pass


def _in_time(fleet: Scripted) -> None:
    assert fleet.now < 3000, "the run does not come to an end"
    assert len(fleet.sent) < 3000


def test_a_healthy_run_closes_every_period_and_acknowledges_everything_before_it_releases(make: Make) -> None:
    bench = make()
    assert bench.runner.run() is RunState.COMPLETED
    assert bench.states() == ["complete"] * 4
    assert bench.fleet.acknowledged == bench.fleet.position
    assert isinstance(bench.fleet.sent[-1][1], a.Release)


def test_a_host_has_one_poll_under_way_at_most(make: Make) -> None:
    under_way: list[int] = [0]

    def say(fleet: Scripted, request: a.Request) -> a.Reply:
        if isinstance(request, a.Poll):
            assert not any(isinstance(answer.request, a.Poll) for answer in fleet.answers)
            under_way[0] += 1
        return fleet.healthy(request)

    assert make(say).runner.run() is RunState.COMPLETED
    assert under_way[0] > 8


def test_a_workload_that_had_finished_in_an_earlier_period_does_not_end_the_next(make: Make) -> None:
    def say(fleet: Scripted, request: a.Request) -> a.Reply:
        if isinstance(request, a.Poll):
            return fleet.polled(request.acknowledged, period_id=1, state=a.WorkloadState.FINISHED)
        return fleet.healthy(request)

    bench = make(say)
    bench.runner.run()
    assert bench.fleet.lengths()[1:] == pytest.approx([5.0, 1.0, 5.0], abs=0.5)


def test_a_period_that_begins_while_it_is_being_struck_out_is_not_noted_as_running(make: Make) -> None:
    late: list[a.Begin] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | None:
        if isinstance(request, a.Begin):
            late.append(request)
            bench.runner.ask(STOP)
            return None
        if isinstance(request, a.Revert):
            fleet.answers.append(HostReply(host="h0", request=late[0], reply=fleet.healthy(late[0])))
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.HALTED
    first = bench.store.periods(1)[0]
    assert (first.state, first.reason, first.broken_by) == (PeriodState.INVALID, "aborted by ann", BrokenBy.RUN)


def test_an_end_that_is_answered_after_the_revert_does_not_bring_its_period_back(make: Make) -> None:
    late: list[a.End] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | None:
        if isinstance(request, a.End):
            late.append(request)
            bench.runner.ask(STOP)
            return None
        if isinstance(request, a.Revert):
            fleet.answers.append(HostReply(host="h0", request=late[0], reply=fleet.healthy(late[0])))
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.HALTED
    assert bench.states()[0] == "invalid"


def test_a_new_agent_that_can_not_survey_its_host_is_lost_again_and_the_run_goes_on(make: Make) -> None:
    told: list[str] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | Exception:
        if isinstance(request, a.Apply) and not told:
            told.append("lost")
            return ConnectionError("actor died")
        if isinstance(request, a.Survey) and told == ["lost"]:
            told.append("no facts")
            return OSError(5, "Input/output error")
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.COMPLETED
    assert bench.fleet.count(a.Survey) == 3
    assert bench.fleet.count(a.Claim) == 2


def test_what_a_lost_host_said_in_the_same_moment_is_void(make: Make) -> None:
    done: list[bool] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | None:
        if isinstance(request, a.Apply) and not done:
            done.append(True)
            for error in (ConnectionError("actor died"), ConnectionError("actor died, again")):
                fleet.answers.append(HostReply(host="h0", request=a.Poll(acknowledged=0), error=error, lost=True))
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.COMPLETED
    lost = [event for event in bench.store.events(1) if event.kind is EventKind.HOST_LOST]
    assert len(lost) == 1
    assert bench.fleet.count(a.Claim) == 2


def test_a_lease_that_ran_out_is_a_lost_host_whatever_was_asked(make: Make) -> None:
    done: list[bool] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | Exception:
        if isinstance(request, a.End) and not done:
            done.append(True)
            return LeaseExpired("gone")
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.COMPLETED
    assert bench.states().count("invalid") == 4
    assert bench.broken_by() == ["host", "block", "block", "block"]


@pytest.mark.parametrize("request_", [a.Begin, a.End])
def test_a_period_that_is_refused_is_repeated_with_its_block(make: Make, request_: type) -> None:
    done: list[bool] = []

    def say(fleet: Scripted, request: a.Request) -> a.Reply | Exception:
        if isinstance(request, request_) and not done:
            done.append(True)
            return WorkloadError("no such program")
        return fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.COMPLETED
    assert sorted(bench.states()) == ["complete"] * 4 + ["invalid"] * 4
    assert bench.broken_by() == ["host", "block", "block", "block"]


def test_a_host_that_can_not_be_put_back_is_not_polled_any_more(make: Make) -> None:
    change = a.KnobChange(
        knob="thp/enabled",
        before="always",
        wanted="never",
        after="always",
        reason=a.KnobReason.REVERT,
        changed_at=NOW,
        error="refused",
    )

    def say(fleet: Scripted, request: a.Request) -> a.Reply:
        return a.Reverted(changes=(change,)) if isinstance(request, a.Revert) else fleet.healthy(request)

    bench = make(say)
    assert bench.runner.run() is RunState.RESTORE_INCOMPLETE
    kinds = [type(request) for _, request in bench.fleet.sent]
    assert a.Poll not in kinds[kinds.index(a.Revert) :]
    assert [knob.error for _, knob in bench.store.knob_changes(1)] == ["refused"]


@pytest.mark.parametrize("request_", [a.Revert, a.Release])
def test_a_revert_or_release_that_fails_is_the_loudest_outcome(make: Make, request_: type) -> None:
    def say(fleet: Scripted, request: a.Request) -> a.Reply | Exception:
        return WorkloadError("the host lock is held") if isinstance(request, request_) else fleet.healthy(request)

    assert make(say).runner.run() is RunState.RESTORE_INCOMPLETE


def test_a_defect_reverts_and_releases_the_claimed_host_before_it_is_raised(make: Make) -> None:
    def defect(_: object) -> None:
        raise ZeroDivisionError

    bench = make(observe=defect)
    with pytest.raises(ZeroDivisionError):
        bench.runner.run()
    assert [type(request) for _, request in bench.fleet.sent][-2:] == [a.Revert, a.Release]


def _halting_to(goal: RunState, cause: RunCause, reason: str) -> EventRecord:
    return EventRecord(at=datetime.now(UTC), kind=EventKind.HALTING_TO, state=goal, cause=cause, detail=reason)


def test_resume_remembers_a_halt_that_was_interrupted_and_nothing_else(make: Make) -> None:
    store = make().store

    def goal() -> object:
        return past_of(store, store.run(1)).goal

    assert goal() is None
    store.set_run_state(1, RunState.HALTING, "paused by ann")
    assert goal() is None
    store.record_events(1, [_halting_to(RunState.PAUSED, RunCause.REQUEST, "paused by ann")])
    assert goal() is None
    sick = "guardrail kernel_oops: BUG: bad"
    store.record_events(1, [_halting_to(RunState.HALTED, RunCause.GUARDRAIL, sick)])
    for state in (RunState.HALTING, RunState.ANALYSING, RunState.RESTORE_INCOMPLETE):
        store.set_run_state(1, state)
        assert goal() == Goal(state=RunState.HALTED, cause=RunCause.GUARDRAIL, reason=sick)
    store.record_event(1, EventKind.RESUMED, "ann")
    assert goal() is None


def test_the_cap_counts_on_after_a_crash_and_begins_anew_where_somebody_lets_a_paused_run_go_on(make: Make) -> None:
    store = make().store
    store.set_run_state(1, RunState.RUNNING)
    store.record_event(1, EventKind.HOST_LOST, "no answer", host="h0")
    assert past_of(store, store.run(1)).troubled == {"h0"}
    store.set_run_state(1, RunState.PAUSED, "2 hosts failed or were lost, 1 allowed")
    assert past_of(store, store.run(1)).troubled == frozenset()
    store.set_run_state(1, RunState.RUNNING)
    assert past_of(store, store.run(1)).troubled == frozenset()


@pytest.mark.parametrize(("goal", "counted"), [(RunState.PAUSED, False), (RunState.HALTED, True)])
def test_the_cap_begins_anew_too_where_a_run_that_was_to_pause_could_not_reach_its_hosts(
    make: Make, goal: RunState, counted: bool
) -> None:
    store = make().store
    store.set_run_state(1, RunState.RUNNING)
    store.record_event(1, EventKind.HOST_LOST, "no Ray head answers", host="h0")
    store.record_events(1, [_halting_to(goal, RunCause.HOSTS, "1 host was lost")])
    store.record_event(1, EventKind.HOST_LOST, "no Ray head answers", host="h0")
    store.set_run_state(1, RunState.RESTORE_INCOMPLETE, "not restored: h0")
    assert past_of(store, store.run(1)).troubled == ({"h0"} if counted else frozenset())
