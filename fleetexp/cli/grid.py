"""Rows on a terminal: a table where it fits the width, else one block of lines for each row."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

_GAP = "  "
_WIDEST_CELL = 60
_NARROWEST_TEXT = 12
_LINES_OF_A_CELL = 3
_LINES_OF_A_VALUE = 12
_CUT = "..."


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int], width: int) -> Iterator[str]:
    """Yield the lines. Numbers are flush right and never cut; long texts are wrapped, and cut with '...' at last."""
    widths = _widths(headers, rows, numeric, width)
    if widths is None:
        yield from _records(headers, rows, width)
        return
    right = [place in numeric for place in range(len(headers))]
    yield _line([_pad(name, size, flush) for name, size, flush in zip(headers, widths, right, strict=True)])
    yield _line(["-" * size for size in widths])
    for row in rows:
        cells = [_wrapped(cell, size, _LINES_OF_A_CELL) for cell, size in zip(row, widths, strict=True)]
        for number in range(max(map(len, cells), default=1)):
            yield _line(
                [
                    _pad(lines[number] if number < len(lines) else "", size, flush)
                    for lines, size, flush in zip(cells, widths, right, strict=True)
                ]
            )


def _widths(
    headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int], width: int
) -> list[int] | None:
    """Return the width of each column, None where even narrow ones don't fit side by side."""
    room = width - len(_GAP) * (len(headers) - 1)
    widths, least = [], []
    for place, header in enumerate(headers):
        longest = max((_cells(row[place]) for row in rows), default=0)
        head = _cells(header)
        whole = max(head, longest if place in numeric else min(longest, _WIDEST_CELL))
        widths.append(whole)
        least.append(whole if place in numeric else min(whole, max(head, _NARROWEST_TEXT)))
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _records(headers: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    label = min(max(map(_cells, headers)), max(width // 2, 1))
    for number, row in enumerate(rows, start=1):
        yield f"-- row {number} ".ljust(width, "-")
        for name, cell in zip(headers, row, strict=True):
            lines = _wrapped(cell, max(width - label - len(_GAP), 8), _LINES_OF_A_VALUE) or [""]
            for place, line in enumerate(lines):
                head = _wrapped(name, label, 1)[0] if place == 0 and name else ""
                yield _line([_pad(head, label, False), line])
    if not rows:
        yield from (_wrapped(name, width, 1)[0] for name in headers if name)


def _line(cells: Sequence[str]) -> str:
    return _GAP.join(cells).rstrip()


def _cells(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)


def _pad(text: str, size: int, flush_right: bool) -> str:
    fill = " " * max(size - _cells(text), 0)
    return fill + text if flush_right else text + fill


def _wrapped(text: str, size: int, most: int) -> list[str]:
    """Break a text into lines of at most `size` cells; past `most` lines it is cut."""
    if _cells(text) <= size:
        return [text]
    if _cells(text) == len(text):
        lines = textwrap.wrap(text, size, break_on_hyphens=False)
    else:
        from rich.cells import chop_cells

        lines = chop_cells(text, size)
    if len(lines) <= most:
        return lines
    from rich.cells import set_cell_size

    kept = lines[:most]
    kept[-1] = set_cell_size(kept[-1], max(min(size - len(_CUT), _cells(kept[-1])), 0)) + _CUT
    return kept
