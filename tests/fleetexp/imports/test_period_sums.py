"""Sums by period of rows that stream by, in whatever order the keys come, against a plain sum of all of them."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetexp.errors import DataRefused
from fleetexp.imports.summaries import PeriodSummaries

LENGTH = 10
Row = tuple[int, int]  # key, time


def add(sums: PeriodSummaries, rows: list[Row], first: int = 0) -> None:
    keys, times = (np.array([row[place] for row in rows], dtype=np.int64) for place in (0, 1))
    whole = keys * 1000.0 + times
    sums.add(keys, times, [whole, np.where(times % 3 == 0, np.nan, -whole)], lambda place: f"row {first + place}")


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Rows whose times rise within each key: by time, key by key, or mixed."""
    times = draw(st.dictionaries(st.integers(0, 70_000), st.sets(st.integers(-30, 60), min_size=1), min_size=1))
    rows = [(key, time) for key, own in times.items() for time in sorted(own)]
    order = draw(st.sampled_from(["by time", "by key", "mixed"]))
    if order == "by time":
        return sorted(rows, key=lambda row: (row[1], row[0]))
    if order == "mixed":
        turns = draw(st.permutations([key for key, _ in rows]))
        left = {key: iter(sorted(own)) for key, own in times.items()}
        return [(key, next(left[key])) for key in turns]
    return rows


@given(streams(), st.integers(1, 40))
def test_sums_are_those_of_all_rows_whatever_their_order_and_batches(rows: list[Row], batch: int) -> None:
    sums = PeriodSummaries(LENGTH)
    for first in range(0, len(rows), batch):
        add(sums, rows[first : first + batch], first)
    found = sums.finish()
    plain: dict[tuple[int, int, int], list[float]] = defaultdict(list)
    for key, time in rows:
        plain[key, time // LENGTH, 0].append(key * 1000.0 + time)
        if time % 3:
            plain[key, time // LENGTH, 1].append(-key * 1000.0 - time)
    places = zip(found.key.tolist(), found.bucket.tolist(), found.column.tolist(), strict=True)
    figures = (found.n, found.mean, found.spread.minimum, found.spread.maximum)
    got = dict(zip(places, zip(*(figure.tolist() for figure in figures), strict=True), strict=True))
    assert len(found.key) == len(plain)
    assert got == {
        place: (len(values), pytest.approx(np.mean(values)), min(values), max(values))
        for place, values in plain.items()
    }


@given(streams(), st.integers(1, 40), st.data())
def test_the_first_row_that_is_not_later_is_refused_in_whichever_batch(
    rows: list[Row], batch: int, data: st.DataObject
) -> None:
    source = data.draw(st.integers(0, len(rows) - 1))
    place = data.draw(st.integers(source + 1, len(rows)))
    key, time = rows[source]
    latest = max(other for one, other in rows[:place] if one == key)
    bad = data.draw(st.integers(time, latest))
    sums = PeriodSummaries(LENGTH)
    faulty = [*rows[:place], (key, bad), *rows[place:]]
    with pytest.raises(DataRefused, match="already" if bad == latest else "earlier") as refused:
        for first in range(0, len(faulty), batch):
            add(sums, faulty[first : first + batch], first)
    assert refused.value.where == f"row {place}"


@pytest.mark.parametrize("hosts_at_once", [1, 50])
def test_what_is_held_does_not_grow_with_hosts_that_are_done(hosts_at_once: int) -> None:
    """Host after host, each with many periods: the readings of those before it are summed up and let go."""

    def peak(batches: int) -> int:
        sums = PeriodSummaries(100)
        times = np.tile(np.arange(2000), hosts_at_once)
        tracemalloc.start()
        for batch in range(batches):
            keys = np.repeat(np.arange(hosts_at_once) + batch * hosts_at_once, 2000)
            sums.add(keys, times, [np.ones(len(keys))], str)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    values = 8 * 2000 * hosts_at_once
    assert peak(12) - peak(4) < 8 * values / 2
