"""The rollout report: one HTML file, Markdown, and the table of effects that the command line shares."""

from __future__ import annotations

from analysis.report.content import (
    ArmRow,
    EventRow,
    ExposureRow,
    KnobRow,
    MetricNote,
    PeriodRow,
    ReportInput,
    SqlSuggestion,
    UnavailableMetric,
)
from analysis.report.effects import EffectRow, Outcome, effect_rows
from analysis.report.html import render_html
from analysis.report.markdown import render_markdown

__all__ = [
    "ArmRow",
    "EffectRow",
    "EventRow",
    "ExposureRow",
    "KnobRow",
    "MetricNote",
    "Outcome",
    "PeriodRow",
    "ReportInput",
    "SqlSuggestion",
    "UnavailableMetric",
    "effect_rows",
    "render_html",
    "render_markdown",
]
