"""Write the stores that later releases must upgrade and go on with, once a schema.

    python -m tests.migrations.freeze 0008

schema-0008.db has rows of every kind, interrupted-0008.db.gz runs whose orchestrator was lost.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd

from agents.messages import Arm
from agents.simulated import Refuse
from analysis.aggregate import Summary
from analysis.findings import analyze
from analysis.plan import AssignedUnit, Crossing, Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Findings
from fleetexp.control.progress import Progress
from fleetexp.domain import Design, PeriodKind, PeriodPlan, PeriodState, RunState, StagePlan, UnitPlan
from fleetexp.process_identity import this_process
from fleetexp.store.store import Store, open_store
from tests.analysis import fleet_data, switchback_data
from tests.fleetexp.simulated_runs import KNOB as BIG_PAGES
from tests.fleetexp.simulated_runs import run_simulated, spec
from tests.fleetexp.store.rows import (
    KNOB,
    NOW,
    facts,
    findings,
    host_event,
    knob_change,
    make_plan,
    measurement,
    new_run,
    sample,
)
from tests.fleetexp.store.single import end_period, record_host_facts, save_observations, start_period
from tests.fleetexp.store.survey_rows import a_fleet

RAMP = spec(
    stages="[{hosts: 2, hold: 1m}, {share: 100%, hold: 4m}]",
    guardrails="[{metric: memory_used_bytes, worse: increase, margin: 50%}]",
).replace("sample_every: 10s", "sample_every: 30s")
SWITCHBACK = spec(design="switchback", stages="", baseline="", blocks="measure: 1m, blocks: 3, ")
REFUSES, STOPPED_AT_SECONDS = "sim-0001", 180.0


def freeze(path: Path) -> None:
    """Make a small store with a row or more in every table, and with findings of every kind that the analysis makes."""
    path.unlink(missing_ok=True)
    with contextlib.closing(open_store(f"sqlite:///{path}")) as store:
        run_id = new_run(store, make_plan(["h1", "h2"]))
        period_id = store.periods(run_id)[0].period_id
        record_host_facts(store, run_id, facts())
        store.record_knob_changes(
            run_id, "h1", [knob_change("inherit", "always"), knob_change("always", "inherit", at=9)]
        )
        start_period(store, period_id, NOW, "boot-1")
        samples = [sample(period_id, number) for number in (1, 2, 3)]
        store.append("h1", [*samples, measurement(period_id, 101), host_event(period_id, 102)])
        end_period(store, period_id, NOW + timedelta(seconds=30), PeriodState.COMPLETE)
        summary = Summary(n=1, mean=1.0, variance=0.0, minimum=1.0, maximum=1.0, p50=1.0, p99=1.0)
        save_observations(store, period_id, {"pgfault": replace(summary, rise=30.0), "access_seconds": summary})
        store.save_findings(run_id, findings())
        store.record_page_surveys(a_fleet(NOW))
        store.set_run_state(run_id, RunState.COMPLETED)
        _harmful(store)
        _two_arms(store)
        _switchback(store)
    _in_one_file(path)


def freeze_interrupted(path: Path) -> None:
    """Make a store of two runs that lost their orchestrator: 1 in the second stage of a ramp, 2 while it was aborted.

    A copy of what is committed at that moment is what a killed orchestrator leaves; the run itself goes on elsewhere.
    """
    path.unlink(missing_ok=True)
    refusal = {REFUSES: (Refuse(knob=BIG_PAGES, number=errno.EINVAL),)}
    for text, hosts, faults, state in ((RAMP, 4, refusal, RunState.RUNNING), (SWITCHBACK, 1, {}, RunState.HALTING)):
        with tempfile.TemporaryDirectory() as folder:
            own = Path(folder) / path.name
            if path.exists():
                shutil.copyfile(path, own)
            watch = _Copy(state, own, path)
            run_simulated(own.parent, text, hosts=hosts, faults=faults, observer=watch, store_url=f"sqlite:///{own}")
            assert watch.done, f"the run was never {state.value} then"
    own = this_process()
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table, column in (("run", "launched_by"), ("run", "reason"), ("event", "detail"), ("period", "reason")):
            connection.execute(f"UPDATE {table} SET {column} = replace({column}, ?, 'ops@head pid 1')", (own,))  # noqa: S608
    _in_one_file(path)


class _Copy:
    """Watches a run; copies its store once it is so far, and in this state."""

    def __init__(self, state: RunState, own: Path, copy: Path) -> None:
        self.done = False
        self._state, self._own, self._copy = state, own, copy

    def __call__(self, progress: Progress) -> None:
        if self.done or progress.elapsed_seconds < STOPPED_AT_SECONDS:
            return
        if progress.state is self._state:
            self.done = True
            with (
                contextlib.closing(sqlite3.connect(self._own)) as own,
                contextlib.closing(sqlite3.connect(self._copy)) as copy,
            ):
                own.backup(copy)
        elif self._state is RunState.HALTING:
            os.kill(os.getpid(), signal.SIGTERM)


def _in_one_file(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # nothing beside it
        connection.execute("VACUUM")


def _run(store: Store, name: str, units: tuple[UnitPlan, ...], arms: tuple[str, ...], found: Findings) -> int:
    """Enter a parallel run that was measured, but for its last period, which was invalid; and what was found."""
    plan = replace(
        make_plan(),
        design=Design.PARALLEL,
        arms=tuple(Arm(name=arm, knobs={} if place == 0 else {KNOB: "always"}) for place, arm in enumerate(arms)),
        control=arms[0],
        units=units,
        stages=(StagePlan(index=0, hosts=len(units), hold_seconds=0.0),),
        workloads={},
    )
    run_id = new_run(store, plan, name)
    *measured, broken = store.periods(run_id)
    for record in measured:
        start_period(store, record.period_id, NOW, "boot-1")
        end_period(store, record.period_id, NOW + timedelta(seconds=30), PeriodState.COMPLETE)
    end_period(store, broken.period_id, NOW, PeriodState.INVALID, "host lost: gone")
    store.save_findings(run_id, found)
    store.set_run_state(run_id, RunState.COMPLETED)
    return run_id


def _units(strata: tuple[str, ...], arms: tuple[str, ...]) -> tuple[UnitPlan, ...]:
    return tuple(
        UnitPlan(
            host=f"h{place:04d}",
            stratum=stratum,
            arm=arm,
            stage=0,
            periods=(PeriodPlan(index=0, kind=PeriodKind.MEASURE, arm=arm, block=0, stage=0, seconds=30.0),),
        )
        for place, (arm, stratum) in enumerate(zip(arms, strata, strict=True))
    )


def _harmful(store: Store) -> None:
    """A fleet in matched pairs over two strata that loses hosts, with an exposure and a guardrail that fails."""
    hosts = fleet_data.fleet(30, 30, strata=2)
    draw, treated = np.random.default_rng(5), hosts.is_treated()
    before = 100 + draw.normal(0, 5, 60)
    dose = np.where(treated, 8 + draw.normal(0, 1, 60), draw.uniform(0, 1, 60))
    rows = hosts.observations(
        {
            "throughput": before + 5 * treated + draw.normal(0, 1, 60),
            "backed": dose,
            "latency": 1 + treated + before / 1e3,
        },
        {"throughput": before},
    )
    lost = [f"h{place:04d}" for place in range(44, 60)]
    rows = rows[~(rows["host"].isin(lost) & (rows["kind"] == "measure"))]
    units = tuple(
        AssignedUnit(host=unit.host, stratum=unit.stratum, arm=unit.arm, pair=f"pair-{place % 30}")
        for place, unit in enumerate(hosts.units)
    )
    rail = GuardrailPlan(metric="latency", worse=Direction.INCREASE, margin=0.05)
    plan = fleet_data.plan(
        metrics=(
            *fleet_data.PLAN.metrics,
            MetricPlan(name="latency", unit="seconds", role=Role.GUARDRAIL, better=Direction.DECREASE),
            MetricPlan(name="backed", unit="bytes", role=Role.EXPOSURE),
        ),
        guardrails=(rail,),
        units=units,
        method="matched_pairs",
    )
    run_id = _run(store, "harmful", _units(hosts.strata, hosts.arms), plan.arms, analyze(rows, plan))
    crossing = Crossing(metric="latency", arm="treatment", host="h0044", detail="3 reached the tripwire 1")
    store.record_crossing(run_id, rail, crossing, stage=0, at=NOW)


def _two_arms(store: Store) -> None:
    """Two treatments, one of them better, the other not told apart from the control."""
    arms = ("control",) * 10 + ("large",) * 10 + ("huge",) * 10
    hosts = fleet_data.Fleet(arms=arms, strata=("pool-0",) * 30)
    values = 100 + np.random.default_rng(3).normal(0, 1, 30) + 10 * hosts.is_treated("huge")
    plan = fleet_data.plan(arms=("control", "large", "huge"), units=hosts.units)
    found = analyze(hosts.observations({"throughput": values}), plan)
    _run(store, "two-arms", _units(hosts.strata, hosts.arms), plan.arms, found)


def _switchback(store: Store) -> None:
    """One host, eight blocks, no clear change."""

    def noise(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        return 1.0 + float(draw.normal(0, 0.1))

    rows: pd.DataFrame = switchback_data.switchback({"latency": noise})
    run_id = new_run(store, make_plan(["h1"]), "switchback")
    store.save_findings(run_id, analyze(rows, switchback_data.PLAN))
    store.set_run_state(run_id, RunState.COMPLETED)


if __name__ == "__main__":
    freeze(Path(__file__).parent / f"schema-{sys.argv[1]}.db")
    with tempfile.TemporaryDirectory() as folder:
        interrupted = Path(folder) / "interrupted.db"
        freeze_interrupted(interrupted)
        packed = gzip.compress(interrupted.read_bytes(), mtime=0)
    (Path(__file__).parent / f"interrupted-{sys.argv[1]}.db.gz").write_bytes(packed)
