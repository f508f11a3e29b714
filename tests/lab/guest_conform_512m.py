"""Runs inside an arm64 guest with 64 KiB pages: every scenario with pages of 512 MiB, and what the switch reads.

Not a test itself: `test_conform_512m.py` boots the guest, runs this in it and judges what it printed. It needs only the
agent, which is plain Python.
"""

from __future__ import annotations

import base64
import os
import pickle
from contextlib import suppress
from pathlib import Path

from agents.conformance.registry import SCENARIOS
from agents.conformance.runner import conform
from agents.conformance.verdict import ScenarioResult
from agents.timeouts import VARIABLE

MARK = "conformance: "
SIZE_KIB = 524288
SWITCH = Path(f"/sys/kernel/mm/transparent_hugepage/hugepages-{SIZE_KIB}kB/enabled")


def _tell(result: ScenarioResult) -> None:
    print(f"{result.seconds:7.1f} s {result.verdict:5} {result.name} {result.cause} {result.detail}", flush=True)  # noqa: T201


def main() -> None:
    os.environ[VARIABLE] = "10"  # under emulation Python itself takes its time
    with suppress(OSError):
        Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    before = SWITCH.read_text()
    found = conform(SIZE_KIB, SCENARIOS, owner="lab", limit_seconds=900, told=_tell)
    result = {"found": found, "before": before, "after": SWITCH.read_text()}
    print(MARK + base64.b64encode(pickle.dumps(result)).decode())  # noqa: T201


if __name__ == "__main__":
    main()
