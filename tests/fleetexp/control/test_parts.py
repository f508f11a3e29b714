"""The runner's small parts: ledger, tripwires, observations, and the fleets' ways of saying that a host is lost."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from inspect import signature

import numpy as np
import pytest

from agents.messages import (
    Ended,
    HostEvent,
    HostEventKind,
    HostFacts,
    Measurement,
    Poll,
    Reading,
    Sample,
    Survey,
    WorkloadState,
)
from agents.sysroot import FolderRoot
from analysis.plan import Direction, GuardrailPlan
from fleetexp.control.controller import Controller
from fleetexp.control.host_machine import Hosts
from fleetexp.control.host_registry import HostRegistry, HostState
from fleetexp.control.host_session import HostSession
from fleetexp.control.instruction_executor import InstructionExecutor
from fleetexp.control.interim_analysis import InterimAnalyst, Measured
from fleetexp.control.messages import Collect, GuardrailBreached
from fleetexp.control.observations import mostly_read, observations
from fleetexp.control.poll_scheduler import PollScheduler, poll_every_seconds
from fleetexp.control.reply_handler import ReplyHandler
from fleetexp.control.run_context import Job, RunContext
from fleetexp.control.run_machine import RunMachine
from fleetexp.control.tripwires import Tripwires
from fleetexp.control.write_queue import ALONE, FIRST, WriteQueue
from fleetexp.domain import PeriodKind, PeriodPlan
from fleetexp.errors import RunError, StoreLocked
from fleetexp.fleets.base import Fleet
from fleetexp.fleets.inline_fleet import InlineFleet
from fleetexp.fleets.local_fleet import LocalFleet
from fleetexp.store.records import PeriodReadings, Series

NOW = datetime(2026, 2, 2, tzinfo=UTC)


# ---------------------------------------------------------------------- ledger
class Database:
    """Takes transactions, but for the first `refuse` writes; what is in one that fails is not taken."""

    def __init__(self, refuse: int) -> None:
        self.refuse = refuse
        self.taken: list[str] = []
        self.transactions = 0

    def write(self, what: str) -> Callable[[], str]:
        def act() -> str:
            if self.refuse > 0:
                self.refuse -= 1
                raise StoreLocked("busy", where="x.db", remedy="wait")
            self.taken.append(what)
            return what.upper()

        return act

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        before = list(self.taken)
        self.transactions += 1
        try:
            yield
        except StoreLocked:
            self.taken = before
            raise


def test_writes_wait_in_order_and_the_outage_ends_with_the_first_that_is_taken() -> None:
    now = [0.0]
    database = Database(refuse=2)
    write_queue = WriteQueue(lambda: now[0], database.together)
    write_queue.add(FIRST, database.write("a"))
    assert not write_queue.settle()
    now[0] = 7.0
    write_queue.add(FIRST, database.write("b"))
    assert not write_queue.settle()
    assert (len(write_queue), write_queue.outage_seconds()) == (2, 7.0)
    now[0] = 8.0
    assert write_queue.settle()
    assert database.taken == ["a", "b"]
    assert write_queue.outage_seconds() == 0.0


def test_the_writes_of_a_turn_are_one_transaction_and_what_follows_waits_for_its_end() -> None:
    database, heard = Database(refuse=0), list[str]()
    write_queue = WriteQueue(lambda: 0.0, database.together)

    def last() -> str:
        assert heard == []
        return database.write("b")()

    write_queue.add(FIRST, database.write("a"), heard.append)
    write_queue.after(lambda: heard.append("between"))
    write_queue.add(FIRST, last, heard.append)
    assert write_queue.settle()
    assert (database.transactions, heard) == (1, ["A", "between", "B"])


def test_nothing_follows_from_a_transaction_that_failed_at_its_last_write() -> None:
    now, heard = [0.0], list[str]()
    database = Database(refuse=0)
    write_queue = WriteQueue(lambda: now[0], database.together)
    refuse = [True]

    def last() -> str:
        if refuse:
            raise StoreLocked("busy")
        return "B"

    write_queue.add(FIRST, database.write("a"), heard.append)
    write_queue.add(FIRST, last, heard.append)
    assert not write_queue.settle()
    assert (database.taken, heard, len(write_queue)) == ([], [], 2)
    refuse.clear()
    assert not write_queue.settle()  # not asked again at once
    now[0] = 1.0
    assert write_queue.settle()
    assert (database.taken, heard) == (["a"], ["A", "B"])


def test_a_write_that_takes_long_stands_alone_and_keeps_its_place() -> None:
    database = Database(refuse=0)
    write_queue = WriteQueue(lambda: 0.0, database.together)
    write_queue.add(FIRST, database.write("a"))
    write_queue.add(ALONE, lambda: database.taken.append(f"{database.transactions}"))
    write_queue.add(FIRST, database.write("b"))
    assert write_queue.settle()
    assert database.taken == ["a", "1", "b"]
    assert database.transactions == 2


def test_no_write_is_begun_after_the_time_for_it_is_up() -> None:
    now = [0.0]
    database = Database(refuse=0)
    write_queue = WriteQueue(lambda: now[0], database.together)

    def slow() -> None:
        now[0] += 1.0
        database.taken.append("slow")

    for _ in range(5):
        write_queue.add(FIRST, slow)
    assert not write_queue.settle(until=1.5)
    assert database.taken == ["slow"] * 2
    assert write_queue.settle()
    assert database.taken == ["slow"] * 5


def test_a_write_outside_the_ledger_ends_an_outage_only_where_nothing_waits() -> None:
    now = [0.0]
    database = Database(refuse=9)
    write_queue = WriteQueue(lambda: now[0], database.together)
    write_queue.refused(StoreLocked("busy"))
    now[0] = 1.0
    write_queue.taken()
    assert write_queue.outage_seconds() == 0.0
    write_queue.add(FIRST, database.write("a"))
    write_queue.settle()
    now[0] = 2.0
    write_queue.taken()
    assert write_queue.outage_seconds() == 1.0


def test_flushing_waits_a_little_and_then_raises_what_the_store_says() -> None:
    now = [0.0]
    write_queue = WriteQueue(lambda: now[0])
    write_queue.add(FIRST, Database(refuse=99).write("a"))

    def wait(seconds: float) -> None:
        now[0] += seconds

    with pytest.raises(StoreLocked, match="busy"):
        write_queue.flush(1.0, wait)
    assert 1.0 < now[0] < 3.0
    write_queue = WriteQueue(lambda: now[0], (database := Database(refuse=2)).together)
    write_queue.add(FIRST, database.write("a"))
    write_queue.flush(60.0, wait)
    assert database.taken == ["a"]


# ---------------------------------------------------------------------- polls
def test_a_host_is_polled_when_it_is_due_and_not_while_a_poll_is_under_way() -> None:
    polls = PollScheduler()
    polls.plan("a", 1.0)
    polls.plan("b", 2.0)
    assert polls.next_at() == 1.0
    assert list(polls.due(0.5)) == []
    assert list(polls.due(1.0)) == ["a"]
    polls.sent("a", Poll(acknowledged=0), 1.0)
    polls.plan("a", 0.0)
    assert polls.oldest_seconds(3.5) == 2.5
    assert list(polls.due(5.0)) == ["b"]
    polls.answered("a")
    assert polls.oldest_seconds(3.5) == 0.0
    polls.plan("a", 7.0)
    assert (polls.next_at(), list(polls.due(7.0))) == (7.0, ["a"])
    polls.plan("b", 9.0)
    polls.drop("b")
    assert (polls.next_at(), list(polls.due(99.0))) == (float("inf"), [])


def test_many_hosts_are_polled_less_often_and_every_lease_sees_four_polls() -> None:
    few = poll_every_seconds(lease_seconds=60.0, sample_every_seconds=10.0, hosts=10)
    many = poll_every_seconds(lease_seconds=60.0, sample_every_seconds=10.0, hosts=2_000)
    most = poll_every_seconds(lease_seconds=60.0, sample_every_seconds=10.0, hosts=100_000)
    assert (few, many, most) == (2.0, 4.0, 15.0)


# ---------------------------------------------------------------------- tripwires
def guardrail(metric: str, limit: float | None, worse: Direction = Direction.INCREASE) -> GuardrailPlan:
    return GuardrailPlan(metric=metric, worse=worse, margin=None if limit is not None else 0.1, tripwire=limit)


def sample(**values: float) -> Sample:
    return Sample(position=1, period_id=1, sequence=1, taken_at=NOW, boottime_seconds=1.0, values=values)


def measured(metric: str, value: float) -> Measurement:
    return Measurement(position=1, period_id=1, sequence=1, taken_at=NOW, metric=metric, value=value)


def happened(kind: HostEventKind) -> HostEvent:
    return HostEvent(position=1, period_id=1, sequence=1, taken_at=NOW, kind=kind, detail="it did")


def test_a_counter_trips_by_what_it_rose_on_its_own_host() -> None:
    trips = Tripwires([guardrail("oom_kills", 2)], counters=frozenset({"oom_kills"}))
    assert trips.watch("a", [sample(oom_kills=100)]) is None
    assert trips.watch("b", [sample(oom_kills=101)]) is None
    assert trips.watch("b", [sample(oom_kills=102)]) is None
    breach = trips.watch("a", [sample(oom_kills=102)])
    assert breach is not None
    assert (breach.host, breach.metric, breach.detail) == ("a", "oom_kills", "2 reached the tripwire 2")


def test_a_counter_that_began_anew_is_counted_from_there() -> None:
    trips = Tripwires([guardrail("oom_kills", 2)], counters=frozenset({"oom_kills"}))
    for value in (100, 0, 1):
        assert trips.watch("a", [sample(oom_kills=value)]) is None
    assert trips.watch("a", [sample(oom_kills=2)]) is not None


@pytest.mark.parametrize(
    ("plan", "reading", "trips"),
    [
        (guardrail("free", 10, Direction.DECREASE), sample(free=10.0), True),
        (guardrail("free", 10, Direction.DECREASE), sample(free=11.0), False),
        (guardrail("latency", 5), measured("latency", 5.0), True),
        (guardrail("latency", 5), measured("latency", 4.9), False),
        (guardrail("latency", 5), measured("other", 9.0), False),
        (guardrail("latency", 5), sample(other=9.0), False),
        (guardrail("latency", None), measured("latency", 9.0), False),
        (guardrail("latency", 5), happened(HostEventKind.KERNEL_OOPS), True),
        (guardrail("latency", 5), happened(HostEventKind.BAD_PAGE), True),
        (guardrail("latency", 5), happened(HostEventKind.TAINT), True),
        (guardrail("latency", 5), happened(HostEventKind.WORKLOAD_FAILED), False),
    ],
)
def test_limits_and_a_sick_kernel_trip(plan: GuardrailPlan, reading: Reading, trips: bool) -> None:
    assert (Tripwires([plan], counters=frozenset()).watch("a", [reading]) is not None) is trips


def test_a_sick_kernel_is_told_before_a_limit_that_was_crossed_first() -> None:
    trips = Tripwires([guardrail("latency", 5)], counters=frozenset())
    found = trips.watch("a", [measured("latency", 9.0), happened(HostEventKind.KERNEL_OOPS)])
    assert isinstance(found, GuardrailBreached)


def test_a_derived_level_and_a_derived_ratio_of_counters_trip_too() -> None:
    used = Tripwires([guardrail("memory_used_bytes", 50)], counters=frozenset())
    assert used.watch("a", [sample(memory_total_bytes=100.0, memory_available_bytes=60.0)]) is None
    assert used.watch("a", [sample(memory_total_bytes=100.0, memory_available_bytes=40.0)]) is not None
    apart = sample(memory_total_bytes=100.0, memory_available_bytes=40.0, per_cpu_free_bytes=15.0)
    assert used.watch("a", [apart]) is None  # free too, where a page on a CPU's own list is large
    cycles = Tripwires([guardrail("cycles_per_instruction", 3)], counters=frozenset())
    assert cycles.watch("a", [sample(cycles=1e9, instructions=1.0)]) is None  # nothing to compare with yet
    assert cycles.watch("a", [sample(cycles=1e9 + 20, instructions=11.0)]) is None
    assert cycles.watch("a", [sample(cycles=5.0, instructions=1.0)]) is None  # began anew
    assert cycles.watch("b", [sample(cycles=45.0, instructions=11.0)]) is None
    found = cycles.watch("a", [sample(cycles=45.0, instructions=11.0)])
    assert found is not None
    assert (found.host, found.detail) == ("a", "4 reached the tripwire 3")


# ---------------------------------------------------------------------- observations
def series(*points: tuple[float, float]) -> Series:
    seconds, values = zip(*points, strict=True)
    return Series(seconds=np.array(seconds), values=np.array(values))


def summaries(**samples: Series) -> dict[str, float]:
    found = observations(PeriodReadings(period_id=1, samples=samples, measured={}))
    return {name: summary.mean for name, summary in found.items()}


MISSES = "dtlb_load_misses"
PER_KILO = "dtlb_load_misses_per_kilo_instruction"


def test_a_ratio_of_counters_is_taken_over_the_time_that_both_were_read() -> None:
    found = summaries(
        dtlb_load_misses=series((1.0, 10.0), (2.0, 20.0), (3.0, 30.0)),
        instructions=series((0.0, 0.0), (1.0, 1000.0), (2.0, 2000.0), (3.0, 3000.0), (9.0, 90000.0)),
    )
    assert found[PER_KILO] == pytest.approx(10.0)


@pytest.mark.parametrize(
    "misses",
    [series((1.0, 10.0), (2.0, 5.0), (3.0, 30.0)), series((1.0, 10.0)), series((7.0, 10.0), (8.0, 20.0))],
    ids=["fell", "read once", "never read together"],
)
def test_a_ratio_that_can_not_be_had_is_missing(misses: Series) -> None:
    steady = series((1.0, 1000.0), (2.0, 2000.0), (3.0, 3000.0))
    assert PER_KILO not in summaries(dtlb_load_misses=misses, instructions=steady)


def test_a_ratio_over_nothing_is_missing() -> None:
    still = series((1.0, 5.0), (2.0, 5.0))
    assert PER_KILO not in summaries(dtlb_load_misses=still, instructions=still)


def test_a_counter_of_the_users_own_is_observed_as_a_rate_over_its_own_instants() -> None:
    said = {"requests": series((100.0, 50.0), (104.0, 58.0)), "fell": series((1.0, 9.0), (2.0, 1.0))}
    readings = PeriodReadings(period_id=1, samples={}, measured=said)
    found = observations(readings, frozenset({"requests", "fell"}))
    assert {name: one.mean for name, one in found.items()} == {"requests": 2.0}  # one that fell began anew: missing
    assert observations(readings)["requests"].mean == 54.0


@pytest.mark.parametrize(
    ("read", "level", "count"),
    [
        (range(61), True, True),
        (range(0, 60, 10), True, True),  # slower than asked for, all the time
        ([*range(25), *range(36, 61)], True, True),  # away for less than a fifth
        (range(13), False, False),  # away from early on until the end
        (range(48, 61), False, False),
        ([*range(20), *range(40, 61)], False, True),  # a counter went on meanwhile
        ([0], False, False),
    ],
)
def test_a_source_that_was_away_for_more_than_a_fifth_of_a_period_has_no_value_of_it(
    read: Iterable[int], level: bool, count: bool
) -> None:
    """As of a service that a treatment has crash soon after each start: what it showed until then is not the period."""
    began = datetime(2026, 2, 2, tzinfo=UTC)
    beats = Series(seconds=np.arange(1000.0, 1061.0), values=np.arange(61.0))
    seconds = began.timestamp() + np.array([*read], dtype=np.float64)
    one = Series(seconds=seconds, values=np.arange(float(seconds.size)))
    measured = {"level": one, "count": one, "printed": one}
    readings = PeriodReadings(period_id=1, samples={"pgfault": beats}, measured=measured, began=(began, 1000.0))
    kept = mostly_read(readings, frozenset({"count"}), {"level": 1.0, "count": 1.0}).measured.keys()
    assert kept == {"printed"} | ({"level"} if level else set()) | ({"count"} if count else set())


def test_what_a_workload_reported_at_one_instant_counts_value_by_value() -> None:
    said = {"latency": Series(seconds=np.array([1.0, 1.0]), values=np.array([2.0, 4.0]))}
    found = observations(PeriodReadings(period_id=1, samples={}, measured=said))
    assert (found["latency"].n, found["latency"].mean) == (2, 3.0)


def test_a_value_stored_before_names_had_owners_never_stands_for_the_hosts_own() -> None:
    at = np.array([1.0, 2.0])
    samples = {
        "memory_total_bytes": Series(seconds=at, values=np.array([9.0, 9.0])),
        "memory_available_bytes": Series(seconds=at, values=np.array([4.0, 4.0])),
    }
    said = {name: Series(seconds=at, values=np.ones(2)) for name in ("memory_used_bytes", "memory_total_bytes")}
    found = observations(PeriodReadings(period_id=1, samples=samples, measured=said), frozenset(said))
    assert (found["memory_used_bytes"].mean, found["memory_total_bytes"].mean) == (5.0, 9.0)


def test_used_memory_is_less_what_the_lists_of_cpus_hold_where_that_is_read() -> None:
    levels = {
        "memory_total_bytes": series((1.0, 100.0), (2.0, 100.0)),
        "memory_available_bytes": series((1.0, 40.0), (2.0, 20.0)),
    }
    assert summaries(**levels)["memory_used_bytes"] == 70.0
    lists = series((1.0, 0.0), (2.0, 10.0))
    assert summaries(**levels, per_cpu_free_bytes=lists)["memory_used_bytes"] == 65.0


# ---------------------------------------------------------------------- fleets
@pytest.fixture
def inline(host_tree: Callable[..., FolderRoot]) -> Iterator[InlineFleet]:
    fleet = InlineFleet({"a": host_tree()}, run="1-x", labels={})
    yield fleet
    fleet.close()


def test_an_agent_that_does_not_answer_in_time_is_lost_and_its_answer_never_comes(inline: InlineFleet) -> None:
    assert inline.hosts() == ("a",)
    agent, go = inline._agents["a"], threading.Event()
    real = agent.handle
    agent.handle = lambda request: go.wait(30) and real(request)  # type: ignore[assignment,method-assign,return-value]
    inline.send("a", Survey(), 0.01)
    answers = inline.receive(0.1) + inline.receive(0.1)
    assert [(answer.lost, str(answer.error)) for answer in answers] == [(True, "no answer in time")]
    go.set()
    assert inline.receive(0.5) == []


def test_an_answer_to_what_was_forgotten_is_dropped_and_a_new_agent_answers(inline: InlineFleet) -> None:
    inline.send("a", Poll(acknowledged=0), 30)
    inline.forget("a")
    assert inline.receive(0.2) == []
    old = inline._agents["a"]
    inline.reconnect("a", 30)
    assert inline._agents["a"] is not old
    answers = inline.receive(10)
    assert [type(answer.reply) for answer in answers] == [HostFacts]


class NoRay(LocalFleet):
    """A machine on which Ray has died and does not start again."""

    starts = 0

    def _start(self) -> Fleet:
        self.starts += 1
        if self.starts > 1:
            raise RunError("Ray did not start: no memory", where="h0", remedy="look at its logs")
        return InlineFleet({}, run="1-x", labels={})

    def _alive(self) -> bool:
        return False

    def _shut_down(self) -> None:
        pass


def test_where_ray_does_not_start_again_the_host_is_lost_and_the_run_is_not_broken_off() -> None:
    fleet = NoRay("h0", run="1-x")
    for _ in range(2):
        fleet.reconnect("h0", 1.0)
        assert [(answer.host, answer.lost) for answer in fleet.receive(0.0)] == [("h0", True)]
    fleet.close()


# ---------------------------------------------------------------------- what a run is put together from
def test_nothing_that_drives_a_run_takes_more_than_seven_things() -> None:
    parts = (
        Controller,
        Job,
        RunContext,
        HostSession,
        InstructionExecutor,
        ReplyHandler,
        WriteQueue,
        RunMachine,
        Hosts,
        HostRegistry,
        HostState,
        Measured,
        InterimAnalyst,
    )
    assert max(len(signature(part).parameters) for part in parts) <= 7


def test_a_period_closes_and_a_claim_ends_only_when_the_stream_is_stored() -> None:
    session, poll = HostSession(acknowledged=3), Poll(acknowledged=3)
    ended = Ended(
        period_id=1,
        ended_at=datetime(2026, 2, 2, tzinfo=UTC),
        last_position=4,
        workload=WorkloadState.NONE,
        workload_detail="",
        invalid="",
    )
    assert not session.collected(ended)  # nobody asked for it any longer
    period = PeriodPlan(index=0, kind=PeriodKind.MEASURE, arm="control", block=0, stage=0, seconds=1.0)
    session.collect = collect = Collect(host="h0", period=period)
    assert session.collected(ended)
    assert session.closed() is None
    session.acknowledged = 4
    assert session.closed() == (collect, ended)
    assert session.closed() is None
    session.reverted(poll)
    assert not session.stored_all(poll, 0)  # it was sent before the revert
    assert not session.stored_all(Poll(acknowledged=4), 2)
    assert session.stored_all(Poll(acknowledged=4), 0)
    session.lose()
    assert not session.stored_all(Poll(acknowledged=4), 0)
