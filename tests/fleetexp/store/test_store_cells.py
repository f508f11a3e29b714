"""Several orchestrators (cells) with one PostgreSQL database: none locks another up, and nothing gets mixed up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetexp.store.store import check, query
from tests.postgresql_server import Server

pytestmark = [pytest.mark.postgresql, pytest.mark.slow]

CELLS, TURNS, HOSTS = 4, 4, 200
# Every cell launches the same spec, at the same moment, with hosts of its own and some that others name too, given in
# another order; the wait is as short as a run's. Each then stores its turns, every second one twice.
CELL = """
import contextlib, json, random, sys
from fleetexp.domain import RunState
from fleetexp.store.store import open_store
from tests.fleetexp.store.rows import host_event, knob_change, make_plan, measurement, new_run, sample

url, cell, turns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
names = [f"shared-{number:03}" for number in range(100)] + [f"cell-{cell}-{number:03}" for number in range(100)]
random.Random(cell).shuffle(names)
with contextlib.closing(open_store(url, create=False, wait_seconds=0.5)) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    run_id = new_run(store, make_plan(names, blocks=2))
    periods = {record.host: record.period_id for record in store.periods(run_id) if record.plan.index == 0}
    new = 0
    for turn in range(1, turns + 1):
        batches = {
            host: [
                sample(period_id, 3 * turn), measurement(period_id, 3 * turn + 1), host_event(period_id, 3 * turn + 2)
            ]
            for host, period_id in periods.items()
        }
        with store.together():
            store.set_run_state(run_id, RunState.RUNNING, f"turn {turn}")
            store.record_many_knob_changes(run_id, {host: [knob_change("a", "b", at=turn)] for host in periods})
            new += store.append_many(batches)
        if turn % 2:
            new += store.append_many(batches)
    store.set_run_state(run_id, RunState.COMPLETED)
    print(json.dumps({"run_id": run_id, "new": new}), flush=True)
"""


def test_cells_that_launch_and_store_at_once_neither_lock_up_nor_mix(
    postgresql: Server, migrated_database: str
) -> None:
    url = postgresql.new_database(migrated_database)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    cells = [
        subprocess.Popen(
            [sys.executable, "-c", CELL, url, str(cell), str(TURNS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for cell in range(CELLS)
    ]
    try:
        for cell in cells:
            assert cell.stdout is not None
            assert cell.stdout.readline() == "ready\n", cell.communicate()
        for cell in cells:  # all at once
            assert cell.stdin is not None
            cell.stdin.write("\n")
            cell.stdin.flush()
        said = []
        for cell in cells:
            out, wrong = cell.communicate(timeout=100)
            assert cell.returncode == 0, wrong
            said.append(json.loads(out))
    finally:
        for cell in cells:
            cell.kill()
            cell.wait()
    assert sorted(one["run_id"] for one in said) == list(range(1, CELLS + 1))
    assert {one["new"] for one in said} == {TURNS * HOSTS * 3}
    counted = [
        ("select count(*) from experiment", 1),
        ("select count(*) from host", 100 + CELLS * 100),
        ("select count(*) from sample", CELLS * TURNS * HOSTS),
        ("select count(distinct (period_id, sequence)) from sample", CELLS * TURNS * HOSTS),
        ("select count(*) from knob_change", CELLS * TURNS * HOSTS),
        ("select count(*) from period", CELLS * HOSTS * 4),
        ("select count(*) from event where kind = 'drift'", CELLS * TURNS * HOSTS),
    ]
    assert [(sql, query(url, sql, 1)[1][0][0]) for sql, _ in counted] == counted
    assert check(url) == []
