"""Power of the whole decision: 0 where the rule can't decide, as promised where it can, one formula where there is."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.errors import BadPlan
from analysis.rule_power import (
    Obstacle,
    ParallelShape,
    Shape,
    SwitchbackShape,
    largest_sd,
    lowest_p,
    obstacle,
    obstacle_words,
    rule_blocks_needed,
    rule_detectable,
    rule_hosts_needed,
    rule_level,
    rule_power,
    shape_words,
)
from tests.analysis.rule_runs import log_normal, seen_rate

LOOKS = (1 / 3, 2 / 3, 1.0)


def hosts(control: int, treatment: int | None = None) -> ParallelShape:
    return ParallelShape(strata=((control, control if treatment is None else treatment),))


@pytest.mark.parametrize(
    ("shape", "why", "words"),
    [
        (hosts(3), Obstacle.FEW_HOSTS, "3 + 3 hosts of at least 4 + 4"),
        (hosts(400, 3), Obstacle.FEW_HOSTS, "400 + 3 hosts of at least 4 + 4"),
        (SwitchbackShape(blocks=5), Obstacle.FEW_UNITS, "5 blocks of at least 6"),
        (SwitchbackShape(hosts=2, blocks=2), Obstacle.FEW_UNITS, "4 blocks on 2 hosts of at least 6"),
        (SwitchbackShape(hosts=5, blocks=1), Obstacle.FEW_UNITS, "5 blocks on 5 hosts of at least 6"),
        (ParallelShape(strata=((2, 2), (2, 2))), Obstacle.COARSE_TEST, "4 + 4 hosts gets no lower than p = 0.056"),
        (ParallelShape(strata=((9, 9), (1, 3))), Obstacle.OPEN_STRATUM, "fewer than 2 + 2 hosts, even together"),
        (ParallelShape(strata=((4, 4),), comparisons=2), Obstacle.COARSE_TEST, "less than 0.025 is needed"),
        (ParallelShape(strata=((5, 5),), matched_pairs=True), Obstacle.COARSE_TEST, "no lower than p = 0.062"),
        (SwitchbackShape(blocks=6, comparisons=2), Obstacle.COARSE_TEST, "6 blocks gets no lower than p = 0.031"),
    ],
)
def test_a_design_that_the_rule_can_never_decide_has_power_0_and_says_why(
    shape: Shape, why: Obstacle, words: str
) -> None:
    assert obstacle(shape) is why
    assert words in obstacle_words(shape)
    assert rule_power(1000.0, 1.0, shape) == 0.0
    assert rule_detectable(1.0, shape) is None


def test_a_spread_of_few_units_may_be_larger_by_the_factor_of_browne_s_limit() -> None:
    """By hand: the 20 % point of chi-square is 1.649 with 4 degrees of freedom, 14.578 with 20."""
    assert largest_sd(5) == pytest.approx((4 / 1.649) ** 0.5, abs=1e-3)
    assert largest_sd(21) == pytest.approx((20 / 14.578) ** 0.5, abs=1e-4)
    shown = np.random.default_rng(7).normal(size=(20_000, 5)).std(axis=1, ddof=1)
    assert np.mean(shown * largest_sd(5) >= 1.0) == pytest.approx(0.8, abs=0.01)
    with pytest.raises(BadPlan, match="shows no spread"):
        largest_sd(1)


def test_the_smallest_designs_that_can_be_decided_are_those_of_the_rule() -> None:
    for shape in (hosts(4), SwitchbackShape(blocks=6), SwitchbackShape(hosts=6, blocks=1)):
        assert obstacle(shape) is None and obstacle_words(shape) == ""
        assert rule_power(100.0, 1.0, shape) == 1.0
    assert lowest_p(hosts(4)) == pytest.approx(2 / 70)
    assert lowest_p(SwitchbackShape(blocks=6)) == pytest.approx(2**-5)
    assert lowest_p(hosts(20)) == 0.0


def test_six_blocks_of_a_t_test_with_80_percent_are_61_by_the_rule() -> None:
    """The t-test sees 1.435 SD with 80 % on 6 blocks; the decision, which asks the sign-flip test too, with 61 %."""
    assert rule_power(1.435, 1.0, SwitchbackShape(blocks=6)) == pytest.approx(0.61, abs=0.02)


def test_alpha_is_shared_by_treatments_and_spent_by_looks() -> None:
    assert rule_level(hosts(20)) == 0.05
    assert rule_level(ParallelShape(strata=((20, 20),), comparisons=2)) == 0.025
    assert 0.04 < rule_level(ParallelShape(strata=((20, 20),), fractions=LOOKS)) < 0.05
    for part in ({"comparisons": 3}, {"fractions": LOOKS}, {"alpha": 0.01}):
        dearer = ParallelShape(strata=((20, 20),), **part)  # type: ignore[arg-type]
        assert rule_power(1.0, 1.0, dearer) < rule_power(1.0, 1.0, hosts(20))


def test_strata_cost_power_because_none_may_hide_harm() -> None:
    three = ParallelShape(strata=((10, 10),) * 3)
    assert rule_power(0.74, 1.0, three) < rule_power(0.74, 1.0, hosts(30)) - 0.05


@pytest.mark.parametrize(
    "shape",
    [
        hosts(6),
        hosts(5, 9),
        hosts(20),
        ParallelShape(strata=((4, 5), (6, 4)), correlation=0.7),
        SwitchbackShape(blocks=9),
    ],
)
def test_power_rises_with_the_effect_and_the_detectable_one_has_what_was_wanted(shape: Shape) -> None:
    rising = [rule_power(effect, 2.0, shape) for effect in np.linspace(0, 12, 25)]
    assert rising == sorted(rising)
    assert rising[0] <= 0.04 and rising[-1] > 0.99
    found = rule_detectable(2.0, shape, 0.9)
    assert found is not None
    assert rule_power(found, 2.0, shape) == pytest.approx(0.9, abs=0.002)
    assert rule_power(found * 3, 6.0, shape) == rule_power(found, 2.0, shape)  # the unit does not matter
    assert rule_power(-found, 2.0, shape) == rule_power(found, 2.0, shape)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shape", "skewed"),
    [
        (hosts(4), False),
        (hosts(8, 40), True),
        (ParallelShape(strata=((7, 7),), comparisons=2, fractions=LOOKS), False),
        (ParallelShape(strata=((4, 4), (3, 5)), correlation=0.8), False),
        (SwitchbackShape(blocks=7), True),
        (SwitchbackShape(blocks=20), True),
        (SwitchbackShape(hosts=3, blocks=4), False),
    ],
)
def test_the_promise_is_kept_by_runs_of_the_rule(shape: Shape, skewed: bool) -> None:
    """The broad comparison is `tests/benchmarks/test_rule_power.py`."""
    values = tuple(log_normal(np.random.default_rng(5), 10_000).tolist()) if skewed else ()
    effect = rule_detectable(1.0, shape, values=values)
    assert effect is not None
    assert seen_rate(shape, effect, runs=1_000, seed=3, skewed=skewed) == pytest.approx(0.8, abs=0.04)


def test_the_fewest_hosts_and_blocks_are_enough_and_one_less_is_not() -> None:
    for shape, effect, ratio in (
        (hosts(1), 1.5, 1.0),
        (hosts(1), 0.3, 1.0),
        (ParallelShape(strata=((1, 1),) * 3, correlation=0.6), 0.6, 0.5),
    ):
        control, treatment = rule_hosts_needed(effect, 1.0, shape, ratio)
        assert treatment == math.ceil(control * ratio)
        assert rule_power(effect, 1.0, shape.resized(control, treatment)) >= 0.8
        assert rule_power(effect, 1.0, shape.resized(control - 1, math.ceil((control - 1) * ratio))) < 0.8
    assert rule_blocks_needed(1.81, 1.0, SwitchbackShape(blocks=1)) == 6
    assert rule_blocks_needed(50.0, 1.0, SwitchbackShape(blocks=1)) == 6  # never fewer, whatever the effect
    assert rule_blocks_needed(50.0, 1.0, SwitchbackShape(blocks=1, comparisons=2)) == 7


def test_skewed_hosts_are_seen_more_easily_on_one_side() -> None:
    values = tuple(log_normal(np.random.default_rng(1), 5_000).tolist())
    up, down = (rule_detectable(1.0, hosts(80, 8), values=values, falls=falls) for falls in (False, True))
    assert up is not None and down is not None
    assert up < 0.8 * down
    assert rule_power(-down, 1.0, hosts(80, 8), values) == pytest.approx(0.8, abs=0.002)


@pytest.mark.slow
def test_a_huge_control_is_simulated_by_a_smaller_one() -> None:
    small, huge = (rule_detectable(1.0, hosts(control, 6)) for control in (400, 40_000))
    assert small is not None and huge is not None
    assert huge == pytest.approx(small, rel=0.02)


def test_a_shape_says_what_its_power_depends_on() -> None:
    assert shape_words(hosts(8)) == "8 + 8 hosts"
    shape = ParallelShape(strata=((4, 4), (3, 5)), comparisons=2, fractions=LOOKS)
    assert shape_words(shape) == "7 + 9 hosts in 2 strata, for each of 2 treatments, at the last of 3 looks"
    assert shape_words(SwitchbackShape(hosts=8, blocks=1)) == "8 hosts with 1 block each"
    assert shape_words(SwitchbackShape(hosts=3, blocks=4)) == "12 blocks on 3 hosts"


def test_what_is_no_plan_is_refused() -> None:
    for effect, sd in ((math.nan, 1.0), (1.0, 0.0), (1.0, math.inf)):
        with pytest.raises(BadPlan):
            rule_power(effect, sd, hosts(20))
    with pytest.raises(BadPlan, match="effect of 0"):
        rule_hosts_needed(0.0, 1.0, hosts(1))
    with pytest.raises(BadPlan, match="more than"):
        rule_hosts_needed(1e-9, 1.0, hosts(1))
    with pytest.raises(BadPlan, match="between alpha and 1"):
        rule_detectable(1.0, hosts(20), 0.01)
    with pytest.raises(BadPlan, match="ask for hosts"):
        rule_blocks_needed(1.0, 1.0, SwitchbackShape(hosts=8, blocks=1))
    with pytest.raises(BadPlan, match="differ"):
        rule_power(1.0, 1.0, hosts(6), values=(1.0, 1.0))
