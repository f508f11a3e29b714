"""A success rate's interval knows that requests of one host, or of one period, go alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis.report.shares import ClusterSums, success_interval

Counts = NDArray[np.float64]
DRAWS = 250


def sums(asked: Counts, given_: Counts) -> ClusterSums:
    return ClusterSums(
        clusters=len(asked),
        asked=float(asked.sum()),
        given=float(given_.sum()),
        asked_squared=float(asked @ asked),
        given_squared=float(given_ @ given_),
        product=float(asked @ given_),
    )


def test_worked_example_of_korn_and_graubard() -> None:
    asked, given_ = np.full(4, 10.0), np.array([2.0, 4.0, 6.0, 8.0])
    # The rate is 0.5; residuals -3, -1, 1, 3 make the variance 4 / 3 * 20 / 1600 = 1 / 60, so 15 requests; the
    # quantiles 1.96 of the normal and 3.1824 of t with 3 df shrink them to 5.689, within the bound of 2 * 3 = 6.
    requests = 15 * (1.959964 / 3.182446) ** 2
    assert requests == pytest.approx(5.6893, abs=1e-4)
    found = success_interval(sums(asked, given_))
    assert found is not None
    low, high = (
        stats.beta.ppf(0.025, requests / 2, requests / 2 + 1),
        stats.beta.ppf(0.975, requests / 2 + 1, requests / 2),
    )
    assert (found.low, found.high, found.level) == (pytest.approx(low, abs=1e-5), pytest.approx(high, abs=1e-5), 0.95)


def test_thousands_of_pages_in_8_periods_are_8_clusters() -> None:
    asked = np.array([513.0, 512, 512, 512, 512, 512, 512, 512])
    found = success_interval(sums(asked, asked))
    assert found is not None
    assert found.low == pytest.approx(0.025 ** (1 / 8))  # exact, for 8 successes of 8
    assert found.high == 1.0
    none = success_interval(sums(asked, 0 * asked))
    assert none is not None
    assert (none.low, none.high) == (0.0, pytest.approx(1 - 0.025 ** (1 / 8)))


@pytest.mark.parametrize("clusters", [1, 2])
def test_fewer_than_three_clusters_have_no_interval(clusters: int) -> None:
    asked = np.full(clusters, 100.0)
    assert success_interval(sums(asked, asked / 2)) is None


def test_nothing_asked_for_has_no_interval() -> None:
    assert success_interval(sums(np.zeros(5), np.zeros(5))) is None


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 1)), min_size=3, max_size=40))
def test_interval_holds_the_rate_and_is_never_empty(clusters: list[tuple[int, float]]) -> None:
    asked = np.array([float(size) for size, _ in clusters])
    given_ = np.floor(asked * np.array([share for _, share in clusters]))
    found = success_interval(sums(asked, given_))
    assert found is not None and found.low is not None and found.high is not None
    rate = given_.sum() / asked.sum()
    assert 0 <= found.low <= rate <= found.high <= 1
    assert found.high - found.low > 0.01


@pytest.mark.parametrize("clusters", [4, 8, 60])
@pytest.mark.parametrize("rate", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("alike", [0.05, 0.8])
def test_interval_covers_the_rate_whatever_the_correlation_within_clusters(
    clusters: int, rate: float, alike: float
) -> None:
    draw = np.random.default_rng([clusters, int(1000 * rate), int(100 * alike)])
    spread = 1 / alike - 1
    covered = 0
    for _ in range(DRAWS):
        asked = draw.integers(200, 800, clusters).astype(np.float64)
        rates = draw.beta(rate * spread, (1 - rate) * spread, clusters)
        found = success_interval(sums(asked, draw.binomial(asked.astype(np.int64), rates).astype(np.float64)))
        assert found is not None and found.low is not None and found.high is not None
        covered += found.low <= rate <= found.high
    # At least 94 %, with the band of so few draws.
    assert covered >= stats.binom.ppf(0.001, DRAWS, 0.94)
