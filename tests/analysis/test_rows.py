"""Raw samples to host means to estimates, in one pass."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.errors import BadObservations, BadPlan, NotEnoughData
from analysis.plan import MetricPlan, Role
from analysis.rows import compare_rows, host_means

METRICS = tuple(MetricPlan(name=f"m{place}", unit="", role=Role.SECONDARY) for place in range(3))


def test_host_means_are_those_of_groupby_also_with_gaps() -> None:
    draw = np.random.default_rng(0)
    hosts = np.sort(draw.integers(0, 9, 200))
    samples = draw.normal(0, 1, (200, 3))
    samples[draw.random((200, 3)) < 0.1] = np.nan
    samples[hosts == 4, 1] = np.nan
    found = host_means(hosts, samples)
    expected = pd.DataFrame(samples).groupby(hosts).mean()
    np.testing.assert_allclose(found.means, expected.to_numpy())
    assert found.hosts.tolist() == expected.index.tolist()
    assert found.rows.sum() == 200


def test_estimates_are_welch_on_host_means() -> None:
    draw = np.random.default_rng(1)
    hosts = np.repeat(np.arange(20), 30)
    samples = draw.normal(10, 1, (600, 3))
    arms = {host: "treatment" if host % 2 else "control" for host in range(20)}
    found = compare_rows(hosts, samples, METRICS, arms, control="control", treatment="treatment")
    means = host_means(hosts, samples).means
    expected = stats.ttest_ind(means[1::2, 2], means[::2, 2], equal_var=False)
    assert found[2].p_value == pytest.approx(expected.pvalue)
    assert found[2].n_control == 10


def test_rows_that_do_not_fit_are_refused() -> None:
    samples = np.zeros((4, 3))
    with pytest.raises(BadObservations, match="sorted"):
        host_means(np.array([0, 1, 0, 1]), samples)
    with pytest.raises(BadObservations, match="do not fit"):
        host_means(np.array([0, 1]), samples)
    with pytest.raises(BadPlan, match="columns"):
        compare_rows(np.arange(4), samples, METRICS[:2], {}, control="a", treatment="b")
    with pytest.raises(NotEnoughData):
        compare_rows(np.arange(4), samples, METRICS, {0: "a"}, control="a", treatment="b")
