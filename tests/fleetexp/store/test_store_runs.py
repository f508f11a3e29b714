"""What every store does with runs, periods, states and requests, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType

import pytest

from agents.messages import Arm
from fleetexp.domain import BrokenBy, EventKind, PeriodState, RunRequest, RunState
from fleetexp.errors import NoSuchRun, StoreError
from fleetexp.store.store import Store, query
from tests.fleetexp.store.rows import NOW, facts, knob_change, make_plan, new_run, schedule
from tests.fleetexp.store.single import end_period, record_host_facts, start_period


def test_a_run_comes_back_as_it_was_entered(store: Store) -> None:
    plan = make_plan(["h1", "h2"], blocks=2)
    before = datetime.now(UTC)
    record = store.run(new_run(store, plan))
    assert record.plan == plan
    assert repr(record.plan) == repr(plan)  # 1 is not 1.0, a tuple is not a list
    assert (record.experiment, record.state, record.reason) == ("thp-2m", RunState.PLANNED, "")
    assert record.hypothesis == "2 MB pages make the chase faster"
    assert (record.launched_by, record.fleet, record.versions) == ("tester@here pid 1", "local", {"fleetexp": "0.1.0"})
    assert record.spec_text == "name: thp-2m\n"
    assert (record.started_at, record.ended_at, record.decision) == (None, None, None)
    assert before <= record.created_at <= datetime.now(UTC)
    assert record.created_at.tzinfo is UTC


def test_a_plan_with_read_only_mappings_can_be_stored(store: Store) -> None:
    plan = replace(make_plan(), arms=(Arm(name="never", knobs=MappingProxyType({"b": "1", "a": "2"})),))
    assert store.run(new_run(store, plan)).plan == plan


def test_the_same_spec_is_one_experiment_and_another_spec_is_another(store: Store, store_url: str) -> None:
    first, second, third = new_run(store), new_run(store), new_run(store, name="other")
    assert [run.run_id for run in store.runs()] == [first, second, third]
    _, rows = query(store_url, "select count(*) from experiment", 1)
    assert rows == [(2,)]


def test_a_run_that_is_not_there_is_named(store: Store) -> None:
    for act in (
        lambda: store.run(99),
        lambda: store.set_run_state(99, RunState.RUNNING),
        lambda: store.request(99, RunRequest.PAUSE, "me"),
        lambda: store.findings(99),
    ):
        with pytest.raises(NoSuchRun, match="there is no run 99"):
            act()
    assert store.requested(99) is None
    assert store.periods(99) == []


def test_states_stamp_start_and_end_and_leave_events(store: Store) -> None:
    run_id = new_run(store)
    store.set_run_state(run_id, RunState.PREFLIGHT)
    assert store.run(run_id).started_at is None
    store.set_run_state(run_id, RunState.RUNNING)
    started = store.run(run_id).started_at
    assert started is not None
    store.set_run_state(run_id, RunState.PAUSED, "paused by me")
    store.set_run_state(run_id, RunState.PAUSED, "paused by me")  # sent again after a broken connection
    store.set_run_state(run_id, RunState.RUNNING)
    store.set_run_state(run_id, RunState.COMPLETED)
    record = store.run(run_id)
    assert record.started_at == started
    assert record.ended_at is not None
    assert [event.detail for event in store.events(run_id) if event.kind == "state"] == [
        "preflight",
        "running",
        "paused: paused by me",
        "running",
        "completed",
    ]


def test_a_request_is_heard_once_and_an_abort_is_not_weakened(store: Store) -> None:
    run_id = new_run(store)
    assert store.requested(run_id) is None
    store.request(run_id, RunRequest.PAUSE, "ann")
    store.request(run_id, RunRequest.ABORT, "ben")
    store.request(run_id, RunRequest.PAUSE, "cleo")
    assert store.requested(run_id) == ("abort", "ben")
    assert store.requested(run_id) is None
    assert [event.kind for event in store.events(run_id)][1:] == [
        "pause_requested",
        "abort_requested",
        "pause_requested",
    ]


def test_a_pause_that_nobody_heard_does_not_stop_the_resumed_run_but_an_abort_does(store: Store) -> None:
    paused, aborted = new_run(store), new_run(store)
    store.request(paused, RunRequest.PAUSE, "ann")
    store.request(aborted, RunRequest.ABORT, "ann")
    store.set_run_state(paused, RunState.PREFLIGHT)
    store.set_run_state(aborted, RunState.PREFLIGHT)
    assert store.requested(paused) is None
    assert store.requested(aborted) == ("abort", "ann")


def test_a_host_is_busy_while_its_run_is_live(store: Store) -> None:
    run_id = new_run(store, make_plan(["h1"]))
    expected = {
        RunState.PLANNED: None,
        RunState.PREFLIGHT: run_id,
        RunState.RUNNING: run_id,
        RunState.PAUSED: None,
        RunState.ANALYSING: run_id,
        RunState.HALTING: run_id,
        RunState.HALTED: None,
        RunState.RESTORE_INCOMPLETE: None,
    }
    for state, busy in expected.items():
        store.set_run_state(run_id, state)
        assert store.hosts_busy(["h1"]).get("h1") == busy, state
    assert store.hosts_busy(["unheard-of"]).get("unheard-of") is None


def test_planned_periods_are_there_from_the_start(store: Store) -> None:
    plan = make_plan(["h2", "h1"], blocks=2)
    records = store.periods(new_run(store, plan))
    assert [(record.host, record.plan) for record in records] == [
        (host, period) for host in ("h1", "h2") for period in schedule(2)
    ]
    assert {(record.state, record.reason, record.broken_by, record.started_at) for record in records} == {
        (PeriodState.PLANNED, "", BrokenBy.NOTHING, None)
    }
    assert len({record.period_id for record in records}) == 8


def test_repeated_blocks_get_numbers_in_the_order_asked_and_are_not_doubled(store: Store) -> None:
    run_id = new_run(store)
    again = [replace(period, attempt=1) for period in reversed(schedule())]
    first = store.add_periods(run_id, "h1", again)
    assert store.add_periods(run_id, "h1", again) == first
    by_id = {record.period_id: record.plan for record in store.periods(run_id)}
    assert [by_id[number] for number in first] == again
    assert len(by_id) == 4


def test_a_period_keeps_when_it_ran_and_how_it_ended(store: Store) -> None:
    run_id = new_run(store)
    period_id = store.periods(run_id)[0].period_id
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    start_period(store, period_id, elsewhere, "boot-1")
    assert store.periods(run_id)[0].state is PeriodState.RUNNING
    end_period(store, period_id, NOW + timedelta(seconds=30), PeriodState.INVALID, "drift", BrokenBy.HOST)
    record = store.periods(run_id)[0]
    assert (record.state, record.reason, record.broken_by) == (PeriodState.INVALID, "drift", BrokenBy.HOST)
    assert record.started_at == NOW
    assert record.started_at is not None
    assert record.started_at.tzinfo is UTC
    assert record.ended_at == NOW + timedelta(seconds=30)


def test_a_period_or_host_that_is_not_there_is_named(store: Store) -> None:
    run_id = new_run(store)
    with pytest.raises(NoSuchRun, match="there is no period 77"):
        start_period(store, 77, NOW, "boot-1")
    with pytest.raises(NoSuchRun, match="there is no period 77"):
        store.period_readings(77)
    with pytest.raises(NoSuchRun, match="'nobody'"):
        store.add_periods(run_id, "nobody", schedule())
    with pytest.raises(NoSuchRun, match="'nobody'"):
        store.record_knob_changes(run_id, "nobody", [knob_change("a", "b")])
    with pytest.raises(NoSuchRun, match="'nobody'"):
        record_host_facts(store, run_id, facts("nobody"))


def test_an_instant_without_a_time_zone_is_refused_and_nothing_is_stored(store: Store) -> None:
    run_id = new_run(store)
    period_id = store.periods(run_id)[0].period_id
    with pytest.raises(StoreError, match="no time zone"):
        start_period(store, period_id, datetime(2026, 2, 2), "boot-1")  # noqa: DTZ001 - what is refused
    assert store.periods(run_id)[0].state is PeriodState.PLANNED


def test_knob_changes_come_back_in_order_and_once(store: Store) -> None:
    run_id = new_run(store)
    changes = [
        knob_change("inherit", "always", at=1),
        replace(knob_change("always", "never", "always", at=2), error="EIO"),
    ]
    store.record_knob_changes(run_id, "h1", changes)
    store.record_knob_changes(run_id, "h1", changes)
    assert store.knob_changes(run_id) == [("h1", change) for change in changes]


def test_host_facts_come_back_whole_and_the_newest_counts(store: Store) -> None:
    run_id = new_run(store, make_plan(["h2", "h1"]))
    older, other = facts("h1"), facts("h2")
    newer = replace(facts("h1", at=5), base_page_bytes=65536, thp_pmd_kib=524288)
    for one in (newer, older, older, other):
        record_host_facts(store, run_id, one)
    assert store.host_facts(run_id) == [newer, other]
    assert store.page_bytes(run_id) == {"h1": (65536, 2**29), "h2": (4096, 0)}


def test_an_event_told_twice_with_its_instant_is_entered_once(store: Store) -> None:
    run_id = new_run(store)
    for _ in range(2):
        store.record_event(run_id, EventKind.HOST_LOST, "no answer", host="h1", at=NOW)
    store.record_event(run_id, EventKind.HOST_LOST, "no answer, still", host="h1", at=NOW)
    store.record_event(run_id, EventKind.APPROVED, "by ann")
    events = [event for event in store.events(run_id) if event.kind != "launched"]
    assert [(event.host, event.kind, event.detail) for event in events] == [
        ("h1", "host_lost", "no answer"),
        ("h1", "host_lost", "no answer, still"),
        ("", "approved", "by ann"),
    ]
    assert events[0].at == NOW
    assert events[0].period_id == 0


def test_text_that_no_database_takes_is_stored_with_marks_in_its_place(store: Store) -> None:
    run_id = new_run(store)
    store.record_event(run_id, EventKind.HOST_FAILED, "printed \0 and \udc80 and ü", host="h1", at=NOW)
    assert store.events(run_id)[0].detail == "printed \ufffd and ? and ü"


def test_the_url_of_a_store_shows_no_password(store: Store, store_url: str) -> None:
    assert store.url == store_url
