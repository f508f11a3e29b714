"""Each view answers its question with the columns it promises, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from agents.messages import KnobReason
from agents.traced_calls import COUNTED_AS, SplitCause, TracedCalls, TracedFunction
from analysis.aggregate import Summary
from fleetexp.domain import BrokenBy, EventKind, PeriodState, RunState
from fleetexp.store.dictionary import render_dictionary
from fleetexp.store.store import Store, query
from fleetexp.store.table_base import Base
from fleetexp.store.views.all_views import VIEWS, View
from fleetexp.store.views.traces import SPLIT_CAUSES, STALLS
from tests.fleetexp.store.rows import (
    KNOB,
    NOW,
    decided,
    findings,
    host_event,
    knob_change,
    make_plan,
    measurement,
    new_run,
    sample,
)
from tests.fleetexp.store.single import end_period, save_observations, start_period
from tests.fleetexp.store.survey_rows import a_fleet


def summary(mean: float) -> Summary:
    """As of a counter where it is one: the period has 30 s."""
    about = {"variance": 0.5, "minimum": mean - 1, "maximum": mean + 1, "p50": mean, "p99": mean}
    return Summary(n=30, mean=mean, rise=30 * mean, **about)


def calls(function: TracedFunction, cause: SplitCause | None, number: int, seconds: float | None) -> TracedCalls:
    timed = 0 if seconds is None else number
    longest = None if cause else 0.25
    return TracedCalls(
        function=function,
        program="python",
        cause=cause,
        calls=number,
        timed=timed,
        seconds=seconds,
        longest_seconds=longest,
    )


TRACED = (
    calls(TracedFunction.SPLIT_PUD, SplitCause.FORK, 4, 0.5),
    calls(TracedFunction.SPLIT_PUD, SplitCause.SMAPS_READER, 2, None),
    calls(TracedFunction.SPLIT_PMD, SplitCause.MUNMAP, 1, 0.1),
    calls(TracedFunction.FAULT_PUD, None, 3, 0.6),
)


@pytest.fixture
def run_id(store: Store) -> int:
    """A run with one complete period, one broken, knobs put back on h1 and not on h2."""
    run_id = new_run(store, make_plan(["h1", "h2"]))
    store.set_run_state(run_id, RunState.RUNNING)
    first, second, *_ = store.periods(run_id)
    start_period(store, first.period_id, NOW, "boot-1")
    end_period(store, first.period_id, NOW + timedelta(seconds=30), PeriodState.COMPLETE)
    observed = {
        "thp_2048kB_backed_bytes": 1024.0,
        "thp_1048576kB_backed_bytes": 0.0,
        "anon_bytes": 4096.0,
        "thp_2048kB_split": 0.5,
        "thp_64kB_split_failed": 0.1,
        "thp_split_pud": 0.2,
        "thp_split_page": 0.3,
        "thp_2048kB_split_deferred": 9.0,
        "thp_2048kB_anon_fault_alloc": 3.0,
        "thp_2048kB_anon_fault_fallback": 1.0,
        "memory_free_bytes": 512.0,
        "memory_total_bytes": 2048.0,
        "memory_used_bytes": 1000.0,
        "page_table_bytes": 10.0,
        "fault_latency_seconds": 2.0,
        "agent_cpu_seconds": 0.01,
        "access_seconds": 1.5,
    }
    save_observations(store, first.period_id, {metric: summary(mean) for metric, mean in observed.items()})
    for _ in range(2):  # what is sent again is there once
        store.record_traced_calls({first.period_id: TRACED})
    start_period(store, second.period_id, NOW + timedelta(seconds=40), "boot-1")
    end_period(store, second.period_id, NOW + timedelta(seconds=50), PeriodState.INVALID, "drift", BrokenBy.HOST)
    samples = [sample(first.period_id, number) for number in (1, 2, 5)]
    store.append("h1", [*samples, measurement(first.period_id, 7)])
    store.append("h1", [replace(host_event(second.period_id, 1), taken_at=NOW + timedelta(seconds=45))])
    back = replace(knob_change("always", "inherit", at=60), reason=KnobReason.REVERT)
    store.record_knob_changes(run_id, "h1", [knob_change("inherit", "always", at=1), back])
    failed = replace(knob_change("always", "inherit", "always", at=60), error="EIO", reason=KnobReason.REVERT)
    store.record_knob_changes(run_id, "h2", [knob_change("inherit", "always", at=2), failed])
    store.save_findings(run_id, decided())
    store.record_page_surveys(a_fleet(NOW))
    return run_id


def ask(url: str, sql: str) -> list[dict[str, Any]]:
    columns, rows = query(url, sql, 1000)
    return [dict(zip(columns, row, strict=True)) for row in rows]


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.name)
def test_a_view_has_the_columns_it_documents_and_rows(run_id: int, store_url: str, view: View) -> None:
    columns, rows = query(store_url, f"select * from {view.name}", 1000)  # noqa: S608 - our names
    assert columns == list(view.columns)
    assert rows
    assert view.question.endswith("?")


def test_run_summary_says_what_was_run_and_decided(run_id: int, store: Store, store_url: str) -> None:
    store.set_run_state(run_id, RunState.COMPLETED, "done")
    (row,) = ask(store_url, "select * from run_summary")
    assert (row["run_id"], row["experiment"], row["state"], row["reason"]) == (run_id, "thp-2m", "completed", "done")
    assert (row["decision"], row["decision_reason"]) == ("better_here", "the primary metric moved")
    assert (row["hosts"], row["periods"], row["periods_complete"], row["periods_invalid"]) == (2, 4, 1, 1)
    assert (row["knob_writes"], row["design"], row["control_arm"]) == (4, "switchback", "never")
    assert 0 <= row["seconds"] < 60


def test_period_metrics_give_each_metric_of_each_period(run_id: int, store_url: str) -> None:
    (row,) = ask(store_url, "select * from period_metrics where metric = 'access_seconds'")
    assert (row["host"], row["arm"], row["stratum"], row["state"]) == ("h1", "never", "web|sku1", "complete")
    assert (row["seconds"], row["n"], row["mean"], row["maximum"]) == (30.0, 30, 1.5, 2.5)


def test_effects_give_the_lift_in_percent(run_id: int, store_url: str) -> None:
    rows = ask(store_url, "select * from effects order by headline desc")
    assert [row["headline"] for row in rows] == [1, 0]
    assert rows[0]["metric"] == "access_seconds"
    assert rows[0]["lift_percent"] == pytest.approx(-34.0)
    assert rows[0]["lift_low_percent"] == pytest.approx(-40.0)
    assert rows[0]["lift_high_percent"] is None  # unbounded there
    assert (rows[0]["lift_excludes"], rows[0]["guardrail"], rows[0]["decision"]) == (0, None, "better_here")


def test_an_effect_on_a_guardrail_carries_its_verdict(run_id: int, store: Store, store_url: str) -> None:
    estimate = replace(findings().estimates[0], metric="memory_used_bytes")
    store.save_findings(run_id, replace(findings(), estimates=(estimate,)))
    assert [row["guardrail"] for row in ask(store_url, "select * from effects")] == ["pass"]


def test_thp_backing_gives_bytes_and_share_of_every_size(run_id: int, store_url: str) -> None:
    rows = ask(store_url, "select * from thp_backing order by size_kib")
    assert [(row["size_kib"], row["backed_bytes"], row["backed_share"]) for row in rows] == [
        (2048, 1024.0, 0.25),
        (1048576, 0.0, 0.0),
    ]
    assert rows[0]["anon_bytes"] == 4096.0


def test_split_rates_tell_sizes_from_totals(run_id: int, store_url: str) -> None:
    rows = {row["metric"]: row for row in ask(store_url, "select * from split_rates")}
    assert set(rows) == {"thp_2048kB_split", "thp_64kB_split_failed", "thp_split_pud", "thp_split_page"}
    assert (rows["thp_2048kB_split"]["size_kib"], rows["thp_2048kB_split"]["splits"]) == (2048, 15.0)
    assert rows["thp_2048kB_split"]["backed_bytes"] == 1024.0
    assert (rows["thp_64kB_split_failed"]["size_kib"], rows["thp_64kB_split_failed"]["backed_bytes"]) == (64, None)
    assert (rows["thp_split_pud"]["size_kib"], rows["thp_split_pud"]["backed_bytes"]) == (None, None)


def test_split_causes_stand_beside_what_the_kernel_counted_and_stalls_apart(run_id: int, store_url: str) -> None:
    rows = ask(store_url, "select * from split_causes order by metric, splits desc")
    columns = ("metric", "cause", "program", "splits", "splits_counted", "splits_timed", "seconds_lost", "seconds")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("thp_split_pmd", "munmap", "python", 1.0, None, 1.0, 0.1, 30.0),
        ("thp_split_pud", "fork", "python", 4.0, 6.0, 4.0, 0.5, 30.0),
        ("thp_split_pud", "smaps_reader", "python", 2.0, 6.0, 0.0, None, 30.0),
    ]
    (stall,) = ask(store_url, "select * from stalls")
    waited = ("function", "program", "calls", "seconds_lost", "longest_seconds")
    assert tuple(stall[name] for name in waited) == ("fault_pud", "python", 3, 0.6, 0.25)


def test_the_views_know_each_split_by_its_counter() -> None:
    assert {f"thp_{function}" for function in COUNTED_AS} == set(COUNTED_AS.values())
    for view in (SPLIT_CAUSES, STALLS):
        assert f"IN ({', '.join(repr(str(function)) for function in COUNTED_AS)})" in view.sql


def test_knob_audit_says_which_host_was_put_back(run_id: int, store_url: str) -> None:
    rows = ask(store_url, "select * from knob_audit order by host, changed_at")
    assert [(row["host"], row["reason"], row["restored"]) for row in rows] == [
        ("h1", "apply", "yes"),
        ("h1", "revert", "yes"),
        ("h2", "apply", "no"),
        ("h2", "revert", "no"),
    ]
    assert (rows[0]["knob"], rows[0]["found"], rows[0]["last"]) == (KNOB, "inherit", "inherit")
    assert (rows[2]["found"], rows[2]["last"], rows[3]["error"]) == ("inherit", "always", "EIO")


def test_host_timeline_is_everything_in_the_order_of_time(run_id: int, store_url: str) -> None:
    rows = ask(store_url, "select * from host_timeline where host = 'h1' order by at")
    assert [row["what"] for row in rows] == [
        "period started",
        "knob written",
        "period ended",
        "period started",
        "drift",
        "period ended",
        "knob written",
    ]
    assert rows[0]["detail"] == "never, measure, block 0"
    assert rows[5]["detail"] == "always, measure, invalid: drift"
    assert rows[1]["detail"] == f"{KNOB}: inherit -> always (apply)"
    failed = ask(store_url, "select * from host_timeline where host = 'h2' order by at desc")[0]
    assert failed["detail"] == f"{KNOB}: always -> always (revert), failed: EIO"
    assert [row["what"] for row in ask(store_url, "select * from host_timeline where host = '' order by at")] == [
        "launched",
        "state",
    ]


def test_period_quality_says_how_each_period_was_sampled(run_id: int, store_url: str) -> None:
    good, broken, *rest = ask(store_url, "select * from period_quality order by period_id")
    assert (good["samples"], good["longest_gap_seconds"], good["sample_every_seconds"]) == (3, 3.0, 1.0)
    assert (good["seconds"], good["planned_seconds"], good["reason"]) == (30.0, 30.0, "")
    assert (broken["state"], broken["reason"], broken["samples"]) == ("invalid", "drift", 0)
    assert broken["longest_gap_seconds"] is None
    assert [row["state"] for row in rest] == ["planned", "planned"]


def test_metric_series_finds_a_metric_wherever_it_is_kept(run_id: int, store_url: str) -> None:
    def series(metric: str) -> list[tuple[int, float]]:
        rows = ask(store_url, f"select * from metric_series where metric = '{metric}' order by sequence")  # noqa: S608
        return [(row["sequence"], row["value"]) for row in rows]

    assert series("pgfault") == [(1, 10.0), (2, 20.0), (5, 50.0)]  # a column of its own
    assert series("thp_64kB_split") == [(1, 1.0), (2, 2.0), (5, 5.0)]  # in `extra`
    assert series("access_seconds") == [(7, 1.5)]  # what a workload reported
    assert series("dtlb_load_misses") == []  # not available there: no row, no zero


def test_fault_outcomes_set_successes_against_the_state_of_the_memory(run_id: int, store_url: str) -> None:
    (row,) = ask(store_url, "select * from fault_outcomes")
    assert (row["size_kib"], row["allocated"], row["fallbacks"], row["charge_refusals"]) == (2048, 90.0, 30.0, None)
    assert (row["success_share"], row["memory_free_share"], row["uptime_seconds"]) == (0.75, 0.25, 1001.0)
    assert (row["fault_p99_seconds"], row["fault_maximum_seconds"]) == (2.0, 3.0)


def test_memory_and_agent_cost_are_shares_of_what_there_is(run_id: int, store_url: str) -> None:
    (row,) = ask(store_url, "select * from memory_cost")
    assert (row["memory_used_bytes"], row["page_table_share"], row["oom_kills"]) == (1000.0, 0.01, None)
    (row,) = ask(store_url, "select * from agent_cost")
    assert (row["cpu_seconds"], row["cpu_share"], row["rss_bytes"]) == (pytest.approx(0.3), 0.01, None)


def test_host_restores_say_which_host_reads_as_found_and_how_long_that_took(run_id: int, store_url: str) -> None:
    back, left = ask(store_url, "select * from host_restores order by host")
    assert (back["host"], back["restored"], back["knobs_not_restored"], back["last_reason"]) == (
        "h1",
        "yes",
        0,
        "revert",
    )
    assert back["restore_seconds"] == 10.0  # the last period ended at 50 s, the write was made at 60 s
    assert (left["restored"], left["knobs_not_restored"], left["failed_writes"]) == ("no", 1, 1)


def test_host_state_names_the_worst_that_holds(run_id: int, store: Store, store_url: str) -> None:
    def states() -> list[str]:
        return [row["state"] for row in ask(store_url, "select * from host_state order by host")]

    assert states() == ["done", "waiting"]
    period_id = next(period.period_id for period in store.periods(run_id) if period.host == "h2")
    start_period(store, period_id, NOW, "boot-1")
    assert states() == ["done", "measuring"]
    end_period(store, period_id, NOW + timedelta(seconds=1), PeriodState.COMPLETE)
    assert states() == ["done", "between periods"]
    store.record_event(run_id, EventKind.HOST_LOST, "no answer", host="h1")
    assert states() == ["lost", "between periods"]
    store.record_event(run_id, EventKind.HOST_BACK, "", host="h1")
    assert states() == ["done", "between periods"]
    store.set_run_state(run_id, RunState.RESTORE_INCOMPLETE, "not restored: h2")
    assert states() == ["done", "not restored"]
    store.record_knob_changes(
        run_id, "h2", [replace(knob_change("always", "inherit", at=99), reason=KnobReason.RESTORE)]
    )
    assert states() == ["done", "stopped"]


def test_guardrail_looks_give_verdict_margin_and_change(run_id: int, store: Store, store_url: str) -> None:
    estimate = replace(findings().estimates[0], metric="memory_used_bytes")
    store.save_findings(run_id, replace(findings(), estimates=(estimate,)))
    (row,) = ask(store_url, "select * from guardrail_looks")
    assert (row["metric"], row["verdict"], row["margin_percent"]) == ("memory_used_bytes", "pass", 10.0)
    assert row["lift_percent"] == pytest.approx(-34.0)


def test_decisions_give_the_parts_of_each_arm(run_id: int, store_url: str) -> None:
    sql = "select arm, decision, cause, about, preferred, hosts, host_names from decisions order by arm"
    about = {"about": '["memory_used_bytes"]', "cause": "better", "hosts": 2, "host_names": '["h1","h2"]'}
    assert ask(store_url, sql) == [
        {"arm": "always", "decision": "better_here", "preferred": 1, **about},
        {"arm": "madvise", "decision": "inconclusive", "preferred": 0, **about},
    ]


@pytest.mark.postgresql
def test_every_column_of_a_view_is_of_the_kind_it_is_said_to_be(migrated_database: str) -> None:
    names = {
        "int8": "whole number",
        "int4": "whole number",
        "text": "text",
        "timestamptz": "instant",
        "float8": "number",
        "json": "document",
    }
    with psycopg.connect(migrated_database) as connection:
        for view in VIEWS:
            cursor = connection.execute(f"select * from {view.name} limit 0")  # noqa: S608 - our names
            found = {column.name: column.type_display for column in cursor.description or ()}
            kinds = {name: connection.adapters.types[kind].name for name, kind in found.items()}
            assert {name: names[kind] for name, kind in kinds.items()} == {
                name: view.kind(name).value for name in view.columns
            }, view.name


def test_every_column_of_every_table_says_what_it_means() -> None:
    for table in Base.metadata.sorted_tables:
        assert table.comment, table.name
        for column in table.columns:
            assert column.comment, f"{table.name}.{column.name}"


def test_the_dictionary_names_every_view_table_and_column() -> None:
    page = render_dictionary()
    for view in VIEWS:
        assert f"### {view.name}\n\n{view.question}" in page
        assert all(f"| `{column}` | " in page for column in view.columns)
    for table in Base.metadata.sorted_tables:
        assert f"### {table.name}\n\n{table.comment}" in page
    assert (Path(__file__).parents[3] / "docs" / "DATA.md").read_text() == page, (
        "write it again: its first lines say how"
    )
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert all(line.replace("\\|", "").count("|") == 4 for line in rows)


@pytest.mark.postgresql
def test_postgresql_carries_the_meanings_as_comments(migrated_database: str) -> None:
    with psycopg.connect(migrated_database) as connection:
        found = dict(
            connection.execute(
                "select c.relname || '.' || a.attname, col_description(c.oid, a.attnum) from pg_attribute a "
                "join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace "
                "where n.nspname = 'public' and a.attnum > 0 and c.relkind in ('r', 'p', 'v')"
            ).fetchall()
        )
    for view in VIEWS:
        assert {name: found[f"{view.name}.{name}"] for name in view.columns} == dict(view.columns)
    for table in Base.metadata.sorted_tables:
        assert all(found[f"{table.name}.{column.name}"] == column.comment for column in table.columns)
