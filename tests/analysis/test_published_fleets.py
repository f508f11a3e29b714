"""Worked examples for hosts as units, as another program or a book printed them; the source stands beside each."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import optimize, stats

from analysis.adjustment import ancova
from analysis.aggregate import summarise
from analysis.calibration import BAND, calibrate_sample
from analysis.confidence_sequence import widening
from analysis.contrast import Contrast, fieller
from analysis.estimates import estimate
from analysis.estimators.hodges_lehmann import hodges_lehmann
from analysis.estimators.winsorised import winsorised
from analysis.exposure import ExposureArm, wald
from analysis.guardrails import margin_verdict
from analysis.hosts import TwoArms
from analysis.inference import Inference
from analysis.look import Look
from analysis.missing import completed
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Interval, Verdict
from analysis.strata import combine, host_weights, within_strata
from analysis.trade import servers_per_1000
from analysis.welch import fleet_ratio
from tests.analysis.simulation import gaps, possible_assignments, randomisation_p

# Henderson and Velleman (1981), Biometrics 37:391-411; R's data set `mtcars`: mpg, wt, qsec, am, vs.
MTCARS = np.array(
    [
        (21.0, 2.620, 16.46, 1, 0), (21.0, 2.875, 17.02, 1, 0), (22.8, 2.320, 18.61, 1, 1), (21.4, 3.215, 19.44, 0, 1),
        (18.7, 3.440, 17.02, 0, 0), (18.1, 3.460, 20.22, 0, 1), (14.3, 3.570, 15.84, 0, 0), (24.4, 3.190, 20.00, 0, 1),
        (22.8, 3.150, 22.90, 0, 1), (19.2, 3.440, 18.30, 0, 1), (17.8, 3.440, 18.90, 0, 1), (16.4, 4.070, 17.40, 0, 0),
        (17.3, 3.730, 17.60, 0, 0), (15.2, 3.780, 18.00, 0, 0), (10.4, 5.250, 17.98, 0, 0), (10.4, 5.424, 17.82, 0, 0),
        (14.7, 5.345, 17.42, 0, 0), (32.4, 2.200, 19.47, 1, 1), (30.4, 1.615, 18.52, 1, 1), (33.9, 1.835, 19.90, 1, 1),
        (21.5, 2.465, 20.01, 0, 1), (15.5, 3.520, 16.87, 0, 0), (15.2, 3.435, 17.30, 0, 0), (13.3, 3.840, 15.41, 0, 0),
        (19.2, 3.845, 17.05, 0, 0), (27.3, 1.935, 18.90, 1, 1), (26.0, 2.140, 16.70, 1, 0), (30.4, 1.513, 16.90, 1, 1),
        (15.8, 3.170, 14.50, 1, 0), (19.7, 2.770, 15.50, 1, 0), (15.0, 3.570, 14.60, 1, 0), (21.4, 2.780, 18.60, 1, 1),
    ]
)  # fmt: skip
MPG, WEIGHT, QUARTER_MILE, MANUAL, STRAIGHT = MTCARS.T
TREATED = MANUAL == 1


# 1. The unit
@pytest.mark.parametrize(("level", "step", "pairs"), [(10_000_002, 1, 1), (1.2, 0.1, 500), (10_000_000.2, 0.1, 500)])
def test_mean_and_deviation_are_those_that_nist_certifies(level: float, step: float, pairs: int) -> None:
    """NIST Statistical Reference Datasets, NumAcc1, NumAcc2 and NumAcc4: deviations 1, .1 and .1."""
    readings = [level, *[level - step, level + step] * pairs]
    found = summarise(np.arange(len(readings)), readings, "gauge")
    assert found.mean == pytest.approx(level, rel=1e-14)
    assert math.sqrt(found.variance) == pytest.approx(step, rel=1e-7)


def test_fleet_ratio_on_the_ten_cities() -> None:
    """Davison and Hinkley (1997), table 2.1; R's survey::svyratio: 1.520313, standard error 0.1899934."""
    u = np.array([138, 93, 61, 179, 48, 37, 29, 23, 30, 2], dtype=float)
    x = np.array([143, 104, 69, 260, 75, 63, 50, 48, 111, 50], dtype=float)
    found = fleet_ratio((x, u), (x, u))
    assert found.control == pytest.approx(1.520313, abs=6e-7)
    assert math.sqrt(found.control_variance) == pytest.approx(0.1899934, abs=5e-8)


def test_fleet_ratio_on_the_finnish_municipalities() -> None:
    """Lehtonen and Pahkinen (2004), Practical Methods, page 102: unemployed per dwelling, ratio .1603 of 8 of 32."""
    unemployed = np.array([4123, 760, 721, 142, 187, 331, 127, 219], dtype=float)
    dwellings = np.array([26881, 4896, 3730, 556, 1463, 1946, 834, 932], dtype=float)
    found = fleet_ratio((unemployed, dwellings), (unemployed, dwellings))
    assert found.treatment == pytest.approx(0.1603, abs=5e-5)


# 2. Effect and lift
MEANS, T, DF = (10.2261656, 5.4903944), -8.5701, 136.09  # control, treatment; 100 values each


def printed_by_mratios() -> Contrast:
    """The two variances behind the printed t and df, and the df that mratios takes for the ratio's interval."""
    total = ((MEANS[1] - MEANS[0]) / T) ** 2
    squares = total**2 * 99 / DF
    control = (total + math.sqrt(2 * squares - total**2)) / 2
    treatment = total - control
    ratio = MEANS[1] / MEANS[0]
    spread = treatment + ratio**2 * control
    return Contrast(
        control=MEANS[0], treatment=MEANS[1], control_variance=control, treatment_variance=treatment,
        df=spread**2 / ((treatment**2 + ratio**4 * control**2) / 99), n_control=100, n_treatment=100,
    )  # fmt: skip


def test_fieller_interval_as_printed_by_mratios() -> None:
    """R's mratios, t.test.ratio of two samples of 100: t = -8.5701, df = 136.09, p-value = 2.005e-14, means 5.4903944
    and 10.2261656, ratio 0.5368967, 95 percent confidence interval 0.4737759 0.6103289."""
    found = printed_by_mratios()
    interval = fieller(found, 0.95)
    assert replace(found, df=DF).p_value() == pytest.approx(2.005e-14, rel=2e-4)
    assert found.lift() == pytest.approx(0.5368967 - 1, abs=5e-8)
    assert (interval.low, interval.high) == pytest.approx((0.4737759, 0.6103289), abs=2e-6)  # t has five digits


# 3. Pre-period
def test_robust_errors_as_printed_by_sandwich_and_clubsandwich() -> None:
    """R: lm(mpg ~ am + wt, mtcars); coeftest with vcovHC of sandwich: am -0.02361522, HC2 1.57535497, HC3 1.68846474
    on 29 df; coef_test of clubSandwich (CR2, hosts as clusters): 1.575 on 15.59 df (Bell and McCaffrey)."""
    hc2 = ancova(MPG, TREATED, WEIGHT[:, np.newaxis])
    hc3 = ancova(MPG, TREATED, WEIGHT[:, np.newaxis], robust="HC3")
    assert hc2.difference == pytest.approx(-0.02361522, abs=5e-9)
    assert hc2.standard_error == pytest.approx(1.57535497, abs=5e-9)
    assert hc2.df == pytest.approx(15.59, abs=5e-3)
    assert (hc3.standard_error, hc3.df) == (pytest.approx(1.68846474, abs=5e-9), 29)


def test_lins_estimate_as_printed_by_estimatr() -> None:
    """R: lm_lin(mpg ~ am, ~ wt, mtcars) of estimatr: -2.167728, HC2 1.0482791, 28 df, [-4.315030, -0.02042538];
    lm_lin(mpg ~ am, ~ wt + qsec, mtcars, se_type = "HC3"): 1.0397192, 1.9195668, 26 df. For the units at hand."""
    one = ancova(MPG, TREATED, WEIGHT[:, np.newaxis], interact=True, sampled=False, small_sample_df=False)
    interval = one.interval(0.95)
    assert interval is not None
    assert (one.difference, one.standard_error) == pytest.approx((-2.167728, 1.0482791), abs=5e-7)
    assert (interval.low, interval.high, one.df) == pytest.approx((-4.315030, -0.02042538, 28), abs=5e-7)
    two = ancova(MPG, TREATED, np.column_stack((WEIGHT, QUARTER_MILE)), interact=True, sampled=False, robust="HC3")
    assert (two.difference, two.standard_error, two.df) == pytest.approx((1.0397192, 1.9195668, 26), abs=5e-8)
    assert ancova(MPG, TREATED, WEIGHT[:, np.newaxis], interact=True).variance > one.variance


# 4. Strata
def test_combined_strata_as_printed_by_estimatr() -> None:
    """R: difference_in_means(mpg ~ am, data = mtcars, blocks = vs) of estimatr: 5.98125, 1.355123991."""
    names = np.where(STRAIGHT == 1, "straight", "v")
    found = combine(within_strata(MPG, TREATED, names), host_weights(names))
    assert found.difference == pytest.approx(5.98125, abs=5e-9)
    assert found.standard_error == pytest.approx(1.355123991, abs=5e-10)


# 6. Heavy tails
def test_hodges_lehmann_interval_as_printed_by_r() -> None:
    """R: wilcox.test(x, y, conf.int = TRUE) on Hollander and Wolfe's permeability: p-value = 0.2544123, -0.15 0.76,
    0.305; and wilcox.test(Ozone ~ Month, airquality, Month %in% c(5, 8)): p-value = 0.0001208, W = 127.5."""
    term = np.array([0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46])
    early = np.array([1.15, 0.88, 0.90, 0.74, 1.21])
    shift, interval, p = hodges_lehmann(early, term, 0.95)
    assert (shift, interval.low, interval.high) == pytest.approx((0.305, -0.15, 0.76))
    assert p == pytest.approx(0.2544123, abs=5e-8)
    may = np.array(
        [41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37.0]
    )
    august = np.array(
        [39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85.0]
    )
    shift, interval, p = hodges_lehmann(august, may, 0.95)
    # R prints 0.0001208 by a normal approximation with ties corrected; ours takes the exact law and every tie against
    # a difference, so that interval and p agree.
    assert p == pytest.approx(0.0000785, abs=5e-8)
    assert (shift, interval.low, interval.high) == pytest.approx((-32.0, -53.0, -15.0), abs=5e-5)


def test_exact_mann_whitney_of_nine_and_ten() -> None:
    """R: wilcox.test(x, y, conf.int = TRUE): W = 29, p-value = 0.2110243, -4.4 0.7, -1.7 (no ties: exact)."""
    x = np.array([1.1, 2.2, 0.3, 4.1, 5.7, 6.2, 0.9, 3.3, 2.8])
    y = np.array([2.1, 3.9, 1.0, 7.7, 4.4, 8.1, 2.6, 3.1, 5.5, 9.9])
    shift, interval, p = hodges_lehmann(y, x, 0.95)
    assert p == pytest.approx(0.2110243, abs=5e-8)
    assert (shift, interval.low, interval.high) == pytest.approx((-1.7, -4.4, 0.7))


def test_winsorised_mean_of_the_encyclopedia() -> None:
    """Wikipedia, Winsorizing: twenty values with mean 101.5; 1053 pulled in to 101 and -40 to -5 give 55.65."""
    values = np.array(
        [92, 19, 101, 58, 1053, 91, 26, 78, 10, 13, -40, 101, 86, 85, 15, 89, 89, 28, -5, 41], dtype=float
    )
    reference = np.sort(values)[[1, *range(1, 19), 18]]
    assert values.mean() == 101.5
    assert winsorised(values, values, reference).control == pytest.approx(55.65)


# 7. Few hosts
def test_tasting_tea_again_and_permutations_as_printed_by_r() -> None:
    """Fisher (1935), section 5: 70 ways, three of four right: 34 of them, .4857 two-sided. R's exactRankTests:
    perm.test(c(4,7,3,9,6,8), c(2,5,1,4,3,2)): T = 37, p-value = 0.02597403."""
    treated, strata = np.arange(8) < 4, np.array(["cup"] * 8)
    assert possible_assignments(treated, strata) == 70
    assert randomisation_p(np.array([1, 1, 1, 0, 1, 0, 0, 0.0]), treated, strata, seed=0) == 34 / 70
    y = np.array([4, 7, 3, 9, 6, 8, 2, 5, 1, 4, 3, 2.0])
    p = randomisation_p(y, np.arange(12) < 6, np.array(["all"] * 12), seed=0)
    assert p == pytest.approx(0.02597403, abs=5e-9)


# 9. Guardrails
@pytest.mark.parametrize(
    ("margin", "verdict"), [(0.35, Verdict.FAIL), (0.45, Verdict.INCONCLUSIVE), (0.55, Verdict.PASS)]
)
def test_three_answers_about_a_printed_ratio(margin: float, verdict: Verdict) -> None:
    """The interval that mratios printed, 0.4737759 to 0.6103289: a fall by more than 35 % is shown, one by 55 % is
    ruled out, each at .025 one-sided; 45 % is neither."""
    found = printed_by_mratios()
    metric = MetricPlan(name="m", unit="", role=Role.GUARDRAIL)
    row = estimate(
        Inference(contrast=found), metric, Look(level=0.95), treatment="x", control="y", estimand="", method=""
    )
    guardrail = GuardrailPlan(metric="m", worse=Direction.DECREASE, margin=margin)
    assert margin_verdict(guardrail, row, found.lift_interval(0.95))[0] is verdict


# 10. Looking at any moment
@pytest.mark.parametrize(
    ("tuned_for", "error", "half"),
    [(1000, 0.3334122146400735, 1.0618), (5000, 0.3334122146400735, 1.01307), (5000, 0.3093, 0.93981)],
)
def test_confidence_sequence_as_in_growthbooks_statistics(tuned_for: float, error: float, half: float) -> None:
    """GrowthBook's gbstats, tests of SequentialTwoSidedTTest with 3,000 and 3,461 users: 0.50336 [-0.55844, 1.56516],
    0.50338 [-0.50969, 1.51646], 0.50236 [-0.43745, 1.44217]."""
    assert widening(6461, 0.05, tuned_for) * error == pytest.approx(half, abs=1e-5)


# 12. Attrition
def test_worst_case_bounds_on_the_homeless_of_minneapolis() -> None:
    """Piliavin and Sosin's data in Manski (1995), Identification Problems in the Social Sciences, section 2.1: of 106
    men 64 were seen again and 21 had a home, bounds .20 and .59; of 31 women 14 and 3, bounds .10 and .65."""
    men, women = np.repeat([0.0, 1.0], [43, 21]), np.repeat([0.0, 1.0], [11, 3])
    metric, ends = MetricPlan(name="home", unit="", role=Role.PRIMARY), []
    for up in (False, True):
        filled = completed(gaps(men, women, (42, 17)), metric, up=up, ends=(0.0, 1.0))
        ends.append(float(filled.y[filled.treated].mean() - filled.y[~filled.treated].mean()))
    assert ends[0] == pytest.approx(0.10 - 0.59, abs=0.01)
    assert ends[1] == pytest.approx(0.65 - 0.20, abs=0.01)
    assert ends == pytest.approx([3 / 31 - 63 / 106, 20 / 31 - 21 / 106])


# 13. Exposure
def test_two_stage_least_squares_as_printed_by_estimatr() -> None:
    """R: iv_robust(mpg ~ wt | am, mtcars, se_type = "HC2") of estimatr: wt -5.33542, 0.8442466."""
    sides = [ExposureArm(outcome=MPG[side], dose=WEIGHT[side]) for side in (~TREATED, TREATED)]
    found = wald(sides[0], sides[1], 0.95)
    assert (found.effect, found.standard_error) == pytest.approx((-5.33542, 0.8442466), abs=5e-6)


def test_anderson_rubin_set_is_where_the_test_of_the_residual_turns() -> None:
    """Anderson and Rubin (1949): b is in the set where mpg - b wt does not differ between the arms."""
    sides = [ExposureArm(outcome=MPG[side], dose=WEIGHT[side]) for side in (~TREATED, TREATED)]
    found = wald(sides[0], sides[1], 0.95)
    limit = stats.t.ppf(0.975, found.df)

    def excess(b: float) -> float:
        low, high = (side.outcome - b * side.dose for side in sides)
        gap = (high.mean() - low.mean()) ** 2
        return float(gap - limit**2 * (high.var(ddof=1) / high.size + low.var(ddof=1) / low.size))

    ends = [optimize.brentq(excess, found.effect, found.effect + away) for away in (-4.0, 4.0)]
    assert (found.interval.low, found.interval.high) == pytest.approx(ends, rel=1e-6)


# 15. A/A calibration
def test_band_of_a_thousand_runs_is_the_binomials() -> None:
    """R: qbinom(c(.005, .995), 1000, .05): 33 69."""
    draw = np.random.default_rng(1)
    values = draw.normal(0, 1, 16)
    none = np.full(16, np.nan)
    sample = TwoArms(
        control="c", treatment="t", hosts=np.array([f"h{place}" for place in range(16)]), treated=np.arange(16) < 8,
        strata=np.array(["all"] * 16), y=values, before=none, numerator=values, denominator=np.ones(16),
    )  # fmt: skip
    found = calibrate_sample(sample, MetricPlan(name="m", unit="", role=Role.PRIMARY), 0.05, seed=1, runs=1000)
    assert BAND == 0.99
    assert (found.low, found.high) == (0.0, 0.068)  # around 0.0499, the largest rate that 12,870 assignments reach
    assert found.calibrated


# 17. The trade
def test_servers_of_the_512_mb_rollout() -> None:
    """The proposal's thread: +5.9 % of load for 217 -> 233 GB. Sized by load alone 1,000 servers become 944.3; sized
    by memory alone they become 1,073.7."""
    gain, growth = Interval(low=0.04, high=0.08, level=0.975), Interval(low=0.06, high=0.09, level=0.975)
    for share, saved in ((0.0, 55.7), (1.0, -73.7)):
        found = servers_per_1000("t", (0.059, gain), (233 / 217 - 1, growth), share)
        assert found.saved_per_1000 == pytest.approx(saved, abs=0.05)
        assert found.interval is not None
        assert found.interval.level == pytest.approx(0.95)
