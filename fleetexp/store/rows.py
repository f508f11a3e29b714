"""Readings of a host as rows of the tables: what goes where, in which order, with which types."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from agents.messages import Measurement, Sample
from fleetexp.store.column_types import clean_text
from fleetexp.store.tables import METRIC_COLUMNS, column_of

Row: TypeAlias = tuple[Any, ...]
WriteInstant: TypeAlias = Callable[[datetime], Any]
WriteExtra: TypeAlias = Callable[[dict[str, float]], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A table that takes many rows at once: its columns in the order of the rows, and their PostgreSQL types."""

    table: str
    columns: Mapping[str, str]


SAMPLES = Target(
    table="sample",
    columns={
        "period_id": "int8",
        "sequence": "int8",
        "taken_at": "timestamptz",
        "boottime_seconds": "float8",
        "extra": "jsonb",
        **{column_of(name): "float8" for name in METRIC_COLUMNS},
    },
)
MEASUREMENTS = Target(
    table="measurement",
    columns={"period_id": "int8", "sequence": "int8", "taken_at": "timestamptz", "metric": "text", "value": "float8"},
)
EVENTS = Target(
    table="event",
    columns={
        "run_id": "int8",
        "host_id": "int8",
        "period_id": "int8",
        "sequence": "int8",
        "at": "timestamptz",
        "kind": "text",
        "detail": "text",
    },
)

_HAS_COLUMN = frozenset(METRIC_COLUMNS)
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


def extra_text(extra: dict[str, float]) -> str:
    """Write the metrics without a column as JSON."""
    return _encode(extra)


def sample_rows(samples: Iterable[Sample], write_instant: WriteInstant, write_extra: WriteExtra) -> Iterator[Row]:
    """Yield the samples as rows of SAMPLES. What is not finite was not measured: it is left out."""
    for sample in samples:
        values = sample.values
        if not math.isfinite(sum(values.values())):
            values = {name: value for name, value in values.items() if math.isfinite(value)}
        common, others = _layout(tuple(values))
        have = values.get
        yield (
            sample.period_id,
            sample.sequence,
            write_instant(sample.taken_at),
            sample.boottime_seconds,
            write_extra(dict(zip(others, map(values.__getitem__, others), strict=True))) if others else None,
            *(common(values) if common is not None else map(have, METRIC_COLUMNS)),
        )


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...]) -> tuple[itemgetter[Any] | None, tuple[str, ...]]:
    """Split the names of a sample: how to take those with columns (None: some are missing), and the others.

    A host's samples all have the same names, so this is worked out once a host and kernel.
    """
    others = tuple(name for name in names if name not in _HAS_COLUMN)
    return (itemgetter(*METRIC_COLUMNS) if _HAS_COLUMN.issubset(names) else None), others


def measurement_rows(measurements: Iterable[Measurement], write_instant: WriteInstant) -> Iterator[Row]:
    """Yield the measurements as rows of MEASUREMENTS; what is not finite is left out."""
    for one in measurements:
        if math.isfinite(one.value):
            yield one.period_id, one.sequence, write_instant(one.taken_at), clean_text(one.metric), one.value
