"""Readings to one summary a series and period, as they stream by: only the periods that are still open are held."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from analysis.aggregate import ReadingSpread, spread
from fleetexp.errors import DataRefused
from fleetexp.imports.cells import NEVER

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]
_KINDS: dict[str, type[np.int64 | np.float64]] = {
    **dict.fromkeys(("key", "bucket", "column", "n"), np.int64),
    **dict.fromkeys(("mean", *ReadingSpread._fields), np.float64),
}
_FIRST_ROOM = 1 << 12
_SHORT = 1 << 16  # keys below it are sorted by their digits, which takes a fifth of the time


@dataclass(frozen=True, slots=True, kw_only=True)
class Summaries:
    """One entry a series and period, in no order. `column` is the place of the metric in the rows that were added."""

    key: Whole
    bucket: Whole
    column: Whole
    n: Whole
    mean: Reals
    spread: ReadingSpread


class PeriodSummaries:
    """Takes rows whose times rise within each key, and closes a key's period when a later one begins.

    `length` of a period in microseconds. Memory: the readings of one open period a key, and what is closed.
    """

    def __init__(self, length: int) -> None:
        self._length = length
        self._latest = np.empty(0, np.int64)  # by key, of its rows so far
        self._end: tuple[int, int] | None = (NEVER, 0)  # of rows so far, while they rise in time, then in key
        self._open: list[tuple[Whole, Whole, *tuple[Reals, ...]]] = []  # key, bucket, values: the period may go on
        self._closed: dict[str, NDArray[Any]] = {name: np.empty(_FIRST_ROOM, kind) for name, kind in _KINDS.items()}
        self._count = 0

    def add(self, keys: Whole, times: Whole, values: Sequence[Reals], at: Callable[[int], str]) -> None:
        """Take rows: `values` are by column, NaN where there is none; `at` says where a row stands.

        DataRefused where a key has a time twice, or one that is earlier than the one before.
        """
        if not len(keys):
            return
        largest = int(keys.max())
        keys = keys.astype(np.uint16) if largest < _SHORT else keys
        if (more := largest + 1 - len(self._latest)) > 0:
            self._latest = np.append(self._latest, np.full(more, NEVER))
        if not self._goes_on(keys, times):  # else each key's rows have to be looked at
            self._refuse_falling(keys, times, at)
        before = np.where(self._latest == NEVER, times.min(), self._latest)
        self._latest[keys] = times
        self._open.append((keys, times // self._length, *values))
        if (before // self._length < self._latest // self._length).any():
            self._close_periods(ended_only=True)

    def _goes_on(self, keys: Whole, times: Whole) -> bool:
        """Whether all rows so far rise in time, and where that is the same, in key."""
        later, same = times[1:] > times[:-1], times[1:] == times[:-1]
        begins_later = self._end is not None and self._end < (int(times[0]), int(keys[0]))
        if begins_later and bool((later | (same & (keys[1:] > keys[:-1]))).all()):
            self._end = int(times[-1]), int(keys[-1])
        else:
            self._end = None
        return self._end is not None

    def _refuse_falling(self, keys: Whole, times: Whole, at: Callable[[int], str]) -> None:
        """Raise DataRefused for the first row that is not later than the one before it of the same key."""
        keys, order = _sorted(keys)
        times = times.take(order)
        begins = _changes(keys)
        previous = np.append(NEVER, times[:-1])
        previous[begins] = self._latest[keys[begins]]
        if (fault := times <= previous).any():
            places = np.flatnonzero(fault)
            place = int(places[np.argmin(order[places])])
            raise _not_rising(twice=bool(times[place] == previous[place]), where=at(int(order[place])))

    def finish(self) -> Summaries:
        """Close what is open, and return everything."""
        if self._open:
            self._close_periods(ended_only=False)
        closed = {name: column[: self._count] for name, column in self._closed.items()}
        figures = [closed.pop(name) for name in ReadingSpread._fields]
        return Summaries(**closed, spread=ReadingSpread(*figures))

    def _close_periods(self, *, ended_only: bool) -> None:
        """Sum up the periods that are held: all, or those after which the same key has begun another."""
        unsorted, buckets, *values = map(np.concatenate, zip(*self._open, strict=True))
        self._open.clear()
        keys, order = _sorted(unsorted)
        bucket = buckets.take(order)
        begins = np.flatnonzero(_changes(keys) | _changes(bucket))
        counts = np.diff(np.append(begins, len(keys)))
        last = np.append(keys[begins[1:]] != keys[begins[:-1]], True) & ended_only
        for count in np.unique(counts[~last]).tolist():
            places = sliding_window_view(order, count)[begins[~last & (counts == count)]]
            self._close(unsorted[places[:, 0]], buckets[places[:, 0]], places, values)
        left = order.take(np.flatnonzero(np.repeat(last, counts)))
        self._open = [(unsorted.take(left), buckets.take(left), *(column.take(left) for column in values))]

    def _keep(self, rows: int, **columns: Whole | Reals | int) -> None:
        """Put closed periods behind those there are: into one array each, lest they lie all over the memory."""
        count = self._count + rows
        for name, values in columns.items():
            if count > len(column := self._closed[name]):
                self._closed[name] = column = np.append(column, np.empty(max(rows, len(column)), column.dtype))
            column[self._count : count] = values
        self._count = count

    def _close(self, keys: Whole, bucket: Whole, places: Whole, values: Sequence[Reals]) -> None:
        """Sum up periods of as many rows each: `places` in `values` are [period, reading]."""
        count, width = places.shape[1], len(values)
        cells = np.empty((width, *places.shape))
        for column, found in zip(values, cells, strict=True):
            column.take(places, out=found, mode="clip")  # any other mode fills a copy first
        table = cells.reshape(-1, count).T  # [reading, column x period]
        whole = [np.tile(part.astype(np.int64), width) for part in (keys, bucket)]
        columns = np.repeat(np.arange(width), len(places))
        there = count - np.isnan(table).sum(axis=0)
        for found in np.unique(there[there > 0]).tolist():
            chosen = there == found
            readings = table if found == count and chosen.all() else table[:, chosen]
            if found < count:
                readings = np.sort(readings, axis=0)[:found]  # NaN comes last
            self._keep(
                readings.shape[1],
                key=whole[0][chosen],
                bucket=whole[1][chosen],
                column=columns[chosen],
                n=found,
                mean=readings.mean(axis=0),
                **spread(readings)._asdict(),
            )


def _sorted(keys: Whole) -> tuple[Whole, Whole]:
    """Return the keys in their order, and where each stood; equal ones as they came."""
    order = np.argsort(keys, kind="stable")
    return keys.take(order), order


def _changes(values: Whole) -> NDArray[np.bool_]:
    """Tell of each value whether it differs from the one before; the first does."""
    return np.append(True, values[1:] != values[:-1])


def _not_rising(*, twice: bool, where: str) -> DataRefused:
    if twice:
        return DataRefused("the host has a value of this time already", where, "keep one of the two rows")
    return DataRefused(
        "the time is earlier than the one before it of the same host",
        where,
        "sort the rows by time; files are read in the order in which they are named",
    )
