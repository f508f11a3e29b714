"""How long `import fleetexp` takes, against an interpreter that imports nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.benchmark


def test_the_front_door_costs_next_to_nothing() -> None:
    def seconds(code: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=True)
        return time.perf_counter() - began

    turns = [(seconds("pass"), seconds("import fleetexp")) for _ in range(11)]
    ratio = statistics.median(ours / bare for bare, ours in turns)
    more = statistics.median(ours - bare for bare, ours in turns)
    print(f"\nimport fleetexp: {ratio:.2f} of a bare interpreter's start, {more * 1e3:+.1f} ms")
    assert ratio < 1.5
    assert more < 0.05
