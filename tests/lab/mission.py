"""The mission, whole: a fleet of one guest with 1 GB pages, a switchback over Ray, PostgreSQL, a report."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fleetexp.lab import lab as labs
from fleetexp.lab.machine import Hardware, KernelImage
from fleetexp.store.store import open_store
from tests.postgresql_server import Server, programs
from tests.ray_cluster import PROJECT, until

SPEC = """\
name: mission-1g
hypothesis: an experiment over a Ray cluster reaches a kernel with 1 GB pages and says what it did
design: switchback
population: {pools: [lab]}
control: small
arms:
  small: {thp/1048576kB/enabled: never, thp/2048kB/enabled: always}
  big: {thp/1048576kB/enabled: always, thp/2048kB/enabled: always}
assignment: {seed: 4}
periods: {washout: 1s, measure: 30s, blocks: 2, sample_every: 1s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 120s, max_failed_hosts: 1}
"""
# What the kernel has counted and how its knob reads: as the guest joins, and once more when it is asked for.
COUNTED = """\
big=/sys/kernel/mm/transparent_hugepage/hugepages-1048576kB
seen() {
    grep thp_split_pud /proc/vmstat
    for name in anon_fault_alloc anon_fault_fallback split; do echo "$name $(cat $big/stats/$name)"; done
    echo "knob $(cat $big/enabled)"
}
seen >/mnt/share/before
(until [ -e /mnt/share/count ]; do sleep 1; done; seen >/mnt/share/new; mv /mnt/share/new /mnt/share/after) &
"""
JOIN_SECONDS, RUN_SECONDS = 900, 1800


@contextlib.contextmanager
def database() -> Iterator[str]:
    """A PostgreSQL server of our own for as long as it is needed; yields the URL of an empty database."""
    found = programs()
    assert found is not None, "PostgreSQL is not installed"
    server = Server(found)
    server.start()
    try:
        yield server.by_socket(server.new_database())
    finally:
        server.stop("immediate")
        server.remove()


def run_words(folder: Path, spec: str, store: str) -> list[str]:
    """The command that runs an experiment over the cluster that it is told of; the spec is written to the folder."""
    path = folder / "spec.yaml"
    path.write_text(spec)
    return ["run", str(path), "--fleet", "ray", "--store", store, "--reports", str(folder / "reports"), "--json"]


def answer(code: int, out: str, err: str) -> dict[str, Any]:
    """A run's exit code, the object printed, and what went to stderr."""
    found = json.loads(out) if out.strip() else {}
    assert "state" in found, f"there was no run: exit code {code}, {found}, {err[-4000:]}"
    return {"code": code, "out": found, "err": err[-4000:]}


def run_in(record: labs.LabRecord, folder: Path, spec: str, store: str) -> dict[str, Any]:
    """Run an experiment on the lab's hosts."""
    words = [sys.executable, "-m", "fleetexp", *run_words(folder, spec, store)]
    done = subprocess.run(
        labs.entering(record, words),
        env={**labs.environment(record), "PYTHONPATH": str(PROJECT)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    return answer(done.returncode, done.stdout, done.stderr)


def noted(guest: labs.Guest, name: str) -> dict[str, Any]:
    """What the guest has left on its share: its counters and its knob, before or after."""
    lines = dict(line.split(" ", 1) for line in (guest.share / name).read_text().splitlines())
    return {"knob": lines.pop("knob"), "counters": {key: int(value) for key, value in lines.items()}}


def mission(folder: Path, kernel: KernelImage) -> dict[str, Any]:
    """Carry the mission out; returns the kernel's counters, what is stored, the run's answer and the times."""
    took: dict[str, float] = {}
    start = time.monotonic()
    plan = labs.LabPlan(
        kernel=kernel,
        hardware=Hardware(memory_bytes=8 * 2**30),
        hosts=1,
        prepare=COUNTED,
        timeout_seconds=JOIN_SECONDS,
    )
    with database() as url:
        record = labs.boot(folder / "lab", plan)
        took["the guest has joined"] = time.monotonic() - start
        try:
            start = time.monotonic()
            run = run_in(record, folder, SPEC, url)
            took["the run"] = time.monotonic() - start
            (guest,) = record.guests
            (guest.share / "count").touch()
            until((guest.share / "after").exists, 60, "the guest has counted")
            seen = {name: noted(guest, name) for name in ("before", "after")}
        finally:
            labs.stop(folder / "lab")
        stored: dict[str, Any] = {}
        with contextlib.closing(open_store(url, create=False)) as store:
            stored["allocated"] = store.select(
                "SELECT p.arm, max(s.thp_1048576kb_anon_fault_alloc) - min(s.thp_1048576kb_anon_fault_alloc),"
                " max(s.thp_split_pud) - min(s.thp_split_pud), count(*) FROM period p"
                " JOIN sample s ON s.period_id = p.period_id"
                " WHERE p.kind = 'measure' AND p.state = 'complete' GROUP BY p.period_id, p.arm ORDER BY p.period_id"
            )
            stored["backed"] = store.select(
                "SELECT arm, max(maximum) FROM period_metrics WHERE metric = 'thp_1048576kB_backed_bytes'"
                " AND kind = 'measure' AND state = 'complete' GROUP BY arm ORDER BY arm"
            )
            stored["not_restored"] = store.select("SELECT count(*) FROM knob_audit WHERE restored = 'no'")[0][0]
    return {
        "run": run,
        **seen,
        "stored": stored,
        "report": [str(path) for path in (folder / "reports").glob("*.html")],
        "seconds": {what: round(seconds, 1) for what, seconds in took.items()},
    }
