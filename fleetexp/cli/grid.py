"""Rows on a terminal: a table where it fits the width, else one block of lines for each row."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

_GAP = "  "
_WIDEST_CELL = 60
_NARROWEST_TEXT = 12
_LONGEST_WORD = 24  # that is not broken
_LINES_OF_A_CELL = 4
_LINES_OF_A_VALUE = 12
_CUT = "..."


def grid(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: frozenset[int], width: int) -> Iterator[str]:
    """Yield the lines. Numbers are flush right and never cut; long texts are wrapped, and cut with '...' at last."""
    widths = _widths(headers, rows, numeric, width)
    if widths is None:
        yield from _records(headers, rows, width)
        return
    right = [place in numeric for place in range(len(headers))]
    heads = [_folded(name, size) for name, size in zip(headers, widths, strict=True)]
    tallest = max(map(len, heads))
    for number in range(tallest):
        rising = [lines[number - tallest] if number >= tallest - len(lines) else "" for lines in heads]
        yield _line([_pad(text, size, flush) for text, size, flush in zip(rising, widths, right, strict=True)])
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
        wanted = longest if place in numeric else min(longest, _WIDEST_CELL)
        widths.append(max(_cells(header), wanted))
        narrow = wanted if place in numeric else min(wanted, max(_NARROWEST_TEXT, _longest_word(rows, place)))
        least.append(max(narrow, *(_cells(part) for part in _parts(header)), 1))
    if sum(least) > room:
        return None
    while sum(widths) > room:
        widest = max((place for place in range(len(widths)) if widths[place] > least[place]), key=widths.__getitem__)
        widths[widest] -= 1
    return widths


def _longest_word(rows: Sequence[Sequence[str]], place: int) -> int:
    words = (_cells(word) for row in rows for word in row[place].split())
    return max((size for size in words if size <= _LONGEST_WORD), default=0)


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


def _parts(header: str) -> list[str]:
    """Split a name where it may be broken: after its underscores."""
    return re.findall(r"[^_]*_+|[^_]+", header) or [""]


def _folded(header: str, size: int) -> list[str]:
    lines = [""]
    for part in _parts(header):
        if _cells(lines[-1] + part) <= size:
            lines[-1] += part
        else:
            lines.append(part)
    return lines


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
