"""What must hold of every estimate of a rollout already made, whatever the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analysis.errors import BadObservations, NotEnoughData
from analysis.retrospective.balancing import balanced_effect, entropy_weights
from analysis.retrospective.event_study import event_study
from analysis.retrospective.group_time import Controls, Functional, host_contrasts
from analysis.retrospective.panel import Panel
from analysis.retrospective.placebo_hosts import placebo_hosts
from analysis.retrospective.pre_trend import placebo_dates, pre_trend
from analysis.retrospective.relative_magnitudes import steps_before
from analysis.retrospective.two_way import two_way
from analysis.welch import even_df, welch
from tests.analysis.retrospective.panels import true_effect, world


def overall(panel: Panel, controls: Controls = Controls.NEVER) -> Functional:
    contrasts = host_contrasts(panel, controls)
    return contrasts.aggregate(contrasts.over_groups())


def staggered(seed: int = 3, **more: float) -> Panel:
    settings = {"changed": 12, "others": 10, "periods": 12, "starts": (5, 6, 8), "correlation": 0.6}
    return world(np.random.default_rng(seed), **{**settings, **more})


def test_one_start_and_two_periods_is_welch_on_the_changes_of_hosts() -> None:
    panel = staggered().of(np.arange(22))
    start = np.where(panel.changed, 1, 2)
    two = Panel(values=panel.values[:, [4, 11]], start=start)
    changes = two.values[:, 1] - two.values[:, 0]
    expected = welch(changes[~two.changed], changes[two.changed])
    found = overall(two)
    assert found.estimate == pytest.approx(expected.difference, rel=1e-12)
    assert found.variance**0.5 == pytest.approx(expected.standard_error, rel=1e-12)
    assert found.df == pytest.approx(min(expected.df, even_df((12, 10))), rel=1e-9)


def test_few_changed_hosts_that_chance_to_be_alike_do_not_pass_for_many() -> None:
    """Five changed hosts, much quieter than the two hundred others: no error is known better than from five."""
    panel = world(
        np.random.default_rng(2), changed=5, others=200, periods=12, starts=(6, 8), correlation=0.6, noise=0.05
    )
    study = event_study(host_contrasts(panel, Controls.NEVER))
    dates = [one.effect for one in placebo_dates(study)]
    assert max(one.df for one in (overall(panel), *study.effects, *dates)) <= even_df((5, 200)) < 4.3
    assert balanced_effect(panel).contrast.df < 4.3


def test_noisier_changed_hosts_count_for_less_than_their_number() -> None:
    panel = world(np.random.default_rng(2), changed=5, others=15, periods=8, starts=(4,), correlation=0.0, noise=9.0)
    assert 4 <= overall(panel).df < 4.5 < even_df((5, 15))


def test_with_one_start_the_regression_says_the_mean_of_the_effects_by_period() -> None:
    panel = staggered(starts=(6,))
    before = np.isin(np.arange(panel.periods), range(6))
    gains = panel.values[:, ~before].mean(axis=1) - panel.values[:, before].mean(axis=1)
    slope, _ = two_way(panel)
    assert slope == pytest.approx(gains[panel.changed].mean() - gains[~panel.changed].mean(), rel=1e-9)


def test_growing_effects_of_staggered_starts_mislead_the_regression_alone() -> None:
    """Without noise the planted effect is found to the last digit; two-way weights make less of it."""
    start = np.array([3, 3, 3, 3, 9, 9, 9, 9, 12, 12, 12, 12])
    since = np.arange(12) - start[:, np.newaxis]
    values = np.where(since >= 0, 1.0 + since, 0.0) + np.arange(12.0) + np.arange(12.0)[:, np.newaxis]
    panel = Panel(values=values, start=start)
    truth = np.mean([5.0] * 4 + [2.0] * 4)
    for controls in Controls:
        assert overall(panel, controls).estimate == pytest.approx(truth, abs=1e-9)
    assert abs(two_way(panel)[0] - truth) > 0.5


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-1e3, 1e3), scale=st.floats(0.01, 100))
def test_levels_of_hosts_and_shocks_in_common_change_nothing(seed: int, shift: float, scale: float) -> None:
    panel = staggered(seed)
    draw = np.random.default_rng(seed)
    moved = panel.values + 50 * draw.normal(size=(panel.hosts, 1)) + 50 * draw.normal(size=panel.periods) + shift
    for controls in Controls:
        first, second = overall(panel, controls), overall(Panel(values=scale * moved, start=panel.start), controls)
        assert second.estimate == pytest.approx(scale * first.estimate, abs=1e-6 * scale)
        assert second.variance == pytest.approx(scale**2 * first.variance, rel=1e-6)


def test_the_order_of_hosts_changes_nothing() -> None:
    panel = staggered()
    order = np.random.default_rng(1).permutation(panel.hosts)
    assert overall(panel.of(order)).estimate == pytest.approx(overall(panel).estimate, rel=1e-12)
    assert overall(panel.of(order)).variance == pytest.approx(overall(panel).variance, rel=1e-12)


def test_a_value_that_is_missing_costs_that_period_of_that_host_alone() -> None:
    panel = staggered(effect=5.0)
    values = panel.values.copy()
    values[0, panel.start[0]] = np.nan  # the first after
    values[1, panel.start[1] - 1] = np.nan  # the base: the one before it takes its place
    found = overall(Panel(values=values, start=panel.start))
    assert (found.n_changed, found.n_controls) == (12, 10)
    assert found.estimate == pytest.approx(overall(panel).estimate, abs=0.5)


def test_hosts_without_a_time_before_have_no_place() -> None:
    with pytest.raises(BadObservations, match="nothing before"):
        Panel(values=np.zeros((2, 3)), start=np.array([0, 3]))
    with pytest.raises(NotEnoughData, match="nothing to compare with"):
        host_contrasts(Panel(values=np.zeros((2, 3)), start=np.array([1, 1])), Controls.NOT_YET)


def test_a_planted_effect_is_within_its_interval_and_bands_hold_it_at_every_time() -> None:
    panel = staggered(effect=4.0)
    interval = overall(panel).contrast().interval(0.99)
    assert interval is not None
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < true_effect(panel, 4.0) < interval.high
    study = event_study(host_contrasts(panel, Controls.NEVER))
    for event, effect, band in zip(study.events, study.effects, study.bands(0.99, 0), strict=True):
        alone = effect.contrast().interval(0.99)
        assert band is not None
        assert alone is not None
        assert band.low <= alone.low <= alone.high <= band.high
        assert band.low < (4.0 * (1 + 0.1 * event) if event >= 0 else 0.0) < band.high


def test_a_planted_drift_is_caught_before_the_change() -> None:
    panel = world(
        np.random.default_rng(4), changed=30, others=30, periods=14, starts=(7, 8), correlation=0.5, drift=0.4
    )
    study = event_study(host_contrasts(panel, Controls.NEVER))
    found = pre_trend(study)
    assert found.p_value is not None
    assert found.p_value < 0.001
    assert found.drift_per_period is not None
    assert found.drift_per_period.estimate == pytest.approx(0.4, abs=0.2)
    assert min(one.p_adjusted for one in placebo_dates(study) if one.p_adjusted is not None) < 0.01


def test_a_drift_that_went_on_is_within_the_bounds_that_allow_for_it() -> None:
    panel = world(np.random.default_rng(5), changed=40, others=40, periods=12, starts=(6,), correlation=0.3, drift=0.5)
    steps = steps_before(event_study(host_contrasts(panel, Controls.NEVER)))
    found = overall(panel).contrast().interval(0.95)
    assert found is not None
    assert found.low is not None
    assert found.low > 0  # the drift, taken for an effect
    wide = steps.interval(1.0, 0.95)
    assert wide.low is not None
    assert wide.low < 0
    assert steps.breakdown(0.95) < 1


def test_bounds_widen_with_what_they_allow() -> None:
    steps = steps_before(event_study(host_contrasts(staggered(effect=3.0), Controls.NEVER)))
    widths = [found.high - found.low for found in (steps.interval(size, 0.95) for size in (0.0, 0.5, 1.0, 2.0, 5.0))]
    assert widths == sorted(widths)
    broken = steps.breakdown(0.95)
    inside = steps.interval(broken + 0.02, 0.95)
    assert inside.low <= 0 <= inside.high


def test_balancing_takes_out_what_the_time_before_foretells() -> None:
    """Busy hosts were changed, and busy hosts grow faster: controls as busy as they were grow alike."""
    draw = np.random.default_rng(6)
    level = np.concatenate((draw.normal(12, 1, 40), draw.normal(10, 2, 200)))
    values = level[:, np.newaxis] * (1 + 0.05 * np.arange(10)) + 0.1 * draw.normal(size=(240, 10))
    values[:40, 6:] += 1.0
    panel = Panel(values=values, start=np.concatenate((np.full(40, 6), np.full(200, 10))))
    found = balanced_effect(panel)
    assert found.contrast.difference == pytest.approx(1.0, abs=0.06)
    assert abs(overall(panel).estimate - 1.0) > 0.2
    assert 4 < found.effective < 200


def test_weights_hit_the_moments_or_say_that_they_cannot() -> None:
    draw = np.random.default_rng(7)
    controls = draw.normal(size=(50, 2))
    weights = entropy_weights(controls, np.array([0.5, -0.3]))
    assert weights @ controls == pytest.approx([0.5, -0.3], abs=1e-4)
    assert weights.min() > 0
    with pytest.raises(NotEnoughData, match="no weights"):
        entropy_weights(controls, np.array([50.0, 0.0]))


def test_placebo_hosts_move_less_than_hosts_that_were_changed_and_as_much_as_hosts_without_an_effect() -> None:
    calm = staggered(seed=9, others=40, effect=3.0)
    found = placebo_hosts(calm, overall(calm), 0.05, seed=0)
    assert found is not None
    assert found.p_value < 0.05
    none = staggered(seed=9, others=40, effect=0.0)
    again = placebo_hosts(none, overall(none), 0.05, seed=0)
    assert again is not None
    assert again.p_value > 0.05
    few = staggered(others=7)
    assert placebo_hosts(few, overall(few), 0.05, seed=0) is None
