"""What every store does for many hosts at once, and for several writes that belong together, on both databases."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from agents.messages import Reading
from fleetexp.domain import BrokenBy, EventKind, PeriodState, RunState
from fleetexp.errors import NoSuchRun, StoreError, StoreLocked
from fleetexp.store.store import EventRecord, PeriodEnd, PeriodStart, Store, open_store, query
from tests.fleetexp.store.rows import NOW, facts, host_event, knob_change, make_plan, measurement, new_run, sample
from tests.fleetexp.store.single import end_period, start_period
from tests.fleetexp.store.test_store_readings import SUMMARY, counts

HOSTS = [f"h{number}" for number in range(1, 31)]


@pytest.fixture
def run_id(store: Store) -> int:
    return new_run(store, make_plan(HOSTS))


@pytest.fixture
def first_periods(store: Store, run_id: int) -> dict[str, int]:
    return {record.host: record.period_id for record in store.periods(run_id) if record.plan.index == 0}


def turn(periods: dict[str, int], number: int) -> dict[str, list[Reading]]:
    """Give what every host says in one turn: a sample, a value, an event of the period and one outside any."""
    return {
        host: [
            sample(period_id, 3 * number),
            measurement(period_id, 3 * number + 1),
            host_event(period_id, 3 * number + 2),
            host_event(0, number),
        ]
        for host, period_id in periods.items()
    }


@contextlib.contextmanager
def statements(store: Store) -> Iterator[list[str]]:
    """Note the statements that go through SQLAlchemy."""
    said: list[str] = []

    def note(*call: object) -> None:
        said.append(str(call[2]))

    event.listen(store._engine, "before_cursor_execute", note)
    yield said
    event.remove(store._engine, "before_cursor_execute", note)


# ---------------------------------------------------------------------------- readings of many hosts
def test_one_turn_of_all_hosts_is_stored_and_each_finds_its_own(
    store: Store, store_url: str, run_id: int, first_periods: dict[str, int]
) -> None:
    store.set_run_state(run_id, RunState.RUNNING)
    assert store.append_many(turn(first_periods, 1)) == 4 * len(HOSTS)
    for host in ("h1", "h30"):
        readings = store.period_readings(first_periods[host])
        assert readings.samples["pgfault"].values.tolist() == [30.0]
        assert readings.measured["access_seconds"].values.tolist() == [1.5]
    drifts = [(one.host, one.period_id) for one in store.events(run_id) if one.kind == "drift"]
    expected = [(host, number) for host, period_id in first_periods.items() for number in (0, period_id)]
    assert sorted(drifts) == sorted(expected)
    assert counts(store_url)["sample"] == len(HOSTS)


def test_many_batches_sent_again_add_nothing_and_longer_ones_add_the_rest(
    store: Store, store_url: str, first_periods: dict[str, int]
) -> None:
    first = turn(first_periods, 1)
    assert store.append_many(first) == 4 * len(HOSTS)
    assert store.append_many(first) == 0
    longer = {host: [*batch, *turn(first_periods, 2)[host]] for host, batch in first.items()}
    assert store.append_many(longer) == 4 * len(HOSTS)
    assert counts(store_url) == {"sample": 60, "measurement": 60, "event": 121}


def test_no_batches_and_empty_batches_are_nothing(store: Store, run_id: int) -> None:
    assert store.append_many({}) == 0
    assert store.append_many({"h1": [], "h2": []}) == 0


def test_hosts_that_read_different_metrics_are_stored_together(store: Store, first_periods: dict[str, int]) -> None:
    batches: dict[str, list[Reading]] = {
        "h1": [sample(first_periods["h1"], 1, pgfault=1.0)],
        "h2": [sample(first_periods["h2"], 1, pswpin=2.0, thp_64kB_split=3.0)],
        "h3": [sample(first_periods["h3"], 1, thp_32kB_split=4.0), sample(first_periods["h3"], 2, pgfault=5.0)],
    }
    assert store.append_many(batches) == 4
    found = {host: store.period_readings(first_periods[host]).samples for host in batches}
    values = {host: {name: list(one.values) for name, one in series.items()} for host, series in found.items()}
    assert values == {
        "h1": {"pgfault": [1.0]},
        "h2": {"pswpin": [2.0], "thp_64kB_split": [3.0]},
        "h3": {"thp_32kB_split": [4.0], "pgfault": [5.0]},
    }


def test_one_hosts_bad_reading_keeps_all_of_the_turn_out(
    store: Store, store_url: str, first_periods: dict[str, int]
) -> None:
    before = counts(store_url)
    unknown: dict[str, list[Reading]] = {**turn(first_periods, 1), "h7": [sample(4711, 1)]}
    with pytest.raises(NoSuchRun, match="there is no period 4711"):
        store.append_many(unknown)
    swapped: dict[str, list[Reading]] = {**turn(first_periods, 1), "h7": [sample(first_periods["h8"], 1)]}
    with pytest.raises(StoreError, match="is one of h8"):
        store.append_many(swapped)
    assert counts(store_url) == before


def test_a_turn_takes_as_few_statements_for_many_hosts_as_for_one(store: Store, first_periods: dict[str, int]) -> None:
    def said(hosts: list[str], number: int) -> int:
        with statements(store) as found:
            store.append_many(turn({host: first_periods[host] for host in hosts}, number))
        return len(found)

    said(HOSTS, 1)  # looks the hosts and periods up, once
    assert said(["h1"], 2) == said(HOSTS, 3)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    turns=st.lists(
        st.dictionaries(st.sampled_from(["a", "b", "c"]), st.lists(st.integers(1, 12), max_size=6)), max_size=6
    )
)
def test_any_interleaving_of_overlapping_turns_gives_each_reading_once(
    store: Store, turns: list[dict[str, list[int]]]
) -> None:
    hosts = {name: f"{name}-{len(store.runs())}" for name in "abc"}
    records = store.periods(new_run(store, make_plan(sorted(hosts.values()))))
    period_ids = {record.host: record.period_id for record in records if record.plan.index == 0}
    new = sum(
        store.append_many(
            {hosts[name]: [sample(period_ids[hosts[name]], number) for number in batch] for name, batch in one.items()}
        )
        for one in turns
    )
    sent = {(hosts[name], number) for one in turns for name, batch in one.items() for number in batch}
    found = {
        (host, int(second - 1000))
        for host, period_id in period_ids.items()
        if (series := store.period_readings(period_id).samples)
        for second in series["pgfault"].seconds
    }
    assert (new, found) == (len(sent), sent)


# ---------------------------------------------------------------------------- several writes together
def test_what_is_written_together_is_there_at_the_end_and_for_others_not_before(
    store: Store, store_url: str, run_id: int, first_periods: dict[str, int]
) -> None:
    with contextlib.closing(open_store(store_url, create=False)) as other:
        with store.together():
            store.set_run_state(run_id, RunState.RUNNING)
            store.append("h1", [sample(first_periods["h1"], 1)])
            again = store.add_periods(run_id, "h1", [replace(store.periods(run_id)[0].plan, attempt=1)])
            store.append("h1", [sample(again[0], 1)])
            assert store.run(run_id).state is RunState.RUNNING  # who writes sees it
            assert other.run(run_id).state is RunState.PLANNED
            assert counts(store_url)["sample"] == 0
        assert other.run(run_id).state is RunState.RUNNING
        assert counts(store_url)["sample"] == 2


def test_what_fails_together_leaves_nothing(store: Store, store_url: str, first_periods: dict[str, int]) -> None:
    run_id = store.runs()[0].run_id
    with pytest.raises(NoSuchRun, match="no period 4711"), store.together():
        store.set_run_state(run_id, RunState.RUNNING)
        store.append_many(turn(first_periods, 1))
        end_period(store, 4711, NOW, PeriodState.COMPLETE)
    with pytest.raises(KeyError), store.together():
        store.set_run_state(run_id, RunState.RUNNING)
        raise KeyError("a defect of the caller")
    assert store.run(run_id).state is RunState.PLANNED
    assert counts(store_url) == {"sample": 0, "measurement": 0, "event": 1}
    store.set_run_state(run_id, RunState.RUNNING)  # the store goes on
    assert store.run(run_id).state is RunState.RUNNING


def test_an_error_that_was_caught_inside_does_not_let_a_half_through(store: Store, run_id: int) -> None:
    with pytest.raises(NoSuchRun, match="no period 4711"), store.together():
        store.set_run_state(run_id, RunState.RUNNING)
        with contextlib.suppress(StoreError):
            end_period(store, 4711, NOW, PeriodState.COMPLETE)
        with pytest.raises(NoSuchRun, match="no period 4711"):
            store.set_run_state(run_id, RunState.HALTING)
    assert store.run(run_id).state is RunState.PLANNED


def test_an_error_of_the_database_inside_is_translated_as_ever(store: Store, run_id: int) -> None:
    with pytest.raises(StoreError, match="no time zone"), store.together():
        store.set_run_state(run_id, RunState.RUNNING)
        store.record_event(run_id, EventKind.DRIFT, "a naive instant", at=NOW.replace(tzinfo=None))
    assert store.run(run_id).state is RunState.PLANNED


def test_together_inside_together_is_one_transaction(store: Store, run_id: int) -> None:
    with pytest.raises(KeyError), store.together():
        with store.together():
            store.set_run_state(run_id, RunState.RUNNING)
        raise KeyError("after the inner one's end")
    assert store.run(run_id).state is RunState.PLANNED
    with store.together(), store.together():
        store.set_run_state(run_id, RunState.RUNNING)
    assert store.run(run_id).state is RunState.RUNNING


def test_numbers_learnt_in_a_transaction_that_failed_are_not_believed_afterwards(store: Store) -> None:
    with pytest.raises(KeyError), store.together():
        lost = new_run(store, make_plan(["h1", "h2"]))
        h1_then = {record.host: record.period_id for record in store.periods(lost)}["h1"]
        store.append("h1", [sample(h1_then, 1)])
        raise KeyError("undone")
    kept = new_run(store, make_plan(["h2"], blocks=9))
    records = store.periods(kept)
    assert store.append_many({"h2": [sample(record.period_id, 1) for record in records]}) == len(records)
    with pytest.raises(NoSuchRun, match="'h1'"):
        store.record_knob_changes(kept, "h1", [knob_change("a", "b")])


def test_a_database_locked_by_another_refuses_all_that_belongs_together(new_store_url: Callable[[], str]) -> None:
    url = new_store_url()
    with (
        contextlib.closing(open_store(url, wait_seconds=0.2)) as store,
        contextlib.closing(open_store(url)) as other,
    ):
        run_id = new_run(store)
        with other.together():
            other.set_run_state(run_id, RunState.HALTING)
            with pytest.raises(StoreLocked), store.together():
                store.set_run_state(run_id, RunState.RUNNING)
        assert store.run(run_id).state is RunState.HALTING
        with store.together():
            store.set_run_state(run_id, RunState.HALTED)
        assert store.run(run_id).state is RunState.HALTED


# ---------------------------------------------------------------------------- many rows of the schedule and the audit
def test_many_periods_start_and_end_at_once(store: Store, run_id: int, first_periods: dict[str, int]) -> None:
    starts = [
        PeriodStart(period_id=period_id, started_at=NOW + timedelta(seconds=place), boot_id=f"boot of {host}")
        for place, (host, period_id) in enumerate(first_periods.items())
    ]
    store.start_periods(starts)
    by_id = {record.period_id: record for record in store.periods(run_id)}
    assert [by_id[one.period_id].started_at for one in starts] == [one.started_at for one in starts]
    assert sum(record.state is PeriodState.RUNNING for record in by_id.values()) == len(HOSTS)
    store.end_periods(
        [
            PeriodEnd(period_id=one.period_id, ended_at=NOW + timedelta(seconds=60), state=PeriodState.COMPLETE)
            for one in starts[1:]
        ]
        + [PeriodEnd(period_id=starts[0].period_id, ended_at=NOW, state=PeriodState.INVALID, reason="drift")]
    )
    frame = store.periods_frame(run_id).set_index("period_id")
    assert frame.loc[starts[0].period_id, ["state", "reason", "boot_id"]].tolist() == [
        "invalid", "drift", "boot of " + next(iter(first_periods)),
    ]  # fmt: skip
    assert (frame["state"] == "complete").sum() == len(HOSTS) - 1
    store.start_periods([])
    store.end_periods([])


def test_of_many_periods_none_starts_where_one_is_not_there(
    store: Store, run_id: int, first_periods: dict[str, int]
) -> None:
    known = next(iter(first_periods.values()))
    with pytest.raises(NoSuchRun, match="no period 4711"):
        store.start_periods([PeriodStart(period_id=each, started_at=NOW, boot_id="b") for each in (known, 4711)])
    with pytest.raises(NoSuchRun, match="no period 4711"):
        store.end_periods(
            [PeriodEnd(period_id=each, ended_at=NOW, state=PeriodState.COMPLETE) for each in (known, 4711)]
        )
    assert {record.state for record in store.periods(run_id)} == {PeriodState.PLANNED}


def test_a_block_is_struck_out_in_one_statement_and_nothing_else_is(store: Store) -> None:
    run_id = new_run(store, make_plan(["h1", "h2"], blocks=2))
    other_run = new_run(store, make_plan(["h1"], blocks=2))
    plans = [record.plan for record in store.periods(run_id) if record.host == "h1" and record.plan.block == 1]
    store.add_periods(run_id, "h1", [replace(plan, attempt=1) for plan in plans])
    ours = [
        record.period_id
        for record in store.periods(run_id)
        if (record.host, record.plan.block, record.plan.attempt) == ("h1", 1, 0)
    ]
    early = NOW - timedelta(seconds=90)
    end_period(store, ours[0], early, PeriodState.COMPLETE)
    with statements(store) as said:
        store.void_block(run_id, "h1", 1, 0, "drift", BrokenBy.HOST, NOW)
    assert sum("UPDATE" in one for one in said) == 1
    invalid = {record.period_id: record for record in store.periods(run_id) if record.state is PeriodState.INVALID}
    assert sorted(invalid) == sorted(ours)
    assert [invalid[each].ended_at for each in ours] == [early, NOW]
    assert {(record.reason, record.broken_by) for record in invalid.values()} == {("drift", BrokenBy.BLOCK)}
    store.void_block(run_id, "h1", 1, 0, "another reason, later", BrokenBy.RUN, NOW + timedelta(seconds=1))
    assert {record.reason for record in store.periods(run_id) if record.state is PeriodState.INVALID} == {"drift"}
    assert {record.state for record in store.periods(other_run)} == {PeriodState.PLANNED}
    with pytest.raises(NoSuchRun, match="'nobody'"):
        store.void_block(run_id, "nobody", 0, 0, "drift", BrokenBy.HOST, NOW)


def test_what_broke_a_block_broke_the_period_under_way_and_not_the_others(store: Store) -> None:
    run_id = new_run(store, make_plan(["h1"], blocks=2))
    whole, under_way, broken, not_begun = (record.period_id for record in store.periods(run_id))
    end_period(store, whole, NOW, PeriodState.COMPLETE)
    start_period(store, under_way, NOW, "boot-1")
    store.void_block(run_id, "h1", 0, 0, "interrupted", BrokenBy.RUN, NOW)
    end_period(store, broken, NOW, PeriodState.INVALID, "drift", BrokenBy.HOST)
    store.void_block(run_id, "h1", 1, 0, "drift", BrokenBy.HOST, NOW)
    assert {record.period_id: record.broken_by for record in store.periods(run_id)} == {
        whole: BrokenBy.BLOCK,
        under_way: BrokenBy.RUN,
        broken: BrokenBy.HOST,
        not_begun: BrokenBy.BLOCK,
    }
    assert store.periods_frame(run_id)["broken_by"].tolist() == ["block", "run", "host", "block"]


def test_of_many_hosts_those_that_a_live_run_holds_are_busy(store: Store) -> None:
    first, second = new_run(store, make_plan(["h1", "h2"])), new_run(store, make_plan(["h2", "h3"]))
    everyone = ["h1", "h2", "h3", "unheard-of"]
    assert store.hosts_busy(everyone) == {}
    store.set_run_state(first, RunState.RUNNING)
    assert store.hosts_busy(everyone) == {"h1": first, "h2": first}
    store.set_run_state(second, RunState.PREFLIGHT)
    assert store.hosts_busy(everyone) == {"h1": first, "h2": second, "h3": second}
    assert store.hosts_busy(["h3"]) == {"h3": second}
    assert store.hosts_busy([]) == {}


def test_facts_writes_and_events_of_many_hosts_are_entered_once(store: Store, run_id: int) -> None:
    every = [facts(host) for host in HOSTS]
    changes = {host: [knob_change("inherit", "always", at=1), knob_change("always", "never", at=2)] for host in HOSTS}
    happened = [EventRecord(at=NOW, host=host, kind=EventKind.HOST_LOST, detail="no \0 answer") for host in HOSTS]
    for _ in range(2):
        store.record_many_host_facts(run_id, every)
        store.record_many_knob_changes(run_id, changes)
        store.record_events(run_id, [*happened, *happened])
    assert store.host_facts(run_id) == sorted(every, key=lambda one: one.host)
    assert len(store.knob_changes(run_id)) == 2 * len(HOSTS)
    assert sorted(one.host for one in store.events(run_id) if one.kind == "host_lost") == sorted(HOSTS)
    with pytest.raises(NoSuchRun, match="'nobody'"):
        store.record_many_host_facts(run_id, [facts("h1", at=7), facts("nobody")])
    assert len(store.host_facts(run_id)) == len(HOSTS)
    assert store.host_facts(run_id)[0].taken_at == NOW


def test_observations_of_many_periods_are_replaced_at_once(
    store: Store, run_id: int, first_periods: dict[str, int]
) -> None:
    store.end_periods(
        [
            PeriodEnd(period_id=period_id, ended_at=NOW, state=PeriodState.COMPLETE)
            for period_id in first_periods.values()
        ]
    )
    store.save_many_observations({each: {"pgfault": SUMMARY, "pswpin": SUMMARY} for each in first_periods.values()})
    store.save_many_observations({each: {"pgfault": SUMMARY} for each in first_periods.values()})
    frame = store.observations(run_id)
    assert sorted(frame["host"]) == sorted(HOSTS)
    assert set(frame["metric"]) == {"pgfault"}


def test_more_hosts_than_one_statement_takes(store: Store, store_url: str) -> None:
    names = [f"host-{number:05}" for number in range(5_100)]
    run_id = new_run(store, make_plan(names))
    firsts = {record.host: record.period_id for record in store.periods(run_id) if record.plan.index == 0}
    assert len(firsts) == len(names)
    store.set_run_state(run_id, RunState.RUNNING)
    assert len(store.hosts_busy(names)) == len(names)
    batches: dict[str, list[Reading]] = {host: [sample(each, 1)] for host, each in firsts.items()}
    assert store.append_many(batches) == len(names)
    assert store.append_many(batches) == 0
    store.end_periods([PeriodEnd(period_id=each, ended_at=NOW, state=PeriodState.COMPLETE) for each in firsts.values()])
    assert query(store_url, "select periods_complete from run_summary", 1)[1] == [(len(names),)]
