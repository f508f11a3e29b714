"""Pieces that several sections share: rows of effects, and what is said of a table that was cut."""

from __future__ import annotations

from analysis.plan import Direction, Role
from analysis.quantities import number
from analysis.report.content import ReportInput
from analysis.report.effects import EffectOutcome, EffectRow, effect_rows
from analysis.report.page import Cell, Table

# The longest table that a reader scrolls through; the store has the rest.
MOST_ROWS = 200

_TONES = {
    EffectOutcome.BETTER: "good",
    EffectOutcome.WORSE: "bad",
    EffectOutcome.UNCLEAR: "quiet",
    EffectOutcome.UNAVAILABLE: "quiet",
}


def directions(content: ReportInput) -> dict[str, Direction]:
    """Which way each metric should move, where somebody said so."""
    return {note.metric: note.better for note in content.notes if note.better is not None}


def effect_cells(content: ReportInput, row: EffectRow) -> tuple[Cell, ...]:
    """The cells metric, control, treatment, change."""
    meaning = next((note.meaning for note in content.notes if note.metric == row.metric), "")
    if row.unit:
        meaning = f"{meaning}, {row.unit}" if meaning else row.unit
    tone = _TONES.get(row.outcome, "")
    return (
        Cell(text=row.metric, note=meaning, code=True),
        Cell(text=row.control),
        Cell(text=row.treatment),
        Cell(text=row.change, note=row.figures or "no interval", tone=tone),
    )


def control_header(content: ReportInput) -> str:
    """Name the column of the control's values."""
    return content.control if content.control == "control" else f"{content.control} (control)"


def change_header(rows: list[EffectRow]) -> str:
    """Name the column of changes with the level of its intervals, where they share one."""
    levels = {row.level for row in rows if row.level is not None}
    return f"change [{number(100 * levels.pop())} % interval]" if len(levels) == 1 else "change [interval]"


def role_table(content: ReportInput, role: Role, caption: str) -> tuple[Table, ...]:
    """Set the headline effects of one role in a table; none where there are none."""
    rows = [row for row in effect_rows(content.findings) if row.role is role]
    if not rows:
        return ()
    return (
        Table(
            caption=caption,
            headers=("metric", "arm", control_header(content), "arm's value", change_header(rows)),
            rows=tuple(
                (cells[0], Cell(text=row.treatment_arm), *cells[1:])
                for row, cells in ((row, effect_cells(content, row)) for row in rows)
            ),
            align="llrrl",
        ),
    )


def p_text(value: float) -> str:
    """Show a p-value; what is too small to mean anything is '< 0.001'."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def left_off_note(count: int) -> tuple[str, ...]:
    """Say how many rows a table leaves off; nothing where it has them all."""
    return (f"The table shows the first {MOST_ROWS} of {count:,} rows; the store has them all.",) * (count > MOST_ROWS)
