"""From the store to all estimates, against the bare read: the driver alone, fetching the same rows and no more.

The store aggregates when a period ends: what the analysis reads is one row per period and metric, not the samples.
2,000 hosts x 2 periods x 40 metrics (160,000 rows, of 4 million samples' worth). Interleaved rounds, ratios within a
round, their median.
"""

from __future__ import annotations

import contextlib
import sqlite3
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import psycopg
import pytest

from analysis import analyze
from analysis.aggregate import Summary
from analysis.plan import AnalysisPlan, AssignedUnit, MetricPlan, Role
from fleetexp.domain import Design, PeriodKind, PeriodPlan, PeriodState, Plan
from fleetexp.store.records import PeriodEnd, PeriodStart
from fleetexp.store.store import Store, open_store
from tests.fleetexp.store.rows import NOW, make_plan, new_run
from tests.postgresql_server import Server

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]
HOSTS, METRICS, ROUNDS = 2_000, 40, 5
MOST_TIMES_BARE = 3.0
QUERY = (
    "SELECT o.period_id, o.metric, o.n, o.mean, o.variance, o.minimum, o.maximum, o.p50, o.p99 FROM observation o"
    " JOIN period p ON p.period_id = o.period_id WHERE p.run_id = 1 ORDER BY o.period_id, o.metric"
)


def fleet_plan() -> Plan:
    """A parallel design: each host has a baseline and a measurement."""
    base = make_plan([f"h{number:04d}" for number in range(HOSTS)])
    units = []
    for number, unit in enumerate(base.units):
        arm = ("never", "always")[number % 2]
        periods = (
            PeriodPlan(index=0, kind=PeriodKind.BASELINE, arm="never", block=-1, stage=0, seconds=600.0),
            PeriodPlan(index=1, kind=PeriodKind.MEASURE, arm=arm, block=0, stage=0, seconds=600.0),
        )
        units.append(replace(unit, arm=arm, periods=periods))
    return replace(base, design=Design.PARALLEL, units=tuple(units))


def fill(store: Store, plan: Plan) -> int:
    run_id = new_run(store, plan)
    draw = np.random.default_rng(0)
    ids = [record.period_id for record in store.periods(run_id)]
    for start in range(0, len(ids), 500):
        piece = ids[start : start + 500]
        values = draw.normal(100, 10, (len(piece), METRICS)).tolist()
        store.save_many_observations(
            {
                period_id: {
                    f"m{place:02d}": Summary(n=1000, mean=v, variance=1.0, minimum=v - 3, maximum=v + 3, p50=v, p99=v)
                    for place, v in enumerate(row)
                }
                for period_id, row in zip(piece, values, strict=True)
            }
        )
    store.start_periods([PeriodStart(period_id=one, started_at=NOW, boot_id="boot-1") for one in ids])
    end = NOW + timedelta(minutes=10)
    store.end_periods([PeriodEnd(period_id=one, ended_at=end, state=PeriodState.COMPLETE) for one in ids])
    return run_id


def analysis_plan(plan: Plan) -> AnalysisPlan:
    return AnalysisPlan(
        design="parallel",
        control="never",
        arms=("never", "always"),
        metrics=tuple(MetricPlan(name=f"m{place:02d}", unit="", role=Role.SECONDARY) for place in range(METRICS)),
        units=tuple(AssignedUnit(host=unit.host, stratum=unit.stratum, arm=unit.arm) for unit in plan.units),
    )


def compare(database: str, store: Store, bare: Callable[[], int]) -> None:
    plan = fleet_plan()
    run_id = fill(store, plan)
    ours: list[float] = []
    whole: list[float] = []
    bare_seconds: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        assert bare() == 2 * HOSTS * METRICS
        floor = time.perf_counter() - begun
        begun = time.perf_counter()
        frame = store.observations(run_id)
        read = time.perf_counter() - begun
        found = analyze(frame, analysis_plan(plan))
        total = time.perf_counter() - begun
        assert len(frame) == 2 * HOSTS * METRICS
        assert sum(row.headline for row in found.estimates) == METRICS
        bare_seconds.append(floor)
        ours.append(read / floor)
        whole.append(total / floor)
    print(
        f"\n{database}: bare read {statistics.median(bare_seconds) * 1e3:.0f} ms; "
        f"observations {statistics.median(ours):.2f}x; to all estimates {statistics.median(whole):.2f}x"
    )
    assert statistics.median(ours) <= MOST_TIMES_BARE


def test_sqlite_observations_against_the_bare_read(tmp_path: Path) -> None:
    path = tmp_path / "fleet.db"
    with contextlib.closing(open_store(f"sqlite:///{path}")) as store, contextlib.closing(sqlite3.connect(path)) as raw:
        compare("sqlite", store, lambda: len(raw.execute(QUERY).fetchall()))


@pytest.mark.postgresql
def test_postgresql_observations_against_the_bare_read(postgresql: Server) -> None:
    url = postgresql.new_database()
    with contextlib.closing(open_store(url)) as store, psycopg.connect(url) as raw:
        compare("postgresql", store, lambda: len(raw.execute(QUERY).fetchall()))
