"""Replays: every way to draw arms comes back as what it could have been, and nothing else; p is uniform under A/A."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis import analyze
from analysis.assignment_redraws import Rerandomised, WithinPairs, WithinStrata
from analysis.balance import Balance
from analysis.calibration import calibrate
from analysis.errors import BadPlan, NotEnoughData
from analysis.matched import matched_pairs, pair_contrast
from analysis.plan import AnalysisPlan, AssignedUnit, BalanceRule
from analysis.results import Estimate, Findings
from tests.analysis.fleet_data import Fleet, plan
from tests.analysis.simulation import band, randomisation_p

Floats = NDArray[np.float64]
RULE = BalanceRule(accept=0.2)


def draw_balanced(covariates: Floats, seed: int, rule: BalanceRule = RULE) -> NDArray[np.bool_]:
    """Draw half of the hosts until the rule accepts; few hosts of which one is far out may have no such draw."""
    draw, balance = np.random.default_rng(seed), Balance(covariates, rule)
    every = np.ones(len(covariates), dtype=bool)
    for _ in range(5000):
        treated = np.zeros(len(covariates), dtype=bool)
        treated[draw.permutation(len(covariates))[: len(covariates) // 2]] = True
        if balance.accepts(balance.distances(treated[np.newaxis], every))[0]:
            return treated
    return reject()


def units_of(
    treated: NDArray[np.bool_], *, pairs: list[str] | None = None, balance: Floats | None = None
) -> tuple[AssignedUnit, ...]:
    return tuple(
        AssignedUnit(
            host=f"h{place:04d}",
            stratum="pool-0",
            arm="treatment" if own else "control",
            pair=pairs[place] if pairs else "",
            balance=() if balance is None else tuple(balance[place].tolist()),
        )
        for place, own in enumerate(treated.tolist())
    )


def rerandomised(units: tuple[AssignedUnit, ...], rule: BalanceRule = RULE) -> Rerandomised:
    told = plan(units=units, method="rerandomise", balance_rule=rule)
    return Rerandomised(units, told, ("control", "treatment"), [unit.host for unit in units])


def found(findings: Findings, method: str) -> Estimate:
    return next(row for row in findings.estimates if method in row.method)


def observed(units: tuple[AssignedUnit, ...], y: Floats, told: AnalysisPlan) -> Findings:
    fleet = Fleet(arms=tuple(str(unit.arm) for unit in units), strata=tuple(unit.stratum for unit in units))
    return analyze(fleet.observations({"throughput": y}), told)


# ------------------------------------------------------------------ what is possible
def test_pairs_have_two_to_the_power_of_their_number_outcomes_and_the_real_one_is_among_them() -> None:
    treated = np.array([True, False, False, True, True])
    replay = WithinPairs(treated, np.array(["a", "a", "b", "b", "alone"]))
    every = np.array(list(replay.every()))
    assert replay.possible() == len(every) == len(np.unique(every, axis=0)) == 8
    assert (every == treated).all(axis=1).any()
    assert (every[:, 0] != every[:, 1]).all()
    assert (every[:, 2] != every[:, 3]).all()


def test_balanced_draws_are_exactly_those_that_the_rule_accepts() -> None:
    covariates = np.random.default_rng(1).normal(size=(10, 2))
    units = units_of(draw_balanced(covariates, 3), balance=covariates)
    replay = rerandomised(units)
    balance = Balance(covariates, RULE)
    free = WithinStrata(np.arange(10) < 5, np.array(["all"] * 10))
    every = np.array(list(free.every()))
    good = every[balance.accepts(balance.distances(every, np.ones(10, dtype=bool)))]
    kept = np.array(list(replay.every()))
    assert replay.possible() == len(good)
    assert 0 < len(good) < len(every)
    assert {tuple(row) for row in kept.tolist()} == {tuple(row) for row in good.tolist()}
    again = replay.redraw(500, np.random.default_rng(0))
    assert {tuple(row) for row in again.tolist()} <= {tuple(row) for row in good.tolist()}


def test_too_many_to_enumerate_are_drawn_and_every_draw_is_balanced() -> None:
    covariates = np.random.default_rng(2).normal(size=(60, 3))
    units = units_of(draw_balanced(covariates, 5), balance=covariates)
    replay = rerandomised(units)
    assert replay.possible() is None
    draws = replay.redraw(300, np.random.default_rng(0))
    balance = Balance(covariates, RULE)
    assert len(draws) == 300
    assert (draws.sum(axis=1) == 30).all()
    assert balance.accepts(balance.distances(draws, np.ones(60, dtype=bool))).all()


def test_with_three_arms_the_third_stays_and_still_binds() -> None:
    covariates = np.arange(12, dtype=float)[:, np.newaxis] ** 1.5
    rule = BalanceRule(largest_difference=0.4)
    names = ["control", "treatment", "third"]
    draw = np.random.default_rng(0)
    balance = Balance(covariates, rule)

    def far(arms: NDArray[np.str_]) -> float:
        return max(
            float(balance.distances((arms == arm)[np.newaxis], (arms == arm) | (arms == "control"))[0])
            for arm in ("treatment", "third")
        )

    while far(arms := draw.permutation(np.array(names * 4))) > 0.4:
        pass
    units = tuple(
        AssignedUnit(host=f"h{n}", stratum="all", arm=str(arm), balance=(float(covariates[n, 0]),))
        for n, arm in enumerate(arms)
    )
    told = plan(arms=("control", "treatment", "third"), units=units, method="rerandomise", balance_rule=rule)
    shown = [unit.host for unit in units if unit.arm != "third"]
    replay = Rerandomised(units, told, ("control", "treatment"), shown)
    every = np.array(list(replay.every()))
    among = arms != "third"
    for row in every:
        again = arms.copy()
        again[among] = np.where(row, "treatment", "control")
        assert far(again) <= 0.4 + 1e-9
    assert 1 <= len(every) < 70


def test_a_plan_that_could_not_have_drawn_the_arms_is_refused() -> None:
    covariates = np.arange(20, dtype=float)[:, np.newaxis]
    lopsided = units_of(np.arange(20) < 10, balance=covariates)
    with pytest.raises(NotEnoughData, match="none that the plan's balance rule accepts"):
        rerandomised(lopsided)
    with pytest.raises(NotEnoughData, match="what the draw was balanced on"):
        rerandomised(units_of(np.arange(20) % 2 == 0))
    with pytest.raises(BadPlan, match="unknown method"):
        analyze(Fleet(arms=("control",), strata=("a",)).observations({"throughput": np.ones(1)}), plan(method="coin"))


# ------------------------------------------------------------------ p-values
@given(st.integers(0, 10_000), st.sampled_from(["pairs", "balanced"]), st.integers(4, 6))
@settings(max_examples=40)
def test_p_is_never_below_one_over_the_possible_assignments(seed: int, kind: str, pairs: int) -> None:
    draw = np.random.default_rng(seed)
    n = 2 * pairs
    y, x = draw.normal(size=n), draw.normal(size=(n, 1))
    if kind == "pairs":
        treated = np.repeat(draw.integers(0, 2, pairs).astype(bool), 2) ^ (np.arange(n) % 2 == 0)
        replay: WithinPairs | Rerandomised = WithinPairs(treated, np.repeat(np.arange(pairs).astype(str), 2))
    else:
        treated = draw_balanced(x, seed)
        replay = rerandomised(units_of(treated, balance=x))
    possible = replay.possible()
    assert possible is not None
    p = randomisation_p(y, treated, np.array(["a"] * n), seed=0, replay=replay)
    assert 1 / possible <= p <= 1


def uniform_enough(values: list[float]) -> bool:
    """Whether p-values are spread evenly: none of ten sizes rejects more often than chance lets it."""
    p = np.array(values)
    return all(np.mean(p <= level + 1e-12) <= band(p.size, level, 0.9999)[1] for level in np.arange(0.05, 1, 0.1))


@pytest.mark.slow
def test_p_is_uniform_under_a_a_for_matched_pairs() -> None:
    draw = np.random.default_rng(8)
    values = []
    for _ in range(400):
        level = np.repeat(np.exp(draw.normal(0, 1, 10)), 2)  # skewed, and alike inside a pair
        treated = np.repeat(draw.integers(0, 2, 10).astype(bool), 2) ^ (np.arange(20) % 2 == 0)
        units = units_of(treated, pairs=[f"p{place // 2}" for place in range(20)])
        row = found(
            observed(units, level * np.exp(draw.normal(0, 0.2, 20)), plan(units=units, method="matched_pairs")),
            "within matched pairs",
        )
        assert row.p_value is not None
        values.append(row.p_value)
    assert uniform_enough(values)
    assert stats.kstest(values, "uniform").pvalue > 1e-4


@pytest.mark.slow
def test_p_is_uniform_under_a_a_for_balanced_draws_where_ignoring_the_rule_is_timid() -> None:
    """The outcome follows the covariate: free draws spread wider than balanced ones, and p would pile up near 1."""
    draw = np.random.default_rng(9)
    right, wrong = [], []
    rule = BalanceRule(accept=0.1)
    for seed in range(300):
        x = draw.normal(size=(12, 1))
        y = 3 * x[:, 0] + draw.normal(size=12)
        treated = draw_balanced(x, 1000 + seed, rule)
        replay = rerandomised(units_of(treated, balance=x), rule)
        strata = np.array(["a"] * 12)
        right.append(randomisation_p(y, treated, strata, seed=0, replay=replay))
        wrong.append(randomisation_p(y, treated, strata, seed=0))
    assert uniform_enough(right)
    assert stats.kstest(right, "uniform").pvalue > 1e-4
    assert np.mean(np.array(wrong) <= 0.2) < band(300, 0.2)[0]


# ------------------------------------------------------------------ pairs as an estimate
def test_pair_differences_are_estimated_beside_and_agree_with_scipy() -> None:
    draw = np.random.default_rng(4)
    level = np.repeat(draw.normal(100, 20, 12), 2)
    treated = np.arange(24) % 2 == 1
    y = level + draw.normal(0, 1, 24) + 2 * treated
    units = units_of(treated, pairs=[f"p{place // 2}" for place in range(24)])
    told = plan(units=units, method="matched_pairs")
    findings = observed(units, y, told)
    row = found(findings, "paired t on matched pairs")
    expected = stats.ttest_rel(y[1::2], y[::2])
    assert row.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert row.difference_interval is not None
    low, high = expected.confidence_interval()
    assert (row.difference_interval.low, row.difference_interval.high) == pytest.approx((low, high), rel=1e-9)
    assert not row.headline
    welch = found(findings, "Welch t, unadjusted")
    assert row.standard_error is not None and welch.standard_error is not None
    assert row.standard_error < welch.standard_error / 5


def test_a_pair_that_lost_a_host_is_left_out_and_said() -> None:
    treated = np.arange(20) % 2 == 1
    units = units_of(treated, pairs=[f"p{place // 2}" for place in range(20)])
    told = plan(units=units, method="matched_pairs")
    y = np.random.default_rng(0).normal(50, 5, 20)
    fleet = Fleet(arms=tuple(str(unit.arm) for unit in units), strata=("pool-0",) * 20)
    rows = fleet.observations({"throughput": y})
    row = found(analyze(rows[rows["host"] != "h0003"], told), "within matched pairs")
    assert any("1 hosts without their partner" in said for said in row.warnings)
    assert any("9 pairs" in said for said in row.warnings)


def test_pair_contrast_is_the_paired_t() -> None:
    """Student (1908), the sleep data: t = 4.0621 on 9 df, p = .00283."""
    first = np.array([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0])
    second = np.array([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4])
    contrast = pair_contrast(first, second)
    assert contrast.difference / contrast.standard_error == pytest.approx(4.0621, abs=5e-5)
    assert contrast.p_value() == pytest.approx(0.00283, abs=5e-6)
    assert contrast.df == 9


def test_other_methods_have_no_pairs() -> None:
    units = units_of(np.arange(8) % 2 == 0, pairs=["p"] * 8)
    findings = observed(units, np.arange(8.0), plan(units=units))
    assert not any("pairs" in row.method for row in findings.estimates)
    assert matched_pairs.__doc__


def test_calibration_draws_as_the_plan_did() -> None:
    draw = np.random.default_rng(6)
    treated = np.arange(24) % 2 == 1
    level = np.repeat(draw.normal(100, 20, 12), 2)
    fleet = Fleet(arms=tuple("treatment" if own else "control" for own in treated), strata=("pool-0",) * 24)
    units = units_of(treated, pairs=[f"p{place // 2}" for place in range(24)])
    y = level + draw.normal(0, 1, 24)
    rows = fleet.observations({"throughput": y}, {"throughput": y})
    again = rows[rows["kind"] == "baseline"].assign(position=1, mean=level + draw.normal(0, 1, 24))
    rows = pd.concat((rows, again.assign(period_id=again["period_id"] + 500_000)), ignore_index=True)
    (free,) = calibrate(rows, plan(units=units), runs=300)
    (paired,) = calibrate(rows, plan(units=units, method="matched_pairs"), runs=300)
    assert free.calibrated
    assert paired.calibrated
    assert paired.false_positives != free.false_positives  # other draws: one coin for each pair


def test_an_old_plan_without_a_method_is_an_independent_one() -> None:
    assert AnalysisPlan(design="parallel", control="a", arms=("a", "b"), metrics=()).method == "independent"
    assert replace(plan(), method="complete").balance_rule is None
