"""Runs inside the guest: `fleetexp conform` on a size, what the host reads before and after, and what was stored.

    python guest_conform.py RESULT.json --size 1GiB

Not a test itself: `test_conform.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.lab.guest_swap import swap_on

THP = Path("/sys/kernel/mm/transparent_hugepage")
CGROUPS = Path("/sys/fs/cgroup/cgroup.subtree_control")


def knobs() -> dict[str, str]:
    files = [THP / "enabled", THP / "defrag", *sorted(THP.glob("hugepages-*/enabled"))]
    return {str(path.relative_to(THP)): path.read_text().strip() for path in files}


def main() -> None:
    result, words = Path(sys.argv[1]), sys.argv[2:]
    os.chdir("/run")
    os.environ["FLEETEXP_TIMEOUT_FACTOR"] = "10"  # emulated, on a busy machine, Python itself takes its time
    with contextlib.suppress(OSError):
        CGROUPS.write_text("+memory")
    swap_on("3G")
    before = knobs()
    command = [sys.executable, "-m", "fleetexp", "conform", *words, "--format", "json", "--store", "sqlite:///c.db"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = {
        "code": done.returncode,
        "found": json.loads(done.stdout) if done.stdout.strip() else None,
        "error": done.stderr[-3000:],
        "before": before,
        "after": knobs(),
    }
    with contextlib.closing(sqlite3.connect("c.db")) as database:
        said["stored"] = [
            list(row) for row in database.execute("SELECT scenario, verdict, cause FROM conformance_result")
        ]
        said["trials"] = [list(row) for row in database.execute("SELECT ended_at, given_up FROM conformance")]
    result.write_text(json.dumps(said))


if __name__ == "__main__":
    main()
