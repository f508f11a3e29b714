"""The catalogue as a page for people: docs/METRICS.md is this text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agents.catalogue.derived import DERIVED, DERIVED_PATTERNS, DerivedMetric
from agents.catalogue.metric import Metric
from agents.catalogue.patterns import PATTERNS
from agents.catalogue.table import CATALOGUE

_INTRODUCTION = """\
# Metrics

This page is generated from `agents/catalogue`; a test keeps it current. To write it again:

    python -c 'from agents.catalogue import render_catalogue as r; print(r(), end="")' > docs/METRICS.md

A **counter** only rises while a host is up: a period's value is its last reading minus its first. A **gauge** is a
level: a period's value is the mean over its samples. A source that a host does not have makes its metrics *absent*
there, with a reason; they are never zero. "Column" marks the metrics with a column of their own in the `sample` table.
"""


def render_catalogue() -> str:
    """Return the catalogue as Markdown."""
    parts = [_INTRODUCTION, "## Read on every host where the source exists\n", *_table(CATALOGUE.values())]
    parts += ["\n## Named after what the host has\n", "| name | example | unit | kind | source | meaning |"]
    parts.append("|---|---|---|---|---|---|")
    for pattern in PATTERNS:
        match = pattern.expression.fullmatch(pattern.example)
        assert match is not None, pattern.shape  # noqa: S101  a defect of the table, found by its test
        one = pattern.describe(match)
        cells = (f"`{pattern.shape}`", f"`{one.name}`", one.unit, str(one.kind), one.source, one.meaning)
        parts.append(_row(cells))
    parts += ["\n## Derived\n", "| name | unit | over | formula | meaning | better |", "|---|---|---|---|---|---|"]
    parts += [_derived_row(metric, metric.name) for metric in DERIVED.values()]
    for family in DERIVED_PATTERNS:
        argument = "dtlb_load_misses" if "event" in family.shape else "2048"
        parts.append(_derived_row(family.make(argument), family.shape))
    return "\n".join(parts) + "\n"


def _table(metrics: Iterable[Metric]) -> Iterator[str]:
    yield "| name | unit | kind | better | column | source | meaning |"
    yield "|---|---|---|---|---|---|---|"
    for one in metrics:
        mark = "yes" if one.column else ""
        yield _row((f"`{one.name}`", one.unit, str(one.kind), one.better or "", mark, one.source, one.meaning))


def _derived_row(metric: DerivedMetric, name: str) -> str:
    top = " ".join(f"{weight:+g} x {term}" for term, weight in metric.numerator)
    bottom = " ".join(f"{weight:+g} x {term}" for term, weight in metric.denominator)
    formula = f"({top}) / ({bottom})" if bottom else top
    if metric.scale != 1.0:
        formula = f"{metric.scale:g} x {formula}"
    return _row((f"`{name}`", metric.unit, str(metric.kind), f"`{formula}`", metric.meaning, metric.better or ""))


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
