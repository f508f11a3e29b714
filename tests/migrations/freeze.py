"""Write the store that later releases must upgrade, once a release: python -m tests.migrations.freeze VERSION."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from datetime import timedelta
from pathlib import Path

from analysis.aggregate import Summary
from fleetexp.domain import PeriodState, RunState
from fleetexp.store.store import open_store
from tests.fleetexp.store.rows import (
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


def freeze(path: Path) -> None:
    """Make a small store with a row or more in every table."""
    with contextlib.closing(open_store(f"sqlite:///{path}")) as store:
        run_id = new_run(store, make_plan(["h1", "h2"]))
        period_id = store.periods(run_id)[0].period_id
        store.record_host_facts(run_id, facts())
        store.record_knob_changes(
            run_id, "h1", [knob_change("inherit", "always"), knob_change("always", "inherit", at=9)]
        )
        store.start_period(period_id, NOW, "boot-1")
        samples = [sample(period_id, number) for number in (1, 2, 3)]
        store.append("h1", [*samples, measurement(period_id, 101), host_event(period_id, 102)])
        store.end_period(period_id, NOW + timedelta(seconds=30), PeriodState.COMPLETE)
        summary = Summary(n=1, mean=1.0, variance=0.0, minimum=1.0, maximum=1.0, p50=1.0, p99=1.0)
        store.save_observations(period_id, {"pgfault": summary, "access_seconds": summary})
        store.save_findings(run_id, findings())
        store.set_run_state(run_id, RunState.COMPLETED)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")  # one file, nothing beside it
        connection.execute("VACUUM")


if __name__ == "__main__":
    freeze(Path(__file__).parent / f"{sys.argv[1]}.db")
