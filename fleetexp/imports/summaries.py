"""Readings to one summary a series and period, as they stream by: only the periods that are still open are held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.aggregate import ReadingSpread, spread
from fleetexp.errors import DataRefused

Whole = NDArray[np.int64]
Reals = NDArray[np.float64]
_ROW = np.dtype(
    [
        *((name, np.int64) for name in ("key", "bucket", "column", "n")),
        *((name, np.float64) for name in ("mean", *ReadingSpread._fields)),
    ]
)
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

    def __init__(self, length: int, width: int) -> None:
        self._length = length
        self._keys = np.empty(0, np.int64)
        self._times = np.empty(0, np.int64)
        self._values = np.empty((0, width))
        self._closed = np.empty(_FIRST_ROOM, _ROW)
        self._count = 0

    def add(self, keys: Whole, times: Whole, values: Reals, at: Callable[[int], str]) -> None:
        """Take rows: `values` is [row, column], NaN where there is none; `at` says where a row stands.

        DataRefused where a key has a time twice, or one that is earlier than the one before.
        """
        waiting = len(self._keys)
        keys = np.concatenate([self._keys, keys])
        times = np.concatenate([self._times, times])
        values = np.concatenate([self._values, values])
        if (keys[1:] < keys[:-1]).any():
            keys = keys.astype(np.uint16) if keys.max() < _SHORT else keys
            order = np.argsort(keys, kind="stable")
            keys, times, values = keys[order], times[order], values[order]
        else:
            order = np.arange(len(keys))
        same = keys[1:] == keys[:-1]
        if (fault := same & (times[1:] <= times[:-1])).any():
            places = np.flatnonzero(fault) + 1
            place = int(places[np.argmin(order[places])])  # the first in the order of the rows
            raise _not_rising(twice=bool(times[place] == times[place - 1]), where=at(int(order[place]) - waiting))
        bucket = times // self._length
        begins = np.flatnonzero(np.concatenate([[True], ~same | (bucket[1:] != bucket[:-1])])) if len(keys) else order
        last = np.concatenate([keys[begins[1:]] != keys[begins[:-1]], [True]])[: len(begins)]
        counts = np.diff(np.append(begins, len(keys)))
        self._close(keys, bucket, values, begins[~last], counts[~last])
        rows = np.flatnonzero(np.repeat(last, counts))
        self._keys, self._times, self._values = keys[rows].astype(np.int64), times[rows], values[rows]

    def finish(self) -> Summaries:
        """Close what is open, and return everything."""
        keys, bucket = self._keys, self._times // self._length
        begins = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else keys
        self._close(keys, bucket, self._values, begins, np.diff(np.append(begins, len(keys))))
        closed = {name: self._closed[name][: self._count].copy() for name in _ROW.names or ()}
        figures = [closed.pop(name) for name in ReadingSpread._fields]
        return Summaries(**closed, spread=ReadingSpread(*figures))

    def _keep(self, rows: int, **columns: Whole | Reals | int) -> None:
        """Put closed periods behind those there are: into one array, lest they lie all over the memory."""
        room, count = len(self._closed), self._count + rows
        if count > room:
            grown = np.empty(max(count, 2 * room), _ROW)
            grown[: self._count] = self._closed[: self._count]
            self._closed = grown
        for name, values in columns.items():
            self._closed[name][self._count : count] = values
        self._count = count

    def _close(self, keys: Whole, bucket: Whole, values: Reals, begins: Whole, counts: Whole) -> None:
        width = values.shape[1]
        for count in np.unique(counts).tolist():
            first = begins[counts == count]
            table = values[first + np.arange(count)[:, np.newaxis]].reshape(count, -1)
            whole = [np.repeat(part[first].astype(np.int64), width) for part in (keys, bucket)]
            column = np.tile(np.arange(width), len(first))
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
                    column=column[chosen],
                    n=found,
                    mean=readings.mean(axis=0),
                    **spread(readings)._asdict(),
                )


def _not_rising(*, twice: bool, where: str) -> DataRefused:
    if twice:
        return DataRefused("the host has a value of this time already", where, "keep one of the two rows")
    return DataRefused(
        "the time is earlier than the one before it of the same host",
        where,
        "sort the rows by time; files are read in the order in which they are named",
    )
