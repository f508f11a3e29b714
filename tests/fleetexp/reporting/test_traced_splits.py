"""The report answers who split big pages, why, and what it cost, beside the kernel's own counters."""

from __future__ import annotations

import contextlib

import pytest

from agents.messages import HostEvent, HostEventKind
from agents.traced_calls import SplitCause, TracedCalls, TracedFunction
from analysis.report.content import ReportInput
from analysis.report.kernel_sections import big_pages
from analysis.report.questions import answers
from fleetexp.domain import PeriodKind, PeriodState
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store, query
from tests.fleetexp.reporting.fleet_run import fleet_run
from tests.fleetexp.store.rows import NOW


def forks(number: int) -> TracedCalls:
    return TracedCalls(
        function=TracedFunction.SPLIT_PUD,
        program="serve",
        cause=SplitCause.FORK,
        calls=number,
        timed=number,
        seconds=0.05 * number,
    )


FAULTS = TracedCalls(
    function=TracedFunction.FAULT_PUD,
    program="serve",
    cause=None,
    calls=2,
    timed=2,
    seconds=0.5,
    longest_seconds=0.524288,
)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ReportInput]:
    """A run in which each measured period under the treatment saw three forks split a page; one trace was cut short."""
    url = f"sqlite:///{tmp_path_factory.mktemp('traced') / 'fleet.db'}"
    with contextlib.closing(open_store(url)) as store:
        run_id = fleet_run(store, hosts=8)
        measured = [
            period
            for period in store.periods(run_id)
            if (period.plan.kind, period.plan.arm, period.state)
            == (PeriodKind.MEASURE, "treatment", PeriodState.COMPLETE)
        ]
        store.record_traced_calls({period.period_id: [forks(3), FAULTS] for period in measured})
        period = measured[0]
        lost = HostEvent(
            position=1,
            period_id=period.period_id,
            sequence=900,
            taken_at=NOW,
            kind=HostEventKind.TRACE_INCOMPLETE,
            detail="of 7 calls of split_pud the kernel kept neither program nor stack",
        )
        store.append(period.host, [lost])
        return url, report_content(store, run_id)


def test_causes_are_told_by_program_with_rate_and_time_lost(traced: tuple[str, ReportInput]) -> None:
    _, content = traced
    (row,) = content.caused_splits
    periods = row.splits / 3
    assert (row.arm, row.metric, row.cause, row.program) == ("treatment", "thp_split_pud", "fork", "serve")
    assert row.seconds_lost == pytest.approx(0.15 * periods)
    table = next(table for table in big_pages(content).tables if table.key == "split_causes")
    texts = [cell.text for cell in table.rows[0]]
    assert texts[:5] == ["treatment", "thp_split_pud", "fork", "serve", f"{row.splits:g}"]
    per_hour = row.splits / content.host_seconds["treatment"] * 3600
    assert float(texts[5].replace(",", "")) == pytest.approx(per_hour, rel=0.01)
    assert texts[7] == "50 ms"


def test_stalls_are_told_by_program_with_the_longest(traced: tuple[str, ReportInput]) -> None:
    table = next(table for table in big_pages(traced[1]).tables if table.key == "stalls")
    texts = [cell.text for cell in table.rows[0]]
    assert texts[:3] == ["treatment", "fault pud", "serve"]
    assert texts[5:] == ["250 ms", "524 ms"]


def test_what_the_counter_says_and_what_was_not_traced_is_told(traced: tuple[str, ReportInput]) -> None:
    text = " ".join(big_pages(traced[1]).paragraphs)
    assert "which rose by" in text, "five mappings were split in each period, and three splits traced"
    assert "of 7 calls of split_pud" in text


def test_the_reviewers_first_two_questions_are_answered(traced: tuple[str, ReportInput]) -> None:
    splits, latency, *_ = answers(traced[1])
    assert "fork by serve" in splits.text
    (mappings,) = (row for row in traced[1].mapping_splits if row.arm == "treatment")
    assert f"treatment: {mappings.splits:g} mappings split (thp_split_pud)" in splits.text
    assert "not measured" not in splits.text
    assert not latency.open
    assert "fault pud as traced" in latency.text


@pytest.mark.parametrize("key", ["split_causes", "splits_counted", "stalls"])
def test_the_query_behind_each_table_gives_it_again(traced: tuple[str, ReportInput], key: str) -> None:
    url, content = traced
    assert len(query(url, content.queries[key], 99)[1]) == 1
