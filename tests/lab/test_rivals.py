"""On a real kernel with 1 GB pages, its memory under pressure: three ways to big memory, side by side in the report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleetexp.cli.main import cli

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1800)]

Guest = Callable[..., dict[str, Any]]
ARMS = {"thp-2m": 1024, "thp-1g": 2, "hugetlb-1g": 2}  # arm -> pages of a pass over 2 GiB


def report(database: Path) -> str:
    """The report of the run that a guest left in its share, as Markdown."""
    shown = CliRunner().invoke(cli, ["report", "--store", f"sqlite:///{database}", "--markdown"])
    assert shown.exit_code == 0, shown.output
    return shown.output


def test_three_arms_under_pressure_stand_side_by_side_in_the_report(guest: Guest, tmp_path: Path) -> None:
    seen = guest("guest_rivals.py", memory="6GiB", limit_seconds=1700)

    assert seen["run"]["code"] == 0, seen["run"]
    assert seen["knobs_after"] == seen["knobs_before"]
    assert seen["pool_after"] == seen["pool_before"] == "0\n"
    assert seen["oom_kills"] == "0"
    assert seen["available_after"] > 0.9 * seen["available"], "the pressure outlived the run"
    measured = [arm for _, arm, kind, state, _ in seen["periods"] if (kind, state) == ("measure", "complete")]
    assert sorted(measured) == sorted(ARMS)

    told = {(arm, metric): figures for arm, metric, *figures in seen["observations"]}
    for arm, pages in ARMS.items():
        (passes, asked, *_), (_, given, *_) = told[arm, "pages_asked"], told[arm, "pages_granted"]
        assert asked == pages
        assert told[arm, "granted_share"][1] == given / asked
        readings, _, median, most, worst = told[arm, "fault_latency_seconds"]
        assert readings == passes * pages
        assert 0 < median <= most <= worst <= told[arm, "fault_seconds"][1] * 1.01
        # A fill of 60 %, of which 40 % went back, lay over the whole of the period.
        assert told[arm, "memory_used_bytes"][1] > 0.3 * seen["available"] * 1024
    kernel = {name: seen["after"][name] - seen["before"][name] for name in seen["before"]}
    assert told["thp-1g", "pages_granted"][1] == kernel["anon_fault_alloc"]
    assert told["thp-1g", "pages_asked"][1] - told["thp-1g", "pages_granted"][1] <= kernel["anon_fault_fallback"]
    grown = {after for knob, before, wanted, after, *_ in seen["changes"] if (before, wanted) == ("0", "2")}
    assert {float(pages) for pages in grown} == {told["hugetlb-1g", "pages_granted"][1]}

    page = report(tmp_path / "guest/share/fleetexp.db")
    table = page[page.index("Side by side") :]
    for arm in ARMS:
        given = told[arm, "granted_share"][1]
        row = next(line for line in table.splitlines() if line.startswith(f"| {arm} "))
        assert f"{100 * given:.3g} %" in row
        assert row.count("s |") >= 4, "four times stand beside each other"
