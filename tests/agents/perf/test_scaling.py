"""Scaling of multiplexed counts, on readings made up for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.perf.scaling import ScaledCount, emit

SECOND = 1_000_000_000


def test_an_event_that_was_always_on_is_not_scaled() -> None:
    count = ScaledCount()
    count.add({0: (100, SECOND, SECOND), 1: (50, SECOND, SECOND)})
    assert (count.total, count.invalid) == (150.0, "")
    assert (count.enabled_seconds, count.running_seconds) == (2.0, 2.0)


def test_a_multiplexed_event_is_scaled_by_the_time_it_missed() -> None:
    count = ScaledCount()
    count.add({0: (100, 4 * SECOND, SECOND)})
    assert count.total == 400.0
    assert (count.enabled_seconds, count.running_seconds) == (4.0, 1.0)


def test_each_interval_is_scaled_by_its_own_coverage() -> None:
    count = ScaledCount()
    count.add({0: (100, SECOND, SECOND)})
    count.add({0: (200, 3 * SECOND, 2 * SECOND)})  # the second interval was seen for half of its two seconds
    assert count.total == 100.0 + 200.0


def test_below_the_floor_the_count_is_invalid_and_not_scaled() -> None:
    count = ScaledCount()
    count.add({0: (100, SECOND, SECOND)})
    count.add({0: (101, 11 * SECOND, SECOND + SECOND // 10)})
    assert "less than 20%" in count.invalid
    assert count.total == 100.0


def test_an_interval_below_the_floor_is_joined_to_the_next() -> None:
    count = ScaledCount()
    count.add({0: (0, SECOND, 0)})
    assert count.invalid
    count.add({0: (300, 2 * SECOND, SECOND)})
    assert (count.total, count.invalid) == (600.0, "")
    assert (count.enabled_seconds, count.running_seconds) == (2.0, 1.0)


def test_one_cpu_that_was_not_seen_makes_the_whole_count_invalid() -> None:
    count = ScaledCount()
    count.add({0: (100, SECOND, SECOND), 1: (0, SECOND, 0)})
    assert "on 50% of CPU time" in count.invalid


def test_a_cpu_with_next_to_no_time_does_not_spoil_the_rest() -> None:
    count = ScaledCount()
    count.add({0: (100, SECOND, SECOND), 1: (0, SECOND // 1000, 0)})
    assert (count.total, count.invalid) == (100.0, "")


def test_a_period_does_not_inherit_what_the_one_before_did_not_see() -> None:
    out: dict[str, float] = {}
    why: dict[str, str] = {}
    count = ScaledCount()
    emit("cycles", count, {0: (10, 100 * SECOND, SECOND)}, out, why, boundary=True)
    assert "cycles" not in out
    assert "cycles" in why
    emit("cycles", count, {0: (30, 102 * SECOND, 2 * SECOND)}, out, why, boundary=False)
    assert out["cycles"] == 40.0
    assert not why


def test_times_are_kept_also_where_the_count_is_invalid() -> None:
    out: dict[str, float] = {}
    emit("cycles", ScaledCount(), {0: (10, SECOND, SECOND // 100)}, out, {}, boundary=False)
    assert set(out) == {"cycles_time_enabled_seconds", "cycles_time_running_seconds"}


def test_an_event_counted_nowhere_is_absent_with_the_reason() -> None:
    out: dict[str, float] = {}
    why: dict[str, str] = {}
    emit("cycles", ScaledCount(), {}, out, why, boundary=False)
    assert out == {}
    assert "no CPU" in why["cycles"]


def test_a_cpu_that_comes_back_counts_from_its_new_start() -> None:
    count = ScaledCount()
    count.add({1: (100, SECOND, SECOND)})
    count.forget(1)
    count.add({1: (7, SECOND, SECOND)})
    assert count.total == 107.0


def test_standing_still_is_noticed() -> None:
    count = ScaledCount()
    count.add({0: (1, SECOND, SECOND), 1: (1, SECOND, SECOND)})
    assert count.still == []
    count.add({0: (1, SECOND, SECOND), 1: (2, 2 * SECOND, 2 * SECOND)})
    assert count.still == [0]


steps = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0, 1)).map(
        lambda step: (step[0], step[1], int(step[1] * step[2]))
    ),
    min_size=1,
    max_size=30,
)


@given(steps)
def test_totals_never_fall_and_times_never_exceed_what_passed(intervals: list[tuple[int, int, int]]) -> None:
    count, reading, before = ScaledCount(), (0, 0, 0), 0.0
    for events, enabled, running in intervals:
        reading = (reading[0] + (events if running else 0), reading[1] + enabled, reading[2] + running)
        count.add({0: reading})
        assert count.total >= before
        before = count.total
        assert count.enabled_seconds <= reading[1] * 1e-9 * (1 + 1e-9)
        assert count.running_seconds <= count.enabled_seconds * (1 + 1e-9)


@given(st.floats(0.2, 1.0), st.integers(1, 50))
def test_a_steady_rate_is_recovered_whatever_the_coverage(coverage: float, intervals: int) -> None:
    count, rate = ScaledCount(), 1000
    for step in range(1, intervals + 1):
        running = int(step * SECOND * coverage) + step
        count.add({0: (rate * running, step * SECOND, min(running, step * SECOND))})
    assert count.total == pytest.approx(rate * intervals * SECOND, rel=1e-6)
