"""What a notebook shows: the decision and the effects it is made from, small, escaped, readable in a browser."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd

import fleetexp
from analysis.report.notebook import findings_fragment
from analysis.results import Check, Findings
from tests.browser import accessibility_faults, find_chromium

HOSTILE = "<script>alert(1)</script>&\u202e"


def found(arm: str = "2m", metric: str = "rate", hosts: int = 24) -> Findings:
    rows = [(f"web-{n}", arm if n % 2 else "4k", metric, 100 + n % 5 + 20 * (n % 2)) for n in range(hosts)]
    frame = pd.DataFrame(rows, columns=["host", "arm", "metric", "value"])
    return fleetexp.analyze(frame, control="4k", better="increase", assigned="at random")


def test_it_says_what_is_decided_and_from_which_effects() -> None:
    shown = found()._repr_html_()
    text = re.sub(r"<[^>]+>", " ", shown)
    for word in ("ship", "rate rose by", "2m", "[+", "nothing in them shows that"):
        assert word in text
    assert len(shown) < 5_000


def test_foreign_text_is_text() -> None:
    shown = found(arm=HOSTILE, metric=HOSTILE)._repr_html_()
    assert "<script" not in shown and "\u202e" not in shown
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&amp;⟨U+202E⟩" in shown


def test_many_rows_and_many_doubts_stay_few_lines() -> None:
    one = found()
    many = replace(
        one,
        estimates=one.estimates * 40,
        checks=tuple(Check(name=f"check {n}", passed=False, p_value=None, detail="It failed.") for n in range(30)),
    )
    shown = findings_fragment(many)
    assert shown.count("<tr>") == 13
    assert shown.count("<li>") == 6
    assert "26 more in .checks and .warnings" in shown
    assert f"{40 * len(one.estimates) - 12} more rows in .estimates" in shown


def test_without_effects_it_says_so() -> None:
    assert "No effect could be estimated." in findings_fragment(replace(found(), estimates=()))


def test_nothing_stands_in_the_way_of_a_reader(tmp_path: Path) -> None:
    head = "<!DOCTYPE html><html lang='en'><head><title>a notebook</title></head>"
    page = f"{head}<body><main>{found()._repr_html_()}</main></body></html>"
    for dark in (False, True):
        assert accessibility_faults(find_chromium(), tmp_path, page, dark=dark) == []
