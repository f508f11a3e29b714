"""Readings of a host as rows of the tables: what goes where, in which order, with which types."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import repeat
from typing import Any, TypeAlias

import orjson
from numpy.typing import NDArray

from agents.messages import Measurement, Sample
from fleetexp.store.tables import METRIC_COLUMNS, column_of
from fleetexp.store.values import Row, clean_text

WriteInstant: TypeAlias = Callable[[datetime], Any]
WriteJson: TypeAlias = Callable[[bytes], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A table that takes many rows at once: its columns in the order of the rows, and how a binary COPY takes each."""

    table: str
    columns: Mapping[str, str]


# What PostgreSQL holds, sent as such: psycopg writes numbers and bytes in C, instants and documents in Python.
INSTANT = "int8"  # microseconds since 2000
DOCUMENT = "bytea"  # version of the format, then the text

SAMPLES = Target(
    table="sample",
    columns={
        "period_id": "int8",
        "sequence": "int8",
        "taken_at": INSTANT,
        "boottime_seconds": "float8",
        "extra": DOCUMENT,
        **{column_of(name): "float8" for name in METRIC_COLUMNS},
    },
)
MEASUREMENTS = Target(
    table="measurement",
    columns={"period_id": "int8", "sequence": "int8", "taken_at": INSTANT, "metric": "text", "value": "float8"},
)
EVENTS = Target(
    table="event",
    columns={
        "run_id": "int8",
        "host_id": "int8",
        "period_id": "int8",
        "sequence": "int8",
        "at": INSTANT,
        "kind": "text",
        "detail": "text",
        "metric": "text",
    },
)

_UNAVAILABLE = repeat(None)
_ROWS_AT_ONCE = 10_000


class ColumnRows(Collection[Row]):
    """Columns of one length as rows, each made as it is taken: of millions few wait in memory."""

    def __init__(self, columns: Sequence[NDArray[Any]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def __iter__(self) -> Iterator[Row]:
        for columns in self._parts():
            yield from zip(*columns, strict=True)

    def cells(self, rows: int) -> Iterator[list[Any]]:
        """Yield the cells of at most so many rows at once, row after row in one list: half the time of rows apart."""
        width = len(self._columns)
        for columns in self._parts():
            cells = [None] * (len(columns[0]) * width)
            for place, column in enumerate(columns):
                cells[place::width] = column
            yield from (cells[first : first + rows * width] for first in range(0, len(cells), rows * width))

    def _parts(self) -> Iterator[list[list[Any]]]:
        for first in range(0, len(self), _ROWS_AT_ONCE):
            yield [column[first : first + _ROWS_AT_ONCE].tolist() for column in self._columns]


class SampleRows(Collection[Row]):
    """Samples as rows of SAMPLES, each made as it is taken: none waits in memory. What is not finite is left out.

    Thousands of samples come at a time, of a hundred metrics and more: no metric may cost a step in Python.
    """

    def __init__(self, samples: Sequence[Sample], write_instant: WriteInstant, write_json: WriteJson) -> None:
        self._samples = samples
        self._write_instant = write_instant
        self._write_json = write_json

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def __iter__(self) -> Iterator[Row]:
        write_instant, write_json = self._write_instant, self._write_json
        for sample in self._samples:
            others: dict[str, float] = dict(sample.values)
            if not math.isfinite(sum(others.values())):
                others = {name: value for name, value in others.items() if math.isfinite(value)}
            common = tuple(map(others.pop, METRIC_COLUMNS, _UNAVAILABLE))
            yield (
                sample.period_id,
                sample.sequence,
                write_instant(sample.taken_at),
                sample.boottime_seconds,
                write_json(_json(others)) if others else None,
                *common,
            )


def _json(values: Mapping[str, float]) -> bytes:
    try:
        return orjson.dumps(values, default=float)
    except orjson.JSONEncodeError:  # a name out of undecodable bytes, a whole number of more than 64 bits
        return orjson.dumps({clean_text(name): float(value) for name, value in values.items()})


def measurement_rows(measurements: Iterable[Measurement], write_instant: WriteInstant) -> Iterator[Row]:
    """Yield the measurements as rows of MEASUREMENTS; what is not finite is left out."""
    for one in measurements:
        if math.isfinite(one.value):
            yield one.period_id, one.sequence, write_instant(one.taken_at), clean_text(one.metric), one.value
