"""Both renderings hold everything, in order, escaped, and the same each time."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import analysis.report
from analysis.errors import BadObservations
from analysis.report import ReportInput, UnavailableMetric, render_html, render_markdown
from analysis.report.escaping import one_line, visible
from analysis.report.html import page_as_html
from analysis.report.sections import page
from analysis.results import Decision, Findings

HOSTILE = (
    "</title></style><script>alert(1)</script>",
    "<img src=x onerror=alert(1)> & &amp; \"'",
    "'); DROP TABLE sample; --",
    "{{ 7 * 7 }}{% raw %}",
    "| a | b |\n|---|---|\n```\n# heading\n- item",
    "\u202egnp.exe \x1b[31m\x00\ud800 \u200b",
    "$x^2$ \\frac{1}{2}",
    "試験 עברית",
)
PLAIN = "plain"
RENDER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
ANYTHING = st.text(alphabet=st.characters(codec=None), min_size=1, max_size=60)


def with_text(value: Any, text: str) -> Any:  # noqa: ANN401 - any field of any dataclass
    """The same value with every free text in it replaced."""
    if isinstance(value, Enum):
        return value
    if isinstance(value, str):
        return text
    if isinstance(value, tuple):
        return tuple(with_text(item, text) for item in value)
    if isinstance(value, dict):
        return {with_text(key, text): with_text(item, text) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        kept = {"state", "kind", "design", "unit", "decision"}
        changed = {
            item.name: with_text(getattr(value, item.name), text) for item in fields(value) if item.name not in kept
        }
        return replace(value, **changed)
    return value


def outside_charts(names: list[str]) -> list[str]:
    """Tag names without those of charts, where labels come and go with the room they have."""
    return [name for name in names if name in STRUCTURE]


STRUCTURE = frozenset(
    (
        "html", "head", "body", "header", "main", "section", "table", "thead", "tbody", "tr", "th", "td", "pre", "code",
        "h1", "h2", "h3", "p", "ul", "li", "dl", "svg", "figure", "details", "small", "script", "img", "iframe", "link",
        "a", "b",
    )
)  # fmt: skip


def without_code(names: list[str]) -> list[str]:
    """Tag names of a Markdown rendering: a cell with a pipe in it is text where another is a code span."""
    return [name for name in names if name not in {"code", "pre"}]


# ---------------------------------------------------------------------------- hostile text
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_place_changes_no_markup(
    content: ReportInput, samples: ModuleType, reading: type, text: str
) -> None:
    plain = _plain_document(samples, reading)
    hostile = reading(render_html(with_text(content, text)))
    assert outside_charts(hostile.names()) == plain
    assert hostile.misnested == []
    assert hostile.text.count(visible(text)) >= 100


@settings(max_examples=25)
@given(text=ANYTHING)
def test_any_text_is_read_back_from_the_page(samples: ModuleType, reading: type, text: str) -> None:
    found = reading(page_as_html(page(with_text(samples.sample(), text)), {}))
    assert found.misnested == []
    if text.strip():
        assert outside_charts(found.names()) == _plain_page(samples, reading)
        assert visible(text).strip("\n") in found.text


@settings(max_examples=25)
@given(text=ANYTHING)
def test_any_text_is_read_back_from_markdown(samples: ModuleType, reading: type, text: str) -> None:
    shown = one_line(text)
    found = reading(RENDER.render(render_markdown(with_text(samples.sample(), text))))
    if shown:
        assert without_code(found.names()) == _plain_markdown(samples, reading)
        assert shown in " ".join(found.text.split())


@cache
def _plain_document(samples: ModuleType, reading: type) -> list[str]:
    return outside_charts(reading(render_html(with_text(samples.sample(), PLAIN))).names())


@cache
def _plain_page(samples: ModuleType, reading: type) -> list[str]:
    return outside_charts(reading(page_as_html(page(with_text(samples.sample(), PLAIN)), {})).names())


@cache
def _plain_markdown(samples: ModuleType, reading: type) -> list[str]:
    return without_code(reading(RENDER.render(render_markdown(with_text(samples.sample(), PLAIN)))).names())


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_every_place_of_markdown(content: ReportInput, reading: type, text: str) -> None:
    found = reading(RENDER.render(render_markdown(with_text(content, text))))
    assert {"script", "img", "a"}.isdisjoint(found.names())
    assert " ".join(found.text.split()).count(one_line(text)) >= 100


def test_hostile_text_in_every_place_of_several_arms(samples: ModuleType, reading: type) -> None:
    content = samples.three_arm_sample()
    plain = outside_charts(reading(page_as_html(page(with_text(content, PLAIN)), {})).names())
    for text in HOSTILE:
        shown = page(with_text(content, text))
        assert len(shown.rulings) == 2
        found = reading(page_as_html(shown, {}))
        assert (outside_charts(found.names()), found.misnested) == (plain, [])
        marked = reading(RENDER.render(render_markdown(with_text(content, text))))
        assert {"script", "img", "a"}.isdisjoint(marked.names())


# ---------------------------------------------------------------------------- one file, for everybody
def test_document_loads_nothing_and_needs_no_script(document: str, reading: type) -> None:
    found = reading(document)
    assert {"script", "link", "img", "iframe", "object", "embed", "base", "form"}.isdisjoint(found.names())
    for tag, attributes in found.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in {"href", "src", "xlink:href"}:
                assert value is not None and value.startswith("#"), (tag, value)
    assert re.findall(r"url\((?!#)|@import|https?://", document) == []
    policies = [attributes.get("content") for _, attributes in found.tags if "http-equiv" in attributes]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_ids_are_unique_and_every_reference_meets_one(document: str, reading: type) -> None:
    found = reading(document)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {
        value[1:] for _, attributes in found.tags for name, value in attributes.items() if name == "href" and value
    }
    wanted |= set(re.findall(r"url\(#([^)]+)\)", document))
    for _, attributes in found.tags:
        wanted |= set((attributes.get("aria-labelledby") or "").split())
    assert wanted <= set(ids)


def test_document_has_landmarks_and_named_tables(document: str, reading: type) -> None:
    found = reading(document)
    names = found.names()
    for landmark in ("header", "main", "footer", "nav", "h1"):
        assert names.count(landmark) == 1
    assert names.count("table") == names.count("caption") == names.count("thead")
    assert all(attributes.get("scope") in {"col", "row"} for tag, attributes in found.tags if tag == "th")
    assert ("html", {"lang": "en"}) in found.tags


def test_every_chart_has_title_and_description(document: str, reading: type) -> None:
    found = reading(document)
    charts = [attributes for tag, attributes in found.tags if tag == "svg"]
    assert len(charts) == 5  # three metrics, the lifts, the timeline
    assert all(chart["role"] == "img" for chart in charts)
    ids = {attributes.get("id") for _, attributes in found.tags}
    for chart in charts:
        assert set((chart["aria-labelledby"] or "").split()) <= ids
    assert "block 0: never 133 ms, always 88.9 ms" in found.text


def test_a_metric_that_was_0_throughout_gets_no_picture(content: ReportInput, document: str) -> None:
    flat = replace(content.findings.contrasts[0], metric="splits_of_nothing", control_value=0.0, treatment_value=0.0)
    rows = (*content.findings.contrasts, flat)
    with_flat = replace(content, findings=replace(content.findings, contrasts=rows))
    assert render_html(with_flat).count("<svg") == document.count("<svg")


def test_sections_stand_in_their_order(document: str, reading: type) -> None:
    found = reading(document)
    order = [attributes["id"] for tag, attributes in found.tags if tag == "section"]
    assert order == [
        "grounds", "effects", "lifts", "trade", "guardrails", "questions", "exposure", "kernel", "series", "blocks",
        "timeline", "excluded", "checks", "estimates", "environment", "reproduce", "sources",
    ]  # fmt: skip
    assert found.text.index("better here.") < found.text.index("What changed")


def test_equal_input_gives_equal_bytes(content: ReportInput, document: str) -> None:
    assert render_html(content) == document
    assert render_markdown(content) == render_markdown(content)


def test_report_is_small_and_quick(content: ReportInput, document: str) -> None:
    spent = []  # what is imported, `document` has imported
    while min(spent, default=1.0) >= 1.0 and len(spent) < 3:
        start = time.process_time()
        render_html(content)
        spent.append(time.process_time() - start)
    assert min(spent) < 1.0
    assert len(document.encode()) < 500_000


def test_matplotlib_is_loaded_only_when_something_is_drawn() -> None:
    code = "import sys, analysis.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_are_there() -> None:
    for name in analysis.report.__all__:
        assert hasattr(analysis.report, name)


# ---------------------------------------------------------------------------- what it says
def test_markdown_holds_the_published_shape(content: ReportInput) -> None:
    text = render_markdown(content)
    assert "| metric | never (control) | always | change \\[95 % interval\\] |\n|:---|---:|---:|:---|\n" in text
    assert "| `chase_access_seconds` time for all accesses | 134 ms | 88 ms | **34 % faster** \\[−36 %" in text  # noqa: RUF001
    assert "**Decision: better here.**" in text


def test_unavailable_is_said_with_its_reason_and_is_not_zero(content: ReportInput) -> None:
    text = render_markdown(content)
    line = next(line for line in text.splitlines() if line.startswith("| `dtlb_load_misses_per_kilo"))
    assert "unavailable: this virtual machine has no hardware counters" in line
    assert " 0 " not in line


def test_report_of_a_run_without_data_still_stands(content: ReportInput, reading: type) -> None:
    findings = Findings(
        decision=Decision.INCONCLUSIVE, reason="No block was completed.", estimates=(), guardrails=(),
        checks=(), contrasts=(), excluded=(), alpha=0.05,
    )  # fmt: skip
    empty = replace(
        content, findings=findings, state="failed", started_at=None, ended_at=None, spec="", versions={}, command="",
        environment=(), arms=(), periods=(), knob_changes=(), events=(), exposure=(), notes=(), suggestions=(),
        hypothesis="", unavailable=(UnavailableMetric(metric="dtlb", reason="ENOENT"),),
    )  # fmt: skip
    found = reading(render_html(empty))
    assert "svg" not in found.names()
    for said in (
        "No effect could be estimated.", "No knob was written.", "names no guardrails", "unavailable: ENOENT",
        "No integrity check was made.", "assigned must not be read as received", "not recorded", "unknown",
    ):  # fmt: skip
        assert said in found.text
    assert "No effect could be estimated." in render_markdown(empty)
    nothing = replace(empty, unavailable=())
    assert "unavailable" not in reading(render_html(nothing)).text


def test_naive_instant_is_refused_with_a_remedy(content: ReportInput) -> None:
    naive = replace(content, started_at=datetime(2026, 2, 2))  # noqa: DTZ001
    with pytest.raises(BadObservations, match=r"2026-02-02T00:00:00.*give aware UTC"):
        render_html(naive)


def test_instants_are_shown_in_utc(content: ReportInput, samples: ModuleType) -> None:
    from datetime import timezone

    east = samples.START.astimezone(timezone(timedelta(hours=9)))
    assert "2026-02-02 10:00:00 UTC" in render_markdown(replace(content, started_at=east))
    assert samples.START.tzinfo is UTC
