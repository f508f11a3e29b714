"""docs/RETROSPECTIVE.md is true: its example runs, and finds what was planted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analysis.retrospective.verdicts import MarginStanding, RetrospectiveFindings, RetrospectiveVerdict
from analysis.retrospective.wording import verdict_label

PAGE = (Path(__file__).parents[2] / "docs" / "RETROSPECTIVE.md").read_text()


@pytest.fixture(scope="module")
def found() -> RetrospectiveFindings:
    namespace: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE):
        exec(compile(block, "RETROSPECTIVE.md", "exec"), namespace)  # noqa: S102 - what the page is for
    findings = namespace["found"]
    assert isinstance(findings, RetrospectiveFindings)
    return findings


@pytest.mark.parametrize(
    ("metric", "planted"), [("throughput", 0.059), ("memory_used_bytes", 233 / 217 - 1), ("dtlb_load_misses", -0.26)]
)
def test_the_example_finds_what_was_planted(found: RetrospectiveFindings, metric: str, planted: float) -> None:
    row = found.metric(metric).headline
    assert row is not None
    assert row.lift_interval is not None
    assert row.lift_interval.low is not None
    assert row.lift_interval.high is not None
    assert row.lift_interval.low < planted < row.lift_interval.high
    assert row.lift_interval.high - row.lift_interval.low < 0.03


def test_the_example_finds_the_memory_in_big_pages(found: RetrospectiveFindings) -> None:
    row = found.metric("backed_bytes").headline
    assert row is not None
    assert row.difference == pytest.approx(68e9, rel=0.02)


def test_the_example_ends_as_the_page_says(found: RetrospectiveFindings) -> None:
    assert found.verdict is RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT
    assert [one.standing for one in found.guardrails] == [MarginStanding.WITHIN]
    assert "NOT RANDOMISED" in found.html
    assert "NOT RANDOMISED" in found.markdown
    assert "NOT RANDOMISED" in found._repr_html_()


def test_the_page_names_every_verdict_and_fits_on_a_screen_or_two() -> None:
    assert re.findall(r"^\| ((?:consistent|not|assumptions)[\w ]+) \|", PAGE, re.MULTILINE) == [
        verdict_label(verdict) for verdict in RetrospectiveVerdict
    ]
