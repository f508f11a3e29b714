"""What goes to stdout: JSON objects, wrapped text and tables that fit the terminal, or 80 columns where there is none.

Colours appear on a terminal only, and never where NO_COLOR is set.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import sys
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

NARROW = 80
_WIDEST = 120
_LABEL = 13


def plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON has
    """Turn dataclasses, enums, instants and mappings into what JSON has; NaN and infinity become null."""
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, (str, int, bool)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        return [plain(item) for item in value]
    return str(value)


def emit_json(value: object) -> None:
    """Print one JSON object on one line."""
    click.echo(json_text(plain(value)))


def json_text(value: object) -> str:
    """Return JSON in which whatever is not printable is escaped: no terminal obeys what a host or a workload said."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return text if text.isprintable() else "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)


def width() -> int:
    """Columns to fill: the terminal's, at most 120; 80 where stdout is not a terminal."""
    return min(shutil.get_terminal_size((NARROW, 24)).columns, _WIDEST) if sys.stdout.isatty() else NARROW


def console(*, stderr: bool = False) -> Console:
    """Make a console that writes to the present stdout (or stderr)."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    fixed = None if stream.isatty() else NARROW
    return Console(file=stream, width=fixed, highlight=False, markup=False, emoji=False)


def labelled(label: str, text: str, *, columns: int | None = None) -> str:
    """Lay out one fact: its label, then its text, wrapped and hanging under itself."""
    return textwrap.fill(
        text,
        columns or width(),
        initial_indent=f"{label:<{_LABEL}}",
        subsequent_indent=" " * _LABEL,
        break_on_hyphens=False,
    )


def wrapped(text: str, *, indent: str = "") -> str:
    """Wrap a paragraph."""
    return textwrap.fill(text, width(), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def print_table(headers: Sequence[str], rows: Iterable[Sequence[str]], *, right: frozenset[int] = frozenset()) -> None:
    """Print rows of text as a table that fits the width; the columns numbered in `right` are set flush right."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for place, header in enumerate(headers):
        table.add_column(Text(header), justify="right" if place in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    screen = console()
    with screen.capture() as drawn:
        screen.print(table)
    click.echo("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def visible(text: str) -> str:
    """Show control characters instead of obeying them: what a host or a workload said must not drive the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def duration(seconds: float) -> str:
    """Say how long in two steps: '1 min 40 s', '2 h 5 min', '0.5 s'."""
    if seconds < 10 and not float(seconds).is_integer():
        return f"{seconds:.1f} s"
    whole = round(seconds)
    steps = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))
    parts = []
    for size, name in steps:
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def size(kibibytes: float) -> str:
    """Say a size as page sizes are called: '4K', '2M', '1G'; fractions to one place."""
    for step, name in ((1024**2, "G"), (1024, "M")):
        if kibibytes >= step:
            return f"{kibibytes / step:.1f}".removesuffix(".0") + name
    return f"{kibibytes:.0f}K"


def memory(count_bytes: float) -> str:
    """Say an amount of memory in GiB."""
    return f"{count_bytes / 1024**3:.1f} GiB"


def instant(at: datetime | None) -> str:
    """Show an instant in UTC, to the second."""
    return "" if at is None else at.strftime("%Y-%m-%d %H:%M:%S")
