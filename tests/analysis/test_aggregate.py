"""A period's readings to one summary per metric."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.aggregate import summarise, summarise_many
from analysis.errors import BadObservations, NotEnoughData


def test_gauge_is_summarised_as_read() -> None:
    found = summarise([0, 1, 2, 3], [1.0, 2.0, 3.0, 6.0], "gauge")
    assert (found.n, found.mean, found.minimum, found.maximum, found.p50) == (4, 3.0, 1.0, 6.0, 2.5)
    assert found.variance == pytest.approx(np.var([1, 2, 3, 6], ddof=1))
    assert found.p99 == pytest.approx(np.quantile([1, 2, 3, 6], 0.99))


def test_counter_is_a_rate_and_its_mean_the_whole_rise_over_the_elapsed_time() -> None:
    found = summarise([0, 1, 11], [100, 110, 210], "counter")
    assert (found.n, found.mean, found.minimum, found.maximum) == (2, 10.0, 10.0, 10.0)
    uneven = summarise([0, 1, 11], [0, 10, 20], "counter")
    assert uneven.mean == pytest.approx(20 / 11)
    assert uneven.maximum == 10


def test_the_rise_of_a_counter_is_the_kernels_own_count_whatever_the_clock_says() -> None:
    found = summarise([0.1, 0.23, 0.403], [1.0, 1.0, 513.0], "counter")
    assert found.rise == 512.0  # the mean times any measured length is that only nearly
    assert summarise([0, 1], [1.0, 2.0], "gauge").rise is None


def test_single_gauge_reading_has_no_variance() -> None:
    found = summarise([5.0], [7.0], "gauge")
    assert (found.n, found.mean, found.variance, found.p99) == (1, 7.0, 0.0, 7.0)


def test_constant_counter_is_zero() -> None:
    found = summarise([0, 1, 2], [4, 4, 4], "counter")
    assert (found.mean, found.variance, found.maximum) == (0, 0, 0)


@pytest.mark.parametrize(
    ("times", "values", "kind", "error", "says"),
    [
        ([], [], "gauge", NotEnoughData, "without readings"),
        ([1.0], [1.0], "counter", NotEnoughData, "two readings"),
        ([0, 1, 2], [5, 9, 3], "counter", BadObservations, "went down"),
        ([0, 0, 2], [5, 9, 13], "counter", BadObservations, "do not rise"),
        ([0, 1], [5, float("nan")], "gauge", BadObservations, "not a finite number"),
        ([0, float("inf")], [5, 6], "gauge", BadObservations, "instant"),
        ([0, 1], [5], "gauge", BadObservations, "do not fit"),
        ([0, 1], [[5], [6]], "gauge", BadObservations, "flat list"),
    ],
)
def test_readings_without_a_summary_are_refused(
    times: list[float], values: list[float], kind: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        summarise(times, values, kind)  # type: ignore[arg-type]


def test_the_metric_at_fault_is_named() -> None:
    with pytest.raises(BadObservations, match="splits"):
        summarise_many([0, 1], [[1, 5], [1, 4]], ("gauge", "counter"), names=("memory", "splits"))


@given(
    table=st.lists(st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3), min_size=2, max_size=20),
)
def test_many_at_once_is_the_same_as_one_by_one(table: list[list[float]]) -> None:
    times = np.arange(len(table), dtype=float)
    read = np.array(table)
    read[:, 1] = np.sort(read[:, 1])
    kinds = ("gauge", "counter", "gauge")
    together = summarise_many(times, read, kinds)
    apart = [summarise(times, read[:, place], kind) for place, kind in enumerate(kinds)]
    for one, other in zip(together, apart, strict=True):
        assert one.n == other.n
        assert (one.mean, one.minimum, one.p50) == pytest.approx((other.mean, other.minimum, other.p50), abs=1e-6)
        assert one.minimum - 1e-6 <= one.p50 <= one.p99 + 1e-6 <= one.maximum + 2e-6
