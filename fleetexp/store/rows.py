"""Readings of a host as rows of the tables: what goes where, in which order, with which types."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeAlias

from pydantic_core import to_json

from agents.messages import Measurement, Sample
from fleetexp.store.column_types import clean_text
from fleetexp.store.tables import METRIC_COLUMNS, column_of

Row: TypeAlias = tuple[Any, ...]
WriteInstant: TypeAlias = Callable[[datetime], Any]
WriteJson: TypeAlias = Callable[[bytes], Any]
Take: TypeAlias = Callable[[Mapping[str, float]], tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A table that takes many rows at once: its columns in the order of the rows, and their PostgreSQL types."""

    table: str
    columns: Mapping[str, str]


SAMPLE_HEAD = {
    "period_id": "int8",
    "sequence": "int8",
    "taken_at": "timestamptz",
    "boottime_seconds": "float8",
    "extra": "jsonb",
}
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Layout:
    """Where the values of samples with the same metrics go: some into columns, the others into `extra`."""

    target: Target
    take_common: Take
    others: tuple[str, ...]
    take_others: Take


@lru_cache(maxsize=256)
def _layout(names: tuple[str, ...]) -> _Layout:
    """Work out where the metrics of a sample go: once for each kind of host, because its samples all have the same."""
    common = tuple(name for name in names if name in _HAS_COLUMN)
    others = tuple(name for name in names if name not in _HAS_COLUMN)
    target = Target(table="sample", columns={**SAMPLE_HEAD, **{column_of(name): "float8" for name in common}})
    return _Layout(target=target, take_common=_taker(common), others=others, take_others=_taker(others))


def _taker(names: Sequence[str]) -> Take:
    if len(names) > 1:
        take: Take = itemgetter(*names)
        return take
    return lambda values: tuple(values[name] for name in names)


class SampleRows(Collection[Row]):
    """Samples with the same metrics as rows, made as they are taken: while the database works on those before."""

    def __init__(self, layout: _Layout, write_instant: WriteInstant, write_json: WriteJson) -> None:
        self._layout = layout
        self._write_instant = write_instant
        self._write_json = write_json
        self._samples: list[tuple[Sample, Mapping[str, float]]] = []

    def add(self, sample: Sample, values: Mapping[str, float]) -> None:
        """Take a sample in, with those of its values that were measured."""
        self._samples.append((sample, values))

    def __len__(self) -> int:
        return len(self._samples)

    def __contains__(self, row: object) -> bool:
        return any(row == one for one in self)

    def __iter__(self) -> Iterator[Row]:
        write_instant, write_json = self._write_instant, self._write_json
        others, take_others, take_common = self._layout.others, self._layout.take_others, self._layout.take_common
        for sample, values in self._samples:
            yield (
                sample.period_id,
                sample.sequence,
                write_instant(sample.taken_at),
                sample.boottime_seconds,
                write_json(to_json(dict(zip(others, take_others(values), strict=True)))) if others else None,
                *take_common(values),
            )


def sample_rows(
    samples: Iterable[Sample], write_instant: WriteInstant, write_json: WriteJson
) -> list[tuple[Target, SampleRows]]:
    """Return the samples as rows, those with the same metrics together. What is not finite was not measured."""
    groups: dict[tuple[str, ...], tuple[Target, SampleRows]] = {}
    for sample in samples:
        values = sample.values
        if not math.isfinite(sum(values.values())):
            values = {name: value for name, value in values.items() if math.isfinite(value)}
        names = tuple(values)
        if names not in groups:
            layout = _layout(names)
            groups[names] = layout.target, SampleRows(layout, write_instant, write_json)
        groups[names][1].add(sample, values)
    return list(groups.values())


def measurement_rows(measurements: Iterable[Measurement], write_instant: WriteInstant) -> Iterator[Row]:
    """Yield the measurements as rows of MEASUREMENTS; what is not finite is left out."""
    for one in measurements:
        if math.isfinite(one.value):
            yield one.period_id, one.sequence, write_instant(one.taken_at), clean_text(one.metric), one.value
