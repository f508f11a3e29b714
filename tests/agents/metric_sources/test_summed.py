"""Sums of counters: they rise by what each series rose by, and fall where one falls."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from agents.metric_sources.summed import SummedCounter

RISES = st.lists(st.lists(st.integers(0, 10**6), min_size=3, max_size=3), min_size=1, max_size=20)


def totals(rises: list[list[int]]) -> list[dict[str, float]]:
    """What three counters show after each step."""
    columns = (itertools.accumulate(column) for column in zip(*rises, strict=True))
    return [dict(zip("abc", map(float, row), strict=True)) for row in zip(*columns, strict=True)]


@given(RISES)
def test_counters_that_only_rise_give_their_plain_sum(rises: list[list[int]]) -> None:
    counter = SummedCounter()
    for shown in totals(rises):
        assert counter.add(shown) == (sum(shown.values()), "")


@given(RISES, st.sampled_from("abc"), st.floats(0, 1, exclude_max=True), st.integers(0, 10**9))
def test_one_that_falls_makes_the_sum_fall_whatever_the_others_rise_by(
    rises: list[list[int]], which: str, share: float, others: int
) -> None:
    counter = SummedCounter()
    shown = totals(rises)
    before = max(counter.add(one)[0] for one in shown)
    last = {name: total + 1 for name, total in shown[-1].items()}
    before, _ = counter.add(last)
    fallen = {name: total + others for name, total in last.items()} | {which: last[which] * share}
    total, fell = counter.add(fallen)
    assert (total < before, fell) == (True, which)


@given(RISES, st.sets(st.sampled_from("abc"), max_size=2))
def test_one_that_is_left_out_and_comes_back_costs_nothing(rises: list[list[int]], out: set[str]) -> None:
    counter = SummedCounter()
    shown = totals(rises)
    counter.add(shown[0])
    for one in shown:
        assert counter.add({name: total for name, total in one.items() if name not in out})[1] == ""
    assert counter.add(shown[-1]) == (sum(shown[-1].values()), "")


def test_a_fall_that_no_double_shows_is_a_fall() -> None:
    counter = SummedCounter()
    before, _ = counter.add({"a": 1e18, "b": 5.0})
    assert counter.add({"a": 1e18, "b": 4.0})[0] < before


def test_a_new_one_counts_from_zero_unless_it_brings_a_history() -> None:
    counter = SummedCounter()
    assert counter.add({"a": 100.0}) == (100.0, "")
    assert counter.add({"a": 150.0}) == (150.0, "")
    assert counter.add({"a": 150.0, "new": 400.0}) == (550.0, "")  # eight of the largest steps
    assert counter.add({"a": 150.0, "new": 400.0, "old": 1e6}) == (550.0, "")
    assert counter.add({"a": 150.0, "new": 400.0, "old": 1e6 + 7}) == (557.0, "")


def test_the_first_error_of_a_quiet_service_is_counted() -> None:
    counter = SummedCounter()
    assert counter.add({"200": 1e6}) == (1e6, "")
    assert counter.add({"200": 1e6, "500": 1.0}) == (1e6 + 1, "")
