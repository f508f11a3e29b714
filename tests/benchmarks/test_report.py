"""How long a report takes and how large it is, beside the bare reading of what it is made from."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import numpy as np
import pytest

from analysis import analyze
from analysis.aggregate import Summary
from analysis.report import render_html
from fleetexp.domain import PeriodState, RunState
from fleetexp.experiment import analysis_plan, parse_experiment
from fleetexp.experiment.schedule import assigned_units, host_info, make_plan
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store
from tests.fleetexp.reporting.fleet_run import SPEC, surveyed_hosts
from tests.fleetexp.store.rows import NOW
from tests.fleetexp.store.single import end_period, save_observations, start_period

HOSTS, METRICS = 2_000, 40
MOST_BYTES = 5_000_000


@pytest.mark.benchmark
@pytest.mark.timeout(900)
def test_a_report_on_2000_hosts_and_40_metrics(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    own = [f"metric_{place:02d}" for place in range(METRICS - 4)]
    text = SPEC.replace("secondary: [", f"secondary: [{', '.join(own)}, ").replace(
        "  better:",
        "  sources:\n"
        + "".join(f"    {name}: {{prometheus: 'http://127.0.0.1:9/metrics'}}\n" for name in own)
        + "  better:",
    )
    experiment = parse_experiment(text)
    plan = make_plan(experiment, [host_info(one) for one in surveyed_hosts(HOSTS, draw)])
    names = [*own, "throughput", "memory_used_bytes", "page_table_bytes", "thp_1048576kB_backed_bytes"]
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'large.db'}")) as store:
        run_id = store.create_run(
            experiment_name="large", hypothesis="", spec_text=text, spec_json={}, plan=plan, launched_by="bench",
            versions={}, fleet="ray",
        )  # fmt: skip
        for record in store.periods(run_id):
            values = 1000 * np.exp(draw.normal(0, 0.1, len(names)))
            start_period(store, record.period_id, NOW, "boot")
            save_observations(
                store, record.period_id, {name: _summary(x) for name, x in zip(names, values, strict=True)}
            )
            end_period(store, record.period_id, NOW, PeriodState.COMPLETE)
        findings = analyze(
            store.observations(run_id), analysis_plan(experiment, assigned_units(plan)), store.periods_frame(run_id)
        )
        store.save_findings(run_id, findings)
        store.set_run_state(run_id, RunState.COMPLETED)
        start = time.perf_counter()
        store.observations(run_id)
        floor = time.perf_counter() - start
        start = time.perf_counter()
        content = report_content(store, run_id)
        read = time.perf_counter() - start
        page = render_html(content)
        whole = time.perf_counter() - start
    print(
        f"\nreport on {HOSTS} hosts x {METRICS} metrics: {whole:.1f} s ({read:.1f} s of it reading), "
        f"{whole / floor:.1f} times the bare reading of all observations; {len(page.encode()) / 1e6:.2f} MB"
    )
    assert len(page.encode()) < MOST_BYTES


def _summary(value: float) -> Summary:
    return Summary(
        n=60, mean=float(value), variance=1.0, minimum=float(value) - 1, maximum=float(value) + 1, p50=float(value),
        p99=float(value) + 0.9,
    )  # fmt: skip
