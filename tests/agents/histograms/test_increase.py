"""What buckets rose by over a period: as a counter of its own each, until one of them begins anew."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.histograms.buckets import UnusableHistogram
from agents.histograms.increase import HistogramIncrease

INF = math.inf
rises = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)), min_size=1, max_size=8)


@given(a=rises, b=rises, before=st.integers(0, 10**6))
def test_the_increase_is_what_happened_in_the_period(
    a: list[tuple[int, int]], b: list[tuple[int, int]], before: int
) -> None:
    increase = HistogramIncrease()
    state = {"a": [before, 2 * before], "b": [7, 7]}

    def read() -> dict[str, dict[float, float]]:
        return {name: {1.0: float(low), INF: float(every)} for name, (low, every) in state.items()}

    increase.add(read())
    for name, happened in (("a", a), ("b", b)):
        for below, above in happened:
            state[name] = [state[name][0] + below, state[name][1] + below + above]
            increase.add(read() if below % 2 else {name: read()[name]})
    increase.add(read())
    assert increase.total() == {
        1.0: sum(below for below, _ in (*a, *b)),
        INF: sum(below + above for below, above in (*a, *b)),
    }


def test_a_series_that_appears_counts_from_there_on() -> None:
    increase = HistogramIncrease()
    increase.add({"a": {1.0: 1.0, INF: 2.0}})
    increase.add({"a": {1.0: 1.0, INF: 3.0}, "b": {1.0: 5000.0, INF: 9000.0}})
    increase.add({"a": {1.0: 1.0, INF: 3.0}, "b": {1.0: 5001.0, INF: 9001.0}})
    assert increase.total() == {1.0: 1.0, INF: 2.0}


@pytest.mark.parametrize(
    ("later", "why"),
    [({1.0: 0.0, INF: 50.0}, "began anew"), ({1.0: 9.0, 2.0: 9.0, INF: 50.0}, "buckets of a have changed")],
)
def test_what_began_anew_is_told_once_and_has_no_increase(later: dict[float, float], why: str) -> None:
    increase = HistogramIncrease()
    increase.add({"a": {1.0: 5.0, INF: 8.0}})
    with pytest.raises(UnusableHistogram, match=why):
        increase.add({"a": later})
    increase.add({"a": {1.0: 500.0, INF: 800.0}})
    with pytest.raises(UnusableHistogram, match=why):
        increase.total()


def test_a_series_that_began_later_than_before_began_anew_however_far_it_has_come() -> None:
    increase = HistogramIncrease()
    increase.add({"a": {1.0: 5.0, INF: 8.0}}, {"a": 100.0})
    increase.add({"a": {1.0: 6.0, INF: 9.0}}, {"a": 100.0})
    with pytest.raises(UnusableHistogram, match="a began anew"):
        increase.add({"a": {1.0: 500.0, INF: 800.0}}, {"a": 200.0})
