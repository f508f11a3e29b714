"""How long `fleetexp --help` takes, against the import of the library that parses its words."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.benchmark


def test_help_answers_within_a_few_times_the_import_of_its_parser() -> None:
    def seconds(*arguments: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], capture_output=True, timeout=60, check=True)
        return time.perf_counter() - began

    ratios, ours = [], []
    for _ in range(5):
        floor = seconds("-c", "import click")
        ours.append(seconds("-m", "fleetexp", "--help"))
        ratios.append(ours[-1] / floor)
    assert statistics.median(ratios) < 4.0
    assert min(ours) < 0.3
