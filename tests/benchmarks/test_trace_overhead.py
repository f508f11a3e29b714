"""What a trace of splits and stalls costs a program that neither faults nor splits: the same chase, traced and not."""

from __future__ import annotations

import json
from statistics import median

import pytest

from tests.lab.arm_guest import run_in_arm_guest
from tests.lab.guest_trace_overhead import MARK

pytestmark = [pytest.mark.benchmark, pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]


def test_a_chase_of_pointers_is_less_than_one_percent_slower_while_it_is_traced() -> None:
    seen = json.loads(run_in_arm_guest("guest_trace_overhead.py", mark=MARK))
    assert seen["functions"] == 3
    ratio = median(seen["traced"]) / median(seen["bare"])
    print(f"traced over bare: {ratio:.4f}, of the 20 fastest of 600 slices each")
    assert ratio < 1.01
