"""On a real kernel with 1 GB transparent huge pages: what the store says is what the kernel counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1600)]

Guest = Callable[..., dict[str, Any]]
GIB = 2**30
ALLOC, SPLIT_PUD = 1, 2  # columns of the samples


def risen(samples: list[list[Any]], period_id: int, column: int) -> int:
    """Last minus first of a counter over one period, from the samples as stored."""
    values = [row[column] for row in samples if row[0] == period_id and row[column] is not None]
    assert len(values) >= 2, f"period {period_id} has {len(values)} samples of it"
    return int(values[-1] - values[0])


def test_an_experiment_on_1g_pages_agrees_with_the_kernel_and_splits_nothing(guest: Guest) -> None:
    seen = guest("guest_experiment.py", memory="8GiB", limit_seconds=1500)

    sizes = {size["size_kib"]: size for size in seen["doctor"]["out"]["facts"]["thp_sizes"]}
    assert sizes[1048576]["effective"] == "never"
    assert sizes[2048]["effective"] == "always"  # 'inherit' from a top level of 'always'

    assert seen["run"]["code"] == 0, seen["run"]["err"]
    assert seen["run"]["out"]["state"] == "completed"
    assert seen["knobs_after"] == seen["knobs_before"]
    measured = [(p, arm) for p, arm, kind, state, _ in seen["periods"] if (kind, state) == ("measure", "complete")]
    assert sorted(arm for _, arm in measured) == ["big", "big", "small", "small"]

    kernel = {name: seen["after"][name] - seen["before"][name] for name in seen["before"]}
    stored = {arm: [risen(seen["samples"], p, ALLOC) for p, own in measured if own == arm] for arm in ("small", "big")}
    assert stored["small"] == [0, 0]
    assert sum(stored["big"]) == kernel["anon_fault_alloc"] == 2

    backed = {p: (mean, most) for p, _, metric, _, mean, most in seen["observations"] if "backed" in metric}
    for period, arm in measured:
        assert backed[period][1] == (GIB if arm == "big" else 0)

    splits = [risen(seen["samples"], p, SPLIT_PUD) for p, _ in measured]
    assert splits == [0, 0, 0, 0], "sampling split the pages that it looks at"
    assert kernel["thp_split_pud"] == 0
    per_period = {p: sum(1 for row in seen["samples"] if row[0] == p) for p, _ in measured}
    assert min(per_period.values()) >= 5, "too few samples for the claim that sampling splits nothing"


def test_a_kernel_without_1g_pages_is_refused_clearly_and_left_alone(guest: Guest) -> None:
    seen = guest("guest_experiment.py", cpu_model="max,-pdpe1gb")
    assert seen["has_1g"] is False
    assert seen["run"]["code"] == 1
    assert "thp/1048576kB/enabled" in seen["run"]["out"]["error"]["what"]
    assert "periods" not in seen  # refused before anything was stored
    assert seen["knobs_after"] == seen["knobs_before"]
    assert all(size["size_kib"] != 1048576 for size in seen["doctor"]["out"]["facts"]["thp_sizes"])
