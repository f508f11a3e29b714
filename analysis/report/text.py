"""Renders a page as plain text for a terminal: the alarms first, then the answer, then the tables asked for."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import zip_longest

from analysis.report.escaping import visible
from analysis.report.page import Cell, ReportPage, Table

WIDTH = 80
_NARROWEST = 8  # columns are not folded further
_GAP = "  "


def page_as_text(page: ReportPage, *, sections: tuple[str, ...]) -> str:
    """Write banner, answer, warnings and these sections' tables; no letter of foreign text acts on the terminal."""
    parts = [_folded(text) for text in page.alarms]
    parts.append(_folded(f"{page.title}: {page.decision.upper()} - {page.reason}"))
    parts += [_folded(f"note: {text}") for text in page.warnings]
    for section in page.sections:
        if section.key in sections:
            parts += ["\n".join((_folded(f"{table.caption}:"), *_lines(table))) for table in section.tables]
            parts += [_folded(text) for text in section.paragraphs] if not section.tables else []
    return "\n\n".join(parts) + "\n"


def _folded(text: str) -> str:
    return textwrap.fill(visible(text), WIDTH, break_long_words=False)


def _lines(table: Table) -> Iterator[str]:
    """Align a table's columns; where they are wider than a line the widest are folded."""
    rows = [list(table.headers), *([_text(cell) for cell in row] for row in table.rows)]
    widths = [max(len(row[place]) for row in rows) for place in range(len(table.headers))]
    while sum(widths) + len(_GAP) * (len(widths) - 1) > WIDTH and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
    head, *shown = [
        [textwrap.wrap(text, width) or [""] for text, width in zip(row, widths, strict=True)] for row in rows
    ]
    for row in (head, [["-" * width] for width in widths], *shown):
        for line in zip_longest(*row, fillvalue=""):
            aligned = (
                cell.rjust(width) if letter == "r" else cell.ljust(width)
                for cell, width, letter in zip(line, widths, table.align, strict=True)
            )
            yield _GAP.join(aligned).rstrip()


def _text(cell: Cell) -> str:
    return visible(f"{cell.text} {cell.note}".strip())
