"""Runs inside the guest: doctor, one experiment with 1 GB pages, and the kernel's own counters around it.

    python guest_experiment.py RESULT.json

Not a test itself: `test_real_1g_kernel.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

THP = Path("/sys/kernel/mm/transparent_hugepage")
BIG = THP / "hugepages-1048576kB"
SPEC = """\
name: lab-1g
design: switchback
control: small
arms:
  small: {thp/1048576kB/enabled: never, thp/2048kB/enabled: always, thp/defrag: madvise}
  big: {thp/1048576kB/enabled: always, thp/2048kB/enabled: always, thp/defrag: madvise}
assignment: {seed: 4}
periods: {washout: 1s, measure: 25s, blocks: 2, sample_every: 1s}
workload: {pointer_chase: {region: 1GiB, page_size: 1GiB, dereferences: 20000, repeats: 0, pretouch: false}}
metrics: {primary: access_nanoseconds_per_dereference, secondary: [fault_seconds]}
safety: {lease: 60s}
"""


def counters() -> dict[str, int]:
    """What the kernel has counted so far."""
    vmstat = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    names = ("anon_fault_alloc", "anon_fault_fallback", "split")
    out = {name: int((BIG / "stats" / name).read_text()) for name in names if (BIG / "stats" / name).exists()}
    out["thp_split_pud"] = int(vmstat.get("thp_split_pud", 0))
    return out


def knobs() -> dict[str, str]:
    files = [THP / "enabled", THP / "defrag", *sorted(THP.glob("hugepages-*/enabled"))]
    return {str(path.relative_to(THP)): path.read_text().strip() for path in files}


def fleetexp(*words: str) -> dict[str, Any]:
    """Run the command line; returns its exit code and the object that it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "fleetexp", *words, "--json"], capture_output=True, text=True, check=False
    )
    printed = json.loads(done.stdout) if done.stdout.strip() else None
    return {"code": done.returncode, "out": printed, "err": done.stderr[-3000:]}


def stored(sql: str) -> list[list[Any]]:
    with contextlib.closing(sqlite3.connect("fleetexp.db")) as database:
        return [list(row) for row in database.execute(sql)]


def main() -> None:
    os.chdir("/run")
    os.environ["PATH"] += ":/bin"
    result: dict[str, Any] = {"has_1g": BIG.exists(), "doctor": fleetexp("doctor"), "knobs_before": knobs()}
    Path("spec.yaml").write_text(SPEC)
    result["before"] = counters()
    result["run"] = fleetexp("run", "spec.yaml", "--fleet", "inline", "--store", "sqlite:///fleetexp.db")
    result["after"] = counters()
    result["knobs_after"] = knobs()
    if Path("fleetexp.db").exists():
        result["periods"] = stored("SELECT period_id, arm, kind, state, reason FROM period ORDER BY period_id")
        result["samples"] = stored(
            "SELECT period_id, thp_1048576kb_anon_fault_alloc, thp_split_pud FROM sample ORDER BY period_id, sequence"
        )
        result["observations"] = stored(
            "SELECT p.period_id, p.arm, o.metric, o.n, o.mean, o.maximum FROM observation o"
            " JOIN period p ON p.period_id = o.period_id WHERE p.kind = 'measure' AND o.metric IN"
            " ('thp_1048576kB_backed_bytes', 'fault_seconds', 'access_nanoseconds_per_dereference')"
        )
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
