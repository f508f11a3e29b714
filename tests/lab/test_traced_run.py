"""On a real kernel with 1 GB pages: a run that traces tells in store and report who split which pages, and why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from fleetexp.cli.main import cli
from tests.lab.split_causes import copy_on_write, program_of
from tests.lab.splitting_service import CAUSES, ROUNDS

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(1500)]

Guest = Callable[..., dict[str, Any]]
COUNTER = "thp_split_pud"
# Program -> why its pages of 1 GB are split: the copy of a fork does it already, not the write after it.
NAMED = {program_of("pud", cause): "fork" if cause is copy_on_write else cause.__name__ for cause in CAUSES}


def report(database: Path, *words: str) -> str:
    """What the command prints of the run that a guest left in its share."""
    shown = CliRunner().invoke(cli, ["report", "--store", f"sqlite:///{database}", *words])
    assert shown.exit_code == 0, shown.output
    return shown.stdout


def test_a_traced_run_names_in_store_and_report_who_split_1g_pages_and_why(guest: Guest, tmp_path: Path) -> None:
    seen = guest("guest_traced_run.py", memory="6GiB", cpu_model="max,-erms", limit_seconds=1400)

    assert seen["run"]["code"] == 0, seen["run"]
    assert seen["knobs_after"] == seen["knobs_before"]
    assert (seen["left_over"], seen["incomplete"]) == ([], [])
    measured = {arm: p for p, arm, kind, state in seen["periods"] if (kind, state) == ("measure", "complete")}
    assert set(measured) == {"small", "big"}

    assert dict(seen["rounds"]) == {"small": ROUNDS, "big": ROUNDS}
    samples = {arm: [count for p, count in seen["samples"] if p == period] for arm, period in measured.items()}
    rise = {arm: counts[-1] - counts[0] for arm, counts in samples.items()}
    assert rise == {"small": 0, "big": len(NAMED) * ROUNDS}
    assert rise["big"] == seen["after"][COUNTER] - seen["before"][COUNTER]

    told = {("big", cause, program): ROUNDS for program, cause in NAMED.items()}
    in_store = [row for row in seen["splits"] if row[3] == COUNTER]
    assert {(arm, cause, program): splits for _, arm, _, _, cause, program, splits, _ in in_store} == told
    assert {(row[0], row[-1]) for row in in_store} == {(measured["big"], rise["big"])}

    database = tmp_path / "guest/share/fleetexp.db"
    document = json.loads(report(database, "--json", "--html", str(tmp_path / "report.html")))
    in_report = [row for row in document["caused_splits"] if row["metric"] == COUNTER]
    assert {(row["arm"], row["cause"], row["program"]): row["splits"] for row in in_report} == told
    (counted,) = (row for row in document["splits_counted"] if row["metric"] == COUNTER)
    assert (counted["arm"], counted["traced"], counted["counted"]) == ("big", rise["big"], rise["big"])
    split = {(row["arm"], row["splits"]) for row in document["mapping_splits"] if row["metric"] == COUNTER}
    assert split == {("small", 0), ("big", rise["big"])}
    markdown, html = report(database, "--markdown"), (tmp_path / "report.html").read_text().replace("<wbr>", "")
    for program, cause in NAMED.items():
        assert f"| big | `{COUNTER}` | {cause} | `{program}` | {ROUNDS} |" in markdown
        assert any(all(text in row for text in (COUNTER, cause, f"{program}</code>")) for row in html.split("<tr"))
