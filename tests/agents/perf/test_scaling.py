"""Scaling of multiplexed counts, on readings made up for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.perf.scaling import ScaledCounts

SECOND = 1_000_000_000


def cycles() -> ScaledCounts:
    return ScaledCounts(["cycles"])


def test_an_event_that_was_always_on_is_not_scaled() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 100), 1: (SECOND, SECOND, 50)})
    assert (count.totals[0], count.invalid) == (150.0, "")
    assert (count.enabled_seconds, count.running_seconds) == (2.0, 2.0)


def test_a_multiplexed_event_is_scaled_by_the_time_it_missed() -> None:
    count = cycles()
    count.add({0: (4 * SECOND, SECOND, 100)})
    assert count.totals[0] == 400.0
    assert (count.enabled_seconds, count.running_seconds) == (4.0, 1.0)


def test_each_interval_is_scaled_by_its_own_coverage() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 100)})
    count.add({0: (3 * SECOND, 2 * SECOND, 200)})  # the second interval was seen for half of its two seconds
    assert count.totals[0] == 100.0 + 200.0


def test_below_the_floor_the_count_is_invalid_and_not_scaled() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 100)})
    count.add({0: (11 * SECOND, SECOND + SECOND // 10, 101)})
    assert "less than 20%" in count.invalid
    assert count.totals[0] == 100.0


def test_an_interval_below_the_floor_is_joined_to_the_next() -> None:
    count = cycles()
    count.add({0: (SECOND, 0, 0)})
    assert count.invalid
    count.add({0: (2 * SECOND, SECOND, 300)})
    assert (count.totals[0], count.invalid) == (600.0, "")
    assert (count.enabled_seconds, count.running_seconds) == (2.0, 1.0)


def test_one_cpu_that_was_not_seen_makes_the_whole_count_invalid() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 100), 1: (SECOND, 0, 0)})
    assert "on 50% of CPU time" in count.invalid


def test_a_cpu_with_next_to_no_time_does_not_spoil_the_rest() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 100), 1: (SECOND // 1000, 0, 0)})
    assert (count.totals[0], count.invalid) == (100.0, "")


def test_a_period_does_not_inherit_what_the_one_before_did_not_see() -> None:
    out: dict[str, float] = {}
    why: dict[str, str] = {}
    count = cycles()
    count.collect({0: (100 * SECOND, SECOND, 10)}, out, why, boundary=True)
    assert "cycles" not in out
    assert "cycles" in why
    count.collect({0: (102 * SECOND, 2 * SECOND, 30)}, out, why, boundary=False)
    assert out["cycles"] == 40.0
    assert not why


def test_times_are_kept_also_where_the_count_is_invalid() -> None:
    out: dict[str, float] = {}
    cycles().collect({0: (SECOND, SECOND // 100, 10)}, out, {}, boundary=False)
    assert set(out) == {"cycles_time_enabled_seconds", "cycles_time_running_seconds"}


def test_an_event_counted_nowhere_is_absent_with_the_reason() -> None:
    out: dict[str, float] = {}
    why: dict[str, str] = {}
    cycles().collect({}, out, why, boundary=False)
    assert out == {}
    assert "no CPU" in why["cycles"]


def test_a_cpu_that_comes_back_counts_from_its_new_start() -> None:
    count = cycles()
    count.add({1: (SECOND, SECOND, 100)})
    count.forget(1)
    count.add({1: (SECOND, SECOND, 7)})
    assert count.totals[0] == 107.0


def test_standing_still_is_noticed() -> None:
    count = cycles()
    count.add({0: (SECOND, SECOND, 1), 1: (SECOND, SECOND, 1)})
    assert count.still == []
    count.add({0: (SECOND, SECOND, 1), 1: (2 * SECOND, 2 * SECOND, 2)})
    assert count.still == [0]


def test_events_of_a_group_share_the_times_and_have_counts_of_their_own() -> None:
    out: dict[str, float] = {}
    counts = ScaledCounts(["page_faults", "context_switches"])
    counts.add({0: (SECOND, SECOND, 10, 1), 1: (SECOND, SECOND, 20, 2)})
    counts.collect({0: (3 * SECOND, 2 * SECOND, 15, 4), 1: (SECOND, SECOND, 20, 2)}, out, {}, boundary=False)
    assert out == {
        "page_faults": 30 + 5 * 2,
        "page_faults_time_enabled_seconds": 4.0,
        "page_faults_time_running_seconds": 3.0,
        "context_switches": 3 + 3 * 2,
        "context_switches_time_enabled_seconds": 4.0,
        "context_switches_time_running_seconds": 3.0,
    }


def test_a_group_less_one_event_goes_on_where_it_was() -> None:
    counts = ScaledCounts(["page_faults", "context_switches", "cpu_migrations"])
    counts.add({0: (SECOND, SECOND, 10, 1, 7)})
    fewer = counts.only(["page_faults", "cpu_migrations"])
    fewer.start_afresh({0: (5 * SECOND, 5 * SECOND, 100, 100)})
    fewer.add({0: (6 * SECOND, 6 * SECOND, 101, 102)})
    assert fewer.metrics == ("page_faults", "cpu_migrations")
    assert (fewer.totals, fewer.enabled_seconds) == ([11.0, 9.0], 2.0)


steps = st.lists(
    st.tuples(st.integers(0, 10**9), st.integers(1, 10**9), st.floats(0, 1)).map(
        lambda step: (step[0], step[1], int(step[1] * step[2]))
    ),
    min_size=1,
    max_size=30,
)


@given(steps)
def test_totals_never_fall_and_times_never_exceed_what_passed(intervals: list[tuple[int, int, int]]) -> None:
    count, reading, before = cycles(), (0, 0, 0), 0.0
    for events, enabled, running in intervals:
        reading = (reading[0] + enabled, reading[1] + running, reading[2] + (events if running else 0))
        count.add({0: reading})
        assert count.totals[0] >= before
        before = count.totals[0]
        assert count.enabled_seconds <= reading[0] * 1e-9 * (1 + 1e-9)
        assert count.running_seconds <= count.enabled_seconds * (1 + 1e-9)


@given(st.floats(0.2, 1.0), st.integers(1, 50))
def test_a_steady_rate_is_recovered_whatever_the_coverage(coverage: float, intervals: int) -> None:
    count, rate = cycles(), 1000
    for step in range(1, intervals + 1):
        running = int(step * SECOND * coverage) + step
        count.add({0: (step * SECOND, min(running, step * SECOND), rate * running)})
    assert count.totals[0] == pytest.approx(rate * intervals * SECOND, rel=1e-6)
