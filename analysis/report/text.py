"""Renders a page as plain text for a terminal: the alarms first, then the answer, then the tables asked for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from analysis.report.escaping import visible
from analysis.report.page import Cell, ReportPage, Table

WIDTH = 100
_WIDEST = 44  # of a column, before it is folded


def page_as_text(page: ReportPage, *, sections: tuple[str, ...]) -> str:
    """Write banner, answer, warnings and these sections' tables; no letter of foreign text acts on the terminal."""
    parts = [_folded(text) for text in page.alarms]
    parts.append(_folded(f"{page.title}: {page.decision.upper()} - {page.reason}"))
    parts += [_folded(f"note: {text}") for text in page.warnings]
    for section in page.sections:
        if section.key in sections:
            parts += ["\n".join((visible(f"{table.caption}:"), *_lines(table))) for table in section.tables]
            parts += [_folded(text) for text in section.paragraphs] if not section.tables else []
    return "\n\n".join(parts) + "\n"


def _folded(text: str) -> str:
    return textwrap.fill(visible(text), WIDTH, break_long_words=False)


def _lines(table: Table) -> Iterator[str]:
    """Align a table's columns; long cells are folded."""
    shown = [[textwrap.wrap(_text(cell), _WIDEST) or [""] for cell in row] for row in table.rows]
    heads = [[head] for head in table.headers]
    widths = [max(len(line) for row in (heads, *shown) for line in row[place]) for place in range(len(heads))]
    for row in (heads, [["-" * width] for width in widths], *shown):
        for line in range(max(len(cell) for cell in row)):
            cells = [cell[line] if line < len(cell) else "" for cell in row]
            aligned = (
                cell.rjust(width) if letter == "r" else cell.ljust(width)
                for cell, width, letter in zip(cells, widths, table.align, strict=True)
            )
            yield "  ".join(aligned).rstrip()


def _text(cell: Cell) -> str:
    return visible(f"{cell.text} {cell.note}".strip())
