"""Answers as Parquet files: a typed column each, its meaning with it, written batch by batch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fleetexp.errors import StoreError
from fleetexp.store.read_only.answer import QueryResult, as_text
from fleetexp.store.values import ColumnKind, Row

BATCH_ROWS = 20_000
_TYPES = {
    ColumnKind.WHOLE: pa.int64(),
    ColumnKind.REAL: pa.float64(),
    ColumnKind.TEXT: pa.string(),
    ColumnKind.DOCUMENT: pa.string(),
    ColumnKind.FLAG: pa.bool_(),
    ColumnKind.INSTANT: pa.timestamp("us", tz="UTC"),
}
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")  # as SQLite keeps it


def kinds_seen(answer: QueryResult) -> tuple[ColumnKind, ...]:
    """Read an answer through and return what its columns hold, where the database knows that by the values only."""
    seen: list[set[ColumnKind]] = [set() for _ in answer.columns]
    for batch in answer.batches:
        for kinds, values in zip(seen, zip(*batch, strict=True), strict=True):
            kinds.update(_kind_of(value) for value in values if value is not None)
    return tuple(known or _common(kinds) for known, kinds in zip(answer.kinds, seen, strict=True))


def _kind_of(value: object) -> ColumnKind:
    if isinstance(value, bool):
        return ColumnKind.FLAG
    if isinstance(value, int):
        return ColumnKind.WHOLE
    if isinstance(value, float):
        return ColumnKind.REAL
    if isinstance(value, datetime) or (isinstance(value, str) and _INSTANT.fullmatch(value)):
        return ColumnKind.INSTANT
    return ColumnKind.TEXT


def _common(kinds: set[ColumnKind]) -> ColumnKind:
    if len(kinds) == 1:
        return next(iter(kinds))
    return ColumnKind.REAL if kinds == {ColumnKind.WHOLE, ColumnKind.REAL} else ColumnKind.TEXT


def write_parquet(
    path: Path,
    columns: Sequence[str],
    kinds: Sequence[ColumnKind],
    batches: Iterable[Sequence[Row]],
    *,
    meanings: Mapping[str, str] | None = None,
) -> int:
    """Write rows to a new file and return how many; StoreError where the file can't be written.

    Each column carries its meaning, unit included, as metadata. What was written of a file that fails stays behind:
    the caller writes to a name that nobody takes for the whole.
    """
    notes = meanings or {}
    if len(set(columns)) != len(columns):
        raise StoreError("two columns have the same name", ", ".join(columns), "name each with AS")
    schema = pa.schema(
        [
            pa.field(name, _TYPES[kind], metadata={"meaning": notes[name]} if name in notes else None)
            for name, kind in zip(columns, kinds, strict=True)
        ]
    )
    count = 0
    try:
        with path.open("xb") as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for batch in batches:
                arrays = [
                    pa.array([_converted(value, kind) for value in values], type=kind_type)
                    for values, kind, kind_type in zip(zip(*batch, strict=True), kinds, schema.types, strict=True)
                ]
                writer.write_batch(pa.record_batch(arrays, schema=schema))
                count += len(batch)
    except OSError as error:
        raise StoreError(
            f"the file can't be written: {error.strerror}", str(path), "check the disk and folder"
        ) from error
    return count


def _converted(value: object, kind: ColumnKind) -> object:
    if value is None:
        return None
    match kind:
        case ColumnKind.WHOLE | ColumnKind.REAL if isinstance(value, (int, float)):
            return int(value) if kind is ColumnKind.WHOLE else float(value)
        case ColumnKind.FLAG:
            return bool(value)
        case ColumnKind.INSTANT:
            at = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
            return at.astimezone(UTC)
    return as_text(value)
