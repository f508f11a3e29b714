"""The sections on the fleet: the trade in servers, doses, strata, the ramp over time, who was assigned what."""

from __future__ import annotations

from dataclasses import replace

from analysis.report.content import ReportInput
from analysis.report.effects import estimate_row, interval_text
from analysis.report.page import Cell, Section, Table
from analysis.report.quantities import DASH, number, quantity, signed
from analysis.report.questions import COMPLIERS, DOSE, per_readable_dose
from analysis.report.tables import MOST_ROWS, left_off_note, p_text
from analysis.results import Estimate, Trade


def trade_sentence(trade: Trade) -> str:
    """Say a trade in one sentence: how many servers of 1,000 can go, or how many more it takes."""
    saved, interval = trade.saved_per_1000, trade.interval
    words = "servers per 1,000 saved" if saved >= 0 else "more servers per 1,000 needed"
    if interval is None:
        return f"{trade.treatment}: {number(abs(saved))} {words}, without an interval"
    if saved < 0:
        turned = [None if end is None else -end for end in (interval.high, interval.low)]
        interval = replace(interval, low=turned[0], high=turned[1])
    return f"{trade.treatment}: {number(abs(saved))} {words} {interval_text(interval, number)}"


def _servers(trade: Trade) -> str:
    return "" if trade.interval is None else interval_text(trade.interval, lambda end: signed(number(end)))


def trade(content: ReportInput) -> Section:
    """Weigh what is gained against what it takes, in servers."""
    trades = content.findings.trades
    if not trades:
        text = (
            "Not computed: the trade needs a throughput metric and memory_used_bytes "
            "(the spec's metrics.trade names others)."
        )
        return Section(key="trade", title="The trade in servers", paragraphs=(text,))
    table = Table(
        caption="Servers per 1,000 for the same work",
        headers=("arm", "saved per 1,000 [interval]", "how"),
        rows=tuple(
            (
                Cell(text=row.treatment),
                Cell(text=signed(number(row.saved_per_1000)), note=_servers(row)),
                Cell(text=row.detail),
            )
            for row in trades
        ),
        align="lrl",
        key="trade",
    )
    text = "A plus is servers that can go, a minus is servers that must be added, for the same work."
    return Section(key="trade", title="The trade in servers", paragraphs=(text,), tables=(table,))


def doses(content: ReportInput) -> Section:
    """Show what the effect was per unit of the treatment that hosts really received."""
    rows = [row for row in content.findings.estimates if COMPLIERS in row.estimand or DOSE in row.method]
    title = "With the backing"
    if not rows:
        text = "No effect per unit received could be estimated: it takes hosts that received different amounts."
        return Section(key="doses", title=title, paragraphs=(text,))
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
    return Section(key="doses", title=title, paragraphs=(text,), tables=(table,))


def _dose_cells(row: Estimate, alpha: float) -> tuple[Cell, ...]:
    row = per_readable_dose(row)
    shown = estimate_row(row, alpha)
    return (
        Cell(text=row.treatment),
        Cell(text=row.estimand, note=row.method),
        Cell(text=f"{shown.change} {row.unit}", note=shown.interval),
        Cell(text=DASH if row.p_value is None else p_text(row.p_value)),
        Cell(text="; ".join(row.warnings) or DASH),
    )


def strata(content: ReportInput) -> Section:
    """Show whether pools and SKUs tell the same story."""
    rows = [row for row in content.findings.estimates if row.stratum]
    title = "Pools and SKUs"
    if not rows:
        text = "One stratum only: nothing to compare. The spec's assignment.strata names labels to keep apart."
        return Section(key="strata", title=title, paragraphs=(text,))
    table = Table(
        caption="The primary metric within each stratum",
        headers=("stratum", "arm", "control", "arm's value", "change [interval]", "hosts"),
        rows=tuple(_stratum_cells(row, content.findings.alpha) for row in rows[:MOST_ROWS]),
        align="llrrlr",
        key="strata",
    )
    agreement = [check.detail for check in content.findings.checks if check.name.startswith("heterogeneity")]
    text = "A subgroup is a check on the mean, never a result of its own."
    return Section(key="strata", title=title, paragraphs=(*agreement, text, *left_off_note(len(rows))), tables=(table,))


def _stratum_cells(row: Estimate, alpha: float) -> tuple[Cell, ...]:
    shown = estimate_row(row, alpha)
    return (
        Cell(text=row.stratum),
        Cell(text=row.treatment),
        Cell(text=shown.control),
        Cell(text=shown.treatment),
        Cell(text=shown.change, note=shown.interval),
        Cell(text=f"{row.n_control} + {row.n_treatment}"),
    )


def ramp(content: ReportInput) -> Section:
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
        return Section(key="series", title=title, paragraphs=(text,), tables=tuple(tables))
    text = "Each line is the mean over the arm's hosts. A vertical line is the opening of a stage."
    return Section(key="series", title=title, paragraphs=(text,), tables=tuple(tables))


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
