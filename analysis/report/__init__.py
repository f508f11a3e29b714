"""The rollout report: one HTML file, Markdown, and the table of effects that the command line shares."""

from __future__ import annotations

from analysis.report.content import (
    ArmRow,
    AssignedRow,
    DoseRow,
    Doses,
    EventRow,
    ExposureRow,
    KnobRow,
    LatencyRow,
    MetricNote,
    PeriodRow,
    ReportInput,
    SeriesRow,
    SqlSuggestion,
    StageRow,
    SuccessRow,
    SupplyRow,
    UnavailableMetric,
)
from analysis.report.effects import EffectOutcome, EffectRow, effect_rows, pair_rows
from analysis.report.html import REPORT_MARK, render_comparison_html, render_html
from analysis.report.markdown import render_comparison_markdown, render_markdown

__all__ = [
    "REPORT_MARK",
    "ArmRow",
    "AssignedRow",
    "DoseRow",
    "Doses",
    "EffectOutcome",
    "EffectRow",
    "EventRow",
    "ExposureRow",
    "KnobRow",
    "LatencyRow",
    "MetricNote",
    "PeriodRow",
    "ReportInput",
    "SeriesRow",
    "SqlSuggestion",
    "StageRow",
    "SuccessRow",
    "SupplyRow",
    "UnavailableMetric",
    "effect_rows",
    "pair_rows",
    "render_comparison_html",
    "render_comparison_markdown",
    "render_html",
    "render_markdown",
]
