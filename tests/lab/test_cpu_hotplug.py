"""A real kernel loses a CPU and gets it back: perf events follow, and what was lost is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lab.guest_hotplug import PAGES

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1000)]


def test_events_are_counted_on_a_cpu_that_was_away_also_where_no_sample_saw_it(
    guest: Callable[..., dict[str, Any]],
) -> None:
    seen = {one["what"]: one for one in guest("guest_hotplug.py", memory="2GiB", limit_seconds=900)["seen"]}

    def faults(before: str, after: str) -> float:
        return float(seen[after]["faults"] - seen[before]["faults"])

    assert faults("at first", "counted") >= PAGES
    assert seen["offline"]["lost"] == ["perf events of CPU 1: it went offline"]
    assert faults("back", "counted after it was back") >= PAGES
    (sentence,) = seen["away and back unseen"]["lost"]
    assert "on CPU 1: the kernel gave up page_faults" in sentence
    assert faults("the sample after it", "counted after it was away unseen") >= PAGES
    totals = [one["faults"] for one in seen.values()]
    assert totals == sorted(totals), "what was counted stays counted"
