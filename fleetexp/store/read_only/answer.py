"""What a question brings: names and kinds of the columns, and the rows in batches."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from fleetexp.store.values import ColumnKind, Row, instant_text

TIMEOUT_SECONDS = 60.0
BATCH_BYTES = 8 << 20
_GROWTH = 8  # from one row on, before anything is known of their size
_ROWS_WEIGHED = 256
_VALUE_BYTES = 32  # of a number, and of what Python adds to a text


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryResult:
    """The answer to a question, read as it is iterated. A kind is None where the database knows it by the value only.

    Instants are datetimes or, from SQLite, the text that it keeps; documents are text.
    """

    columns: tuple[str, ...]
    kinds: tuple[ColumnKind | None, ...]
    batches: Iterator[list[Row]]


class BatchReader(Protocol):
    """A database opened for questions only."""

    def ask(self, sql: str, *, batch_rows: int) -> QueryResult:
        """Answer one question; QueryRefused where it is wrong, would write, or takes too long."""
        ...


def in_batches(fetch: Callable[[int], list[Row]], most_rows: int) -> Iterator[list[Row]]:
    """Yield the rows that `fetch` brings, at most so many at once, and fewer where they are large.

    Memory is bounded by the size of rows that are alike; how large one row may be is the database's limit.
    """
    batch: list[Row] = []
    room, at_once = BATCH_BYTES, 1
    while rows := fetch(min(at_once, most_rows - len(batch))):
        batch += rows
        size = _weighed(rows)
        room -= size
        if room <= 0 or len(batch) >= most_rows:
            yield batch
            batch, room = [], BATCH_BYTES
        at_once = max(1, min(at_once * _GROWTH, most_rows, room * len(rows) // size))
    if batch:
        yield batch


def bytes_of(rows: Sequence[Row]) -> int:
    """Return about how much memory rows take."""
    return sum(len(value) if isinstance(value, (str, bytes)) else 0 for row in rows for value in row) + sum(
        _VALUE_BYTES * (1 + len(row)) for row in rows
    )


def _weighed(rows: Sequence[Row]) -> int:
    """As `bytes_of`, from some of the rows."""
    some = rows[:: len(rows) // _ROWS_WEIGHED + 1]
    return bytes_of(some) * len(rows) // len(some)


def as_text(value: object) -> str:
    """Return a value as text, the same from every database: instants in UTC with microseconds, bytes in hexadecimal."""
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return instant_text(value) if value.tzinfo else value.isoformat()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=as_text)
    return str(value)
