"""The section on a metrics' server: what it was asked, for which time, what it answered and had nothing for."""

from __future__ import annotations

from analysis.quantities import DASH, counted, quantity
from analysis.report.content import ReportInput
from analysis.report.instants import instant
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.tables import MOST_ROWS, left_off_note

_ANSWERED = "answered"


def central(content: ReportInput) -> tuple[ReportSection, ...]:
    """Return the section where a metrics' server was asked, else nothing."""
    if not content.central:
        return ()
    queries = {(row.metric, row.promql): row for row in content.central}
    asked = Table(
        caption="Queries as they were sent",
        headers=("metric", "query", "step", "server", "requests", "not answered"),
        rows=tuple(
            (
                Cell(text=metric, code=True),
                Cell(text=promql, code=True),
                Cell(text=quantity(row.step_seconds, "seconds")),
                Cell(text=row.server, code=True),
                Cell(text=str(len(own := [one for one in content.central if (one.metric, one.promql) == which]))),
                Cell(text=str(sum(one.outcome != _ANSWERED for one in own))),
            )
            for which, row in list(queries.items())[:MOST_ROWS]
            for metric, promql in (which,)
        ),
        align="llrlrr",
    )
    gaps = Table(
        caption="Periods that it gave a value",
        headers=("metric", "value", "periods"),
        rows=tuple(
            (
                Cell(text=row.metric, code=True),
                Cell(text=f"none: {row.gap.replace('_', ' ')}" if row.gap else "read", tone="bad" if row.gap else ""),
                Cell(text=str(row.periods)),
            )
            for row in content.central_gaps[:MOST_ROWS]
        ),
        align="llr",
        key="central_gaps",
    )
    answers = Table(
        caption="Every request",
        headers=("metric", "from", "to", "outcome", "series", "SHA-256 of the answer"),
        rows=tuple(
            (
                Cell(text=row.metric, code=True),
                Cell(text=instant(row.start_at)),
                Cell(text=instant(row.end_at)),
                Cell(text=row.outcome, note=row.said or "", tone="" if row.outcome == _ANSWERED else "bad"),
                Cell(text=str(row.series)),
                Cell(text=row.sha256 or DASH, code=True),
            )
            for row in content.central[:MOST_ROWS]
        ),
        align="lnnlrl",
        folded=True,
        key="central",
    )
    without = sum(row.periods for row in content.central_gaps if row.gap)
    text = (
        f"The orchestrator asked a metrics' server {counted(len(content.central), 'time')}. An answer with the same "
        "SHA-256 is the same, byte by byte."
    )
    missing = (f"{counted(without, 'value')} of a period are missing: never zero, and left out of the estimates.",)
    return (
        ReportSection(
            key="central",
            title="What the metrics' server was asked",
            paragraphs=(text, *(missing if without else ()), *left_off_note(len(content.central))),
            tables=tuple(table for table in (asked, gaps, answers) if table.rows),
        ),
    )
