"""The sections on what happened: exposure, knob writes and events, what was left out, integrity checks."""

from __future__ import annotations

from analysis.plan import Role
from analysis.quantities import DASH, counted, number, quantity
from analysis.report.content import ReportInput
from analysis.report.effects import estimate_row
from analysis.report.instants import instant
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.restoration import restoration
from analysis.report.tables import MOST_ROWS, left_off_note, p_text, role_table
from analysis.results import Check, Estimate, EstimateKind

MOST_OPEN = 40  # rows of a table that a reader is not asked to unfold


def exposure(content: ReportInput) -> ReportSection:
    """Set what the arms asked for against what the kernel gave."""
    if not content.exposure:
        text = "What the kernel really gave was not recorded, so assigned must not be read as received."
        return ReportSection(key="exposure", title="Assigned is not received", paragraphs=(text,))
    table = Table(
        caption="Big pages asked for and given",
        headers=("arm", "page size", "assigned", "faulted in", "fallbacks", "given", "splits", "memory backed"),
        rows=tuple(
            (
                Cell(text=row.arm),
                Cell(text=quantity(row.page_size_kib, "KiB")),
                Cell(text=row.assigned, code=True),
                Cell(text=_counted(row.faulted_pages)),
                Cell(text=_counted(row.fallbacks)),
                Cell(text=_given(row.faulted_pages, row.fallbacks)),
                Cell(text=_counted(row.splits)),
                Cell(text=quantity(row.backed_bytes, "bytes")),
            )
            for row in content.exposure[:MOST_ROWS]
        ),
        align="lrlrrrrr",
        key="exposure",
    )
    text = (
        "A fault that finds no big page falls back to small ones without a word, and a page once given may be split. "
        "The effect above is that of being assigned; this is what was received."
    )
    return ReportSection(
        key="exposure",
        title="Assigned is not received",
        paragraphs=(text, *left_off_note(len(content.exposure))),
        tables=(table, *role_table(content, Role.EXPOSURE, "Exposure, compared between the arms")),
    )


def _counted(value: float | None) -> str:
    return "unavailable" if value is None else number(value)


def _given(pages: float | None, fallbacks: float | None) -> str:
    if pages is None or fallbacks is None:
        return "unavailable"
    asked = pages + fallbacks
    return f"{number(100 * pages / asked)} % of {number(asked)}" if asked else "none asked for"


def timeline(content: ReportInput) -> ReportSection:
    """List the writes to knobs and the events, and say whether all was put back."""
    changes = Table(
        caption="Every write to a knob",
        headers=("at", "host", "knob", "before", "wanted", "read back", "why", "error"),
        rows=tuple(
            (
                Cell(text=instant(row.changed_at)),
                Cell(text=row.host),
                Cell(text=row.knob, code=True),
                Cell(text=row.before, code=True),
                Cell(text=row.wanted, code=True),
                Cell(text=row.after, code=True, tone="bad" if row.error is not None else ""),
                Cell(text=row.reason),
                Cell(text=row.error or DASH, tone="bad" if row.error is not None else ""),
            )
            for row in content.knob_changes[:MOST_ROWS]
        ),
        align="nlllllll",
        folded=True,
        key="changes",
    )
    events = Table(
        caption="Events",
        headers=("at", "host", "what", "detail"),
        rows=tuple(
            (Cell(text=instant(row.at)), Cell(text=row.host or "the run"), Cell(text=row.kind), Cell(text=row.detail))
            for row in content.events[:MOST_ROWS]
        ),
        align="nlll",
        folded=len(content.events) > MOST_OPEN,
        key="events",
    )
    left_off = (*left_off_note(len(content.knob_changes)), *left_off_note(len(content.events)))
    return ReportSection(
        key="timeline",
        title="What was done to the hosts",
        paragraphs=(restoration(content).sentences[0], *left_off),
        tables=tuple(table for table in (changes, events) if table.rows),
    )


def excluded(content: ReportInput) -> ReportSection:
    """List the periods that were not used, with the reasons."""
    periods = {row.period_id: row for row in content.periods}
    rows = [(row.host, row.arm, row.block, row.reason, periods.get(row.period_id)) for row in content.findings.excluded]
    named = {row.period_id for row in content.findings.excluded}
    rows += [
        (row.host, row.arm, row.block, row.reason, row)
        for row in content.periods
        if row.state == "invalid" and row.period_id not in named
    ]
    measured = sum(1 for row in content.periods if row.kind == "measure")
    out = sum(1 for *_, period in rows if period is not None and period.kind == "measure")
    if not rows:
        text = f"Nothing: all {counted(measured, 'measured period')} were used." if measured else "Nothing."
        return ReportSection(key="excluded", title="What was left out, and why", paragraphs=(text,))
    table = Table(
        caption="Periods not used",
        headers=("host", "arm", "block", "attempt", "started", "reason"),
        rows=tuple(
            (
                Cell(text=host),
                Cell(text=arm),
                Cell(text=str(block) if block >= 0 else DASH),
                Cell(text="unknown" if period is None else str(period.attempt)),
                Cell(text="unknown" if period is None else instant(period.started_at)),
                Cell(text=reason or "no reason was recorded"),
            )
            for host, arm, block, reason, period in rows[:MOST_ROWS]
        ),
        align="lnrrnl",
        key="excluded",
    )
    paragraphs = [f"{measured - out} of {counted(measured, 'measured period')} were used."] if measured else []
    paragraphs += left_off_note(len(rows))
    return ReportSection(
        key="excluded", title="What was left out, and why", paragraphs=tuple(paragraphs), tables=(table,)
    )


def checks(content: ReportInput) -> ReportSection:
    """List the integrity checks and what watching cost."""
    tables: list[Table] = []
    if content.findings.checks:
        tables.append(
            Table(
                caption="Checks of the experiment itself",
                headers=("check", "result", "p", "what was seen"),
                rows=tuple(_check_cells(row) for row in content.findings.checks),
                align="llrl",
                key="checks",
            )
        )
    tables += _carry_over(content)
    tables += role_table(content, Role.OBSERVER, "What watching cost")
    paragraphs = [] if content.findings.checks else ["No integrity check was made."]
    if content.design == "switchback" and not any(_is_carry_over(row) for row in content.findings.estimates):
        paragraphs.append("What an arm leaves behind for the period after it (carry-over) was not testable.")
    return ReportSection(key="checks", title="Integrity checks", paragraphs=tuple(paragraphs), tables=tuple(tables))


def _is_carry_over(row: Estimate) -> bool:
    return row.kind is EstimateKind.CARRY_OVER


def _carry_over(content: ReportInput) -> tuple[Table, ...]:
    rows = [row for row in content.findings.estimates if _is_carry_over(row)]
    if not rows:
        return ()
    return (
        Table(
            caption="What an arm leaves behind for the period after it (carry-over)",
            headers=("metric", "arm before", "in place of", "what it adds [interval]", "p", "remarks"),
            rows=tuple(_carry_over_cells(row, content.findings.alpha) for row in rows[:MOST_ROWS]),
            align="llllrl",
            key="carry_over",
        ),
    )


def _carry_over_cells(row: Estimate, alpha: float) -> tuple[Cell, ...]:
    shown = estimate_row(row, alpha)
    added = Cell(text="not testable", tone="quiet")
    if row.difference is not None:
        note = shown.figures if not shown.unit or row.lift is not None else f"{shown.figures} {shown.unit}"
        added = Cell(text=shown.change, note=note)
    return (
        Cell(text=row.metric, code=True),
        Cell(text=row.treatment),
        Cell(text=row.control),
        added,
        Cell(text=DASH if row.p_value is None else p_text(row.p_value)),
        Cell(text=shown.remark or DASH),
    )


def _check_cells(check: Check) -> tuple[Cell, ...]:
    result, tone = {True: ("passed", "good"), False: ("failed", "bad"), None: ("not testable", "quiet")}[check.passed]
    return (
        Cell(text=check.name),
        Cell(text=result, tone=tone),
        Cell(text=DASH if check.p_value is None else p_text(check.p_value)),
        Cell(text=check.detail),
    )
