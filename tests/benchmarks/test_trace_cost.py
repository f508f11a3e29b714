"""What a trace adds to the pointer chase, beside the floor of two plain rounds: in a guest that counts instructions.

An emulated guest's time is other people's load. So QEMU counts instructions and makes the guest's clock of them
(-icount): what is compared is how many were executed, which tells what a trace adds, not what a real CPU takes for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.lab.conftest import run_in_guest
from tests.lab.guest_trace_cost import PAGE_KIB, REGION_BYTES, ROUNDS

pytestmark = [pytest.mark.benchmark, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1500)]

BLOCKS, LARGEST = 40, 0.01
TIMES = ("fault-in", "pointer chase")


def interval(ratios: np.ndarray) -> tuple[float, float, float]:
    """Median of ratios less 1, with the limits of its 95 % bootstrap interval."""
    drawn = np.random.default_rng(1).choice(ratios, size=(4000, len(ratios)))
    low, high = np.quantile(np.median(drawn, axis=1), (0.025, 0.975))
    return float(np.median(ratios)) - 1, float(low) - 1, float(high) - 1


def test_a_trace_costs_the_pointer_chase_less_than_one_percent(tmp_path: Path) -> None:
    seen = run_in_guest(
        tmp_path / "guest", "guest_trace_cost.py", str(BLOCKS), memory="2GiB", limit_seconds=1400, counted=True
    )
    assert seen["faults"] >= BLOCKS * (REGION_BYTES >> 10) // PAGE_KIB, "not every fault was traced"
    print(f"\n{BLOCKS} blocks of {', '.join(ROUNDS)}: median ratio to plain, less 1, with its 95 % interval")
    found = {}
    for place, what in enumerate(TIMES):
        seconds = {name: np.array([block[name][place] for block in seen["blocks"]]) for name in ROUNDS}
        for name in ("traced", "plain again"):
            found[what, name] = interval(seconds[name] / seconds["plain"])
            print(f"{what}, {name}: {', '.join(f'{100 * one:+.3f} %' for one in found[what, name])}")
    floor = max(map(abs, found["pointer chase", "plain again"]))
    assert floor < LARGEST, f"the floor is {100 * floor:.2f} %: this guest can't tell 1 %"
    assert found["pointer chase", "traced"][2] < LARGEST
