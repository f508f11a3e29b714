"""What each arm's workload was given of the pages it asked for: from the run, under pressure, to the report's table."""

from __future__ import annotations

import contextlib
from pathlib import Path

from agents.simulated import MetricModel, ModelParameters
from analysis.report.sections import page
from fleetexp.reporting import report_content
from fleetexp.reporting.queries import supply
from fleetexp.store.store import open_store
from tests.fleetexp.reporting.test_traces import ARITHMETIC, untraced
from tests.fleetexp.simulated_runs import run_simulated

SPEC = """\
name: rivals
design: switchback
control: thp-2m
arms:
  thp-2m: {thp/2048kB/enabled: always}
  hugetlb-1g: {thp/2048kB/enabled: always, hugetlb/1048576kB/nr_hugepages: 100000}
periods: {washout: 10s, measure: 30s, blocks: 2, sample_every: 10s}
pressure: {fill: 60%, thin: 40%}
workload:
  page_fault: {region: 4GiB, page_size: 2MiB, whole: true, repeats: 0}
  per_arm: {hugetlb-1g: {page_size: 1GiB, backing: hugetlb, fallback: true}}
metrics: {primary: fault_seconds, secondary: [granted_share, memory_used_bytes]}
safety: {lease: 20s, on_short_pool: SHORT}
"""
STEADY = {"host_spread": 0.0, "noise": 0.0}
RESPONSE = ModelParameters(
    metrics={
        "pages_asked": MetricModel(mean=4.0, **STEADY),
        "pages_granted": MetricModel(mean=3.0, **STEADY),
        "granted_share": MetricModel(mean=0.75, **STEADY),
        "fault_latency_seconds": MetricModel(mean=0.25),
        "fault_seconds": MetricModel(mean=2.0),
    }
)


def test_arms_stand_side_by_side_and_a_pool_granted_in_part_is_one_of_them(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SPEC.replace("SHORT", "accept"), hosts=1, response_model=RESPONSE)
    with contextlib.closing(open_store(ran.url)) as store:
        content = report_content(store, ran.outcome.run_id)
        grown = {change.after for _, change in store.knob_changes(ran.outcome.run_id) if change.wanted == "100000"}
    assert content.state == "completed"
    assert all(0 < int(pages) < 100000 for pages in grown)
    assert [(row.arm, row.page_size_kib) for row in content.supplies] == [("thp-2m", 2048), ("hugetlb-1g", 1048576)]
    for row in content.supplies:
        assert row.given / row.asked == 0.75
        assert row.p50 is not None and row.p99 is not None and row.maximum is not None
        assert 0 < row.p50 <= row.p99 <= row.maximum
        assert row.region_seconds is not None and row.memory_used_bytes is not None
        rows = store.select(supply(ran.outcome.run_id))
    assert content.queries["supply"] == supply(ran.outcome.run_id)
    (table,) = [one for section in page(content).sections for one in section.tables if one.key == "supply"]
    assert table.rows
    assert [found for found in untraced(table, rows) if found.split()[0] not in {*ARITHMETIC, "75"}] == []  # a share


def test_a_pool_granted_in_part_ends_the_arm_where_nothing_else_was_said(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SPEC.replace("SHORT", "fail"), hosts=1, response_model=RESPONSE)
    with contextlib.closing(open_store(ran.url)) as store:
        errors = [change.error for _, change in store.knob_changes(ran.outcome.run_id) if change.wanted == "100000"]
    assert ran.outcome.state.value != "completed"
    assert errors and all("the kernel granted" in (error or "") for error in errors)
