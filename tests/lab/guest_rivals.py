"""Runs inside the guest: three ways to big memory under pressure, to the report, and the kernel's counters around it.

    python guest_rivals.py RESULT.json

Not a test itself: `test_rivals.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.lab.guest_experiment import counters, fleetexp, knobs, stored

SHIPPED = Path(__file__).resolve().parents[2] / "configs/rivals-under-pressure.yaml"
POOL = Path("/sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages")
STORE = ("--store", "sqlite:///fleetexp.db")


def available_kib() -> int:
    """MemAvailable."""
    lines = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    return int(lines["MemAvailable"].split()[0])


def main() -> None:
    os.chdir("/run")
    os.environ["PATH"] += ":/bin"
    os.environ["FLEETEXP_TIMEOUT_FACTOR"] = "4"
    # As shipped, but one turn through the arms, a pass in each: emulation takes its time.
    spec = SHIPPED.read_text().replace("blocks: 8", "blocks: 1").replace("repeats: 3", "repeats: 1")
    spec = spec.replace("measure: 20s", "measure: 120s").replace("washout: 2s", "washout: 1s")
    Path("spec.yaml").write_text(spec)
    result: dict[str, Any] = {"knobs_before": knobs(), "pool_before": POOL.read_text(), "available": available_kib()}
    result["before"] = counters()
    result["run"] = fleetexp("run", "spec.yaml", "--fleet", "inline", *STORE)
    result["after"] = counters()
    result["knobs_after"], result["pool_after"] = knobs(), POOL.read_text()
    result["available_after"] = available_kib()
    result["oom_kills"] = Path("/proc/vmstat").read_text().split("oom_kill ")[1].split()[0]
    if Path("fleetexp.db").exists():
        result["periods"] = stored("SELECT period_id, arm, kind, state, reason FROM period ORDER BY period_id")
        result["observations"] = stored(
            "SELECT p.arm, o.metric, o.n, o.mean, o.p50, o.p99, o.maximum FROM observation o"
            " JOIN period p ON p.period_id = o.period_id WHERE p.kind = 'measure' AND p.state = 'complete'"
            " AND o.metric IN ('granted_share', 'pages_asked', 'pages_granted', 'fault_latency_seconds',"
            " 'fault_seconds', 'memory_used_bytes', 'memory_available_bytes') ORDER BY p.arm, o.metric"
        )
        result["changes"] = stored("SELECT knob, before, wanted, after, reason, error FROM knob_change")
        shutil.copy("fleetexp.db", "/mnt/share")
    Path(sys.argv[1]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
