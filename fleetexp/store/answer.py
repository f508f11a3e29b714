"""What a question brings: names and kinds of the columns, and the rows in batches."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from fleetexp.errors import QueryRefused
from fleetexp.store.column_types import instant_text
from fleetexp.store.rows import Row
from fleetexp.store.view import ColumnKind

TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to a question, read as it is iterated. A kind is None where the database knows it by the value only.

    Instants are datetimes or, from SQLite, the text that it keeps; documents are text.
    """

    columns: tuple[str, ...]
    kinds: tuple[ColumnKind | None, ...]
    batches: Iterator[list[Row]]


class Reader(Protocol):
    """A database opened for questions only."""

    def ask(self, sql: str, *, batch_rows: int) -> Answer:
        """Answer one question; QueryRefused where it is wrong, would write, or takes too long."""
        ...


def took_too_long(where: str, timeout_seconds: float) -> QueryRefused:
    """Return what is said of a question that was cut off."""
    return QueryRefused(
        f"the query took longer than {timeout_seconds:g} s",
        where,
        "name a run, a metric, a host in its WHERE, or give it more time with --timeout",
    )


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
