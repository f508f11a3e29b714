"""The sections on the fleet: the trade in servers, doses, strata, the ramp over time, who was assigned what."""

from __future__ import annotations

from analysis.quantities import DASH, number, quantity
from analysis.report.content import ReportInput
from analysis.report.effects import estimate_row
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.questions import DOSES, per_readable_dose
from analysis.report.tables import MOST_ROWS, left_off_note, p_text
from analysis.results import Estimate, EstimateKind, TradeSide
from analysis.wording import needed_interval, needed_words

_SIDES = {
    TradeSide.SAVES: ("fewer servers", "good"),
    TradeSide.COSTS: ("more servers", "bad"),
    TradeSide.OPEN: ("neither is excluded", "quiet"),
}


def trade(content: ReportInput) -> ReportSection:
    """Weigh what is gained against what it takes, in servers."""
    trades = content.findings.trades
    if not trades:
        text = (
            "Not computed: the trade needs a throughput metric and memory_used_bytes "
            "(the spec's metrics.trade names others)."
        )
        return ReportSection(key="trade", title="The trade in servers", paragraphs=(text,))
    levels = {row.interval.level for row in trades if row.interval is not None}
    interval = f"[{number(100 * levels.pop())} % interval]" if len(levels) == 1 else "[interval]"
    table = Table(
        caption="Servers needed for the same work",
        headers=("arm", f"servers needed per 1,000 {interval}", "shown", "how"),
        rows=tuple(
            (
                Cell(text=row.treatment),
                Cell(text=needed_words(row), note=needed_interval(row) or "no interval"),
                Cell(text=_SIDES[row.side][0], tone=_SIDES[row.side][1]),
                Cell(text=row.detail),
            )
            for row in trades
        ),
        align="llll",
        key="trade",
    )
    return ReportSection(key="trade", title="The trade in servers", tables=(table,))


def doses(content: ReportInput) -> ReportSection:
    """Show what the effect was per unit of the treatment that hosts really received."""
    rows = [row for row in content.findings.estimates if row.kind in DOSES]
    title = "With the backing"
    if not rows:
        text = "No effect per unit received could be estimated: it takes hosts that received different amounts."
        return ReportSection(key="doses", title=title, paragraphs=(text,))
    table = Table(
        caption="The primary metric per unit received",
        headers=("arm", "question", "change per unit [interval]", "p", "remarks"),
        rows=tuple(_dose_cells(row, content.findings.alpha) for row in rows[:MOST_ROWS]),
        align="lllrl",
        key="doses",
    )
    text = (
        "Assignment was drawn, so the first row is causal for hosts that take the treatment up. How much a host then "
        "received was not drawn: the slope across hosts is an observation, no more."
    )
    return ReportSection(key="doses", title=title, paragraphs=(text,), tables=(table,))


def _dose_cells(row: Estimate, alpha: float) -> tuple[Cell, ...]:
    row = per_readable_dose(row)
    shown = estimate_row(row, alpha)
    return (
        Cell(text=row.treatment),
        Cell(text=row.estimand, note=row.method),
        Cell(text=shown.change, note=f"{shown.figures} {shown.unit}".strip()),
        Cell(text=DASH if row.p_value is None else p_text(row.p_value)),
        Cell(text="; ".join(row.warnings) or DASH),
    )


def strata(content: ReportInput) -> ReportSection:
    """Show whether pools and SKUs tell the same story."""
    rows = [row for row in content.findings.estimates if row.kind is EstimateKind.STRATUM]
    title = "Pools and SKUs"
    if not rows:
        text = "One stratum only: nothing to compare. The spec's assignment.strata names labels to keep apart."
        return ReportSection(key="strata", title=title, paragraphs=(text,))
    table = Table(
        caption="Within each stratum",
        headers=("stratum", "metric", "arm", "control", "arm's value", "change [interval]", "hosts"),
        rows=tuple(_stratum_cells(row, content.findings.alpha) for row in rows[:MOST_ROWS]),
        align="lllrrlr",
        key="strata",
    )
    text = "Whether the strata agree is among the integrity checks."
    return ReportSection(key="strata", title=title, paragraphs=(text, *left_off_note(len(rows))), tables=(table,))


def _stratum_cells(row: Estimate, alpha: float) -> tuple[Cell, ...]:
    shown = estimate_row(row, alpha)
    return (
        Cell(text=row.stratum),
        Cell(text=row.metric, code=True),
        Cell(text=row.treatment),
        Cell(text=shown.control),
        Cell(text=shown.treatment),
        Cell(text=shown.change, note=shown.figures),
        Cell(text=f"{row.n_control} + {row.n_treatment}"),
    )


def ramp(content: ReportInput) -> ReportSection:
    """Show the stages, and the metrics over time across them."""
    title = "Over time"
    tables = []
    if len(content.stages) > 1:
        tables.append(
            Table(
                caption="Stages of the ramp",
                headers=("stage", "hosts by its end", "opened after", "held for", "next step"),
                rows=tuple(
                    (
                        Cell(text=str(row.index + 1)),
                        Cell(text=number(row.hosts)),
                        Cell(
                            text="never" if row.opened_seconds is None else quantity(row.opened_seconds, "seconds"),
                            tone="quiet" if row.opened_seconds is None else "",
                        ),
                        Cell(text=quantity(row.hold_seconds, "seconds")),
                        Cell(text=row.approve),
                    )
                    for row in content.stages
                ),
                align="rrrrl",
                key="stages",
            )
        )
    if not content.series:
        text = "No metric was read often enough to be shown over time."
        return ReportSection(key="series", title=title, paragraphs=(text,), tables=tuple(tables))
    text = "Each line is the mean over the arm's hosts. A vertical line is the opening of a stage."
    return ReportSection(key="series", title=title, paragraphs=(text,), tables=tuple(tables))


def assigned(content: ReportInput) -> tuple[Table, ...]:
    """Count the hosts that each arm was given in each stratum, for the appendix."""
    if not content.assigned:
        return ()
    return (
        Table(
            caption="Hosts by stage, stratum and arm",
            headers=("stage", "stratum", "arm", "hosts", "measured"),
            rows=tuple(
                (
                    Cell(text=str(row.stage + 1)),
                    Cell(text=row.stratum),
                    Cell(text=row.arm),
                    Cell(text=number(row.hosts)),
                    Cell(text=number(row.measured)),
                )
                for row in content.assigned[:MOST_ROWS]
            ),
            align="rllrr",
            key="assigned",
        ),
    )
