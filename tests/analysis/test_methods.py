"""Corners of the single methods that no whole experiment reaches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import analysis
from analysis import analyze
from analysis.adjustment import ancova, independent_columns
from analysis.attrition import attrition_check, loss_guardrail
from analysis.confidence_sequence import sequence_level, widening
from analysis.contrast import Contrast, fieller
from analysis.errors import AnalysisError, BadPlan, NotEnoughData
from analysis.estimates import estimate
from analysis.estimators.bootstrap import bca
from analysis.estimators.hodges_lehmann import hodges_lehmann
from analysis.estimators.winsorised import winsorised
from analysis.exposure import ExposureArm, dose_response, wald
from analysis.guardrails import margin_verdict, tripwire_verdict
from analysis.headline import Redraws
from analysis.heterogeneity import heterogeneity
from analysis.inference import Inference
from analysis.look import Look
from analysis.missing import bounds_of
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.observer import observer_effect
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Check, Interval, Verdict
from analysis.sequential import bounds, spent
from analysis.srm import ratio_check, ratio_p
from analysis.strata import combine
from analysis.trade import servers_per_1000
from analysis.validation import finite_checks, finite_estimate
from analysis.welch import fleet_ratio, satterthwaite, welch
from tests.analysis.fleet_data import fleet, plan
from tests.analysis.simulation import gaps, sign_flip_p
from tests.analysis.switchback_data import plan as switchback_plan
from tests.analysis.switchback_data import shifted, switchback

METRIC = MetricPlan(name="m", unit="u", role=Role.PRIMARY)
RAIL = GuardrailPlan(metric="m", worse=Direction.INCREASE, margin=0.1)


def contrast(**more: float) -> Contrast:
    values: dict[str, float] = {"control": 10.0, "treatment": 11.0, "control_variance": 0.1, "treatment_variance": 0.1}
    return Contrast(**{**values, **more}, df=8.0, n_control=5, n_treatment=5)  # type: ignore[arg-type]


def row_of(found: Contrast):  # noqa: ANN201
    return estimate(
        Inference(contrast=found), METRIC, Look(level=0.95), treatment="t", control="c", estimand="e", method="x"
    )


def test_package_offers_analyze_and_nothing_by_accident() -> None:
    assert analysis.analyze is analyze
    with pytest.raises(AttributeError, match="nothing"):
        _ = analysis.nothing  # type: ignore[attr-defined]


def test_fieller_names_every_kind_of_set() -> None:
    everything = fieller(contrast(control=0.1, treatment=0.1, control_variance=5, treatment_variance=5), 0.95)
    outside = fieller(contrast(control=0.1, treatment=10, control_variance=1), 0.95)
    assert (everything.low, everything.high, everything.excludes) == (None, None, False)
    assert outside.excludes
    assert not outside.bounded
    assert row_of(contrast(control=0.1, treatment=10, control_variance=1)).lift is None
    nothing = contrast(control=0, treatment=0, control_variance=0, treatment_variance=0)
    assert fieller(nothing, 0.95) == Interval(low=None, high=None, level=0.95)


def test_fieller_set_at_the_border_is_a_half_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.contrast.t_quantile", lambda level, df: 2.0)
    border = contrast(control=2.0, treatment=1.0, control_variance=1.0)
    half = fieller(border, 0.95)
    assert half.high is None
    assert half.low == pytest.approx((1 - 4 * 0.1) / 4)
    mirrored = fieller(replace(border, treatment=-1.0), 0.95)
    assert mirrored.low is None
    assert mirrored.high == pytest.approx(-(1 - 4 * 0.1) / 4)
    assert fieller(replace(border, treatment=0.0), 0.95) == Interval(low=None, high=None, level=0.95)


def test_zero_control_mean_has_a_difference_and_no_lift() -> None:
    row = row_of(contrast(control=0.0))
    assert (row.difference, row.lift, row.lift_interval) == (11.0, None, None)
    assert "the control mean is not clearly above 0: no relative change" in row.warnings


def test_overflow_leaves_as_none_with_a_word() -> None:
    row = finite_estimate(replace(row_of(contrast()), difference=float("inf"), p_value=float("nan")))
    assert (row.difference, row.p_value) == (None, None)
    assert row.warnings[-1] == "not computable: difference, p_value"
    (check,) = finite_checks([Check(name="x", passed=True, p_value=float("nan"), detail="d")])
    assert (check.passed, check.p_value) == (None, None)


def test_welch_and_ratio_refuse_what_has_no_error() -> None:
    one, two = np.array([1.0]), np.array([1.0, 2.0])
    with pytest.raises(NotEnoughData, match="1 and 2 hosts"):
        welch(one, two)
    with pytest.raises(NotEnoughData, match="sums to 0"):
        fleet_ratio((two, np.zeros(2)), (two, two))
    assert satterthwaite([0.0, 0.0], [3, 4]) == 7


def test_fleet_ratio_of_equal_denominators_is_the_mean() -> None:
    draw = np.random.default_rng(0)
    control, treatment = draw.normal(5, 1, 9), draw.normal(6, 1, 9)
    found = fleet_ratio((control, np.full(9, 2.0)), (treatment, np.full(9, 2.0)))
    plain = welch(control / 2, treatment / 2)
    assert found.difference == pytest.approx(plain.difference)
    assert found.standard_error == pytest.approx(plain.standard_error)


def test_ancova_agrees_with_its_robust_errors_elsewhere() -> None:
    """HC2 and HC3 by their definition, from the hat matrix."""
    draw = np.random.default_rng(0)
    n = 30
    treated, x = np.arange(n) < 12, draw.normal(10, 2, n)
    y = x + treated + draw.normal(0, 1 + treated, n)
    design = np.column_stack((np.ones(n), treated, x - x.mean()))
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    hat = np.einsum("ij,jk,ik->i", design, inverse, design)
    for name, power_of in (("HC2", 1), ("HC3", 2)):
        meat = design.T @ (design * ((y - design @ beta) ** 2 / (1 - hat) ** power_of)[:, None])
        found = ancova(y, treated, x[:, None], robust=name, small_sample_df=False)  # type: ignore[arg-type]
        assert found.difference == pytest.approx(beta[1])
        assert found.standard_error == pytest.approx(np.sqrt((inverse @ meat @ inverse)[1, 1]))
        assert found.df == n - 3


def test_interaction_is_a_regression_in_each_arm_read_at_the_average_host() -> None:
    draw = np.random.default_rng(1)
    treated, x = np.arange(50) < 20, draw.normal(10, 2, 50)
    y = x * (1 + treated) + draw.normal(0, 1, 50)
    expected = [np.polyval(np.polyfit(x[side], y[side], 1), x.mean()) for side in (~treated, treated)]
    found = ancova(y, treated, x[:, None], interact=True)
    assert (found.control, found.treatment) == pytest.approx(expected)


def test_ancova_refuses_more_coefficients_than_hosts_and_drops_copies() -> None:
    draw = np.random.default_rng(2)
    with pytest.raises(NotEnoughData, match="cannot carry"):
        ancova(draw.normal(size=5), np.arange(5) < 2, draw.normal(size=(5, 4)))
    x = draw.normal(size=(20, 1))
    assert independent_columns(np.hstack((x, 2 * x, np.ones((20, 1))))).shape == (20, 1)


def test_strata_need_a_weight() -> None:
    with pytest.raises(NotEnoughData, match="weight"):
        combine({"a": contrast()}, {"b": 1.0})


def test_heterogeneity_needs_two_strata_that_vary() -> None:
    with pytest.raises(NotEnoughData, match="two strata"):
        heterogeneity([1.0], [1.0])
    assert heterogeneity([1.0, 1.0], [1.0, 1.0]).i2 == 0


def test_hodges_lehmann_is_the_same_by_sorting_and_by_bisection(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(3)
    control, treatment = draw.normal(0, 1, 60), draw.normal(1, 1, 70)
    sorted_ = hodges_lehmann(control, treatment, 0.95)
    monkeypatch.setattr("analysis.estimators.hodges_lehmann.ALL_PAIRS_UP_TO", 10)
    searched = hodges_lehmann(control, treatment, 0.95)
    assert searched[0] == pytest.approx(sorted_[0])
    assert (searched[1].low, searched[1].high) == pytest.approx((sorted_[1].low, sorted_[1].high))


def test_hodges_lehmann_interval_is_what_mann_whitney_does_not_reject() -> None:
    draw = np.random.default_rng(4)
    control, treatment = draw.normal(0, 1, 9), draw.normal(1, 1, 8)
    _, interval, _ = hodges_lehmann(control, treatment, 0.95)
    assert interval.low is not None
    assert interval.high is not None
    near = 1e-6
    inside = (interval.low + near, interval.high - near)
    for shift in (*inside, interval.low - near, interval.high + near):
        p = stats.mannwhitneyu(treatment - shift, control, method="exact").pvalue
        assert (p >= 0.05) == (shift in inside)


def test_winsorising_pulls_in_the_tails_of_the_reference() -> None:
    reference = np.linspace(0, 100, 1001)
    found = winsorised(np.array([50.0, 1e9]), np.array([50.0, -1e9]), reference)
    assert (found.control, found.treatment) == pytest.approx((73.75, 26.25))


def test_bootstrap_waits_for_twenty_hosts_and_some_spread() -> None:
    draw = np.random.default_rng(5)
    values = draw.normal(10, 1, 40)
    assert bca(values[:19], values[:30], 0.95, 0) is None
    assert bca(np.ones(20), np.ones(20), 0.95, 0) is None
    found = bca(values[:20], values[20:], 0.95, 0)
    assert found == bca(values[:20], values[20:], 0.95, 0)
    plain = welch(values[:20], values[20:]).interval(0.95)
    assert found is not None
    assert plain is not None
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.2)


def test_sign_flip_beyond_enumeration_is_drawn_and_close() -> None:
    values = np.random.default_rng(6).normal(0.4, 1, 25)
    found = sign_flip_p(values, seed=1)
    assert found == sign_flip_p(values, seed=1)
    assert found == pytest.approx(stats.ttest_1samp(values, 0).pvalue, abs=0.02)


def test_confidence_sequence_holds_at_every_look() -> None:
    draw = np.random.default_rng(7)
    runs, ever, at_end = 400, 0, 0
    for _ in range(runs):
        control, treatment = draw.normal(0, 1, 200), draw.normal(0, 1, 200)
        outside = []
        for n in range(10, 201, 10):
            found = welch(control[:n], treatment[:n])
            outside.append(abs(found.difference) > widening(2 * n, 0.05, 400) * found.standard_error)
        ever += any(outside)
        at_end += outside[-1]
    assert ever / runs <= stats.binom.ppf(0.999, runs, 0.05) / runs
    assert at_end <= ever


def test_confidence_sequence_formula_and_limits() -> None:
    """sqrt(2 (t r + 1) log(sqrt(t r + 1) / alpha) / (t^2 r)) is the margin of drconfseq's std_conjmix_margin."""
    t = tuned = 100.0
    r = np.geomspace(1e-3, 1, 4000)
    margins = np.sqrt(2 * (t * r + 1) * np.log(np.sqrt(t * r + 1) / 0.05) / (t**2 * r))
    assert widening(100, 0.05, tuned) == pytest.approx(10 * margins.min(), rel=1e-4)
    assert sequence_level(100, 0.05) < 0.05


def test_spending_refuses_nonsense() -> None:
    with pytest.raises(BadPlan, match="fraction"):
        spent(0.0, 0.05)
    assert bounds((0.001, 1.0), 0.05)[0] == 8.0  # spends less than can be told from nothing


@pytest.mark.parametrize(
    ("counts", "ratio", "expected"),
    [
        ((0, 0), (1, 1), None),
        ((1, 8), (1, 1), 2 * (1 + 9) / 512),
        ((9, 9, 9), (1, 1, 1), 1.0),
        ((3, 0, 0), (1, 1, 1), 3 / 27),
    ],
)
def test_ratio_p_is_exact_for_small_counts(counts: tuple[int, ...], ratio: tuple[float, ...], expected: float) -> None:
    found = ratio_p(counts, ratio)
    assert found == (None if expected is None else pytest.approx(expected))


def test_ratio_check_without_hosts_is_not_testable() -> None:
    assert ratio_check({"": ([0, 0], ["c", "t"])}, (1, 1)).passed is None


def test_attrition_without_an_arm_is_not_testable_and_never_passes() -> None:
    assert attrition_check((0, 0), (0, 5), "t").passed is None
    assert loss_guardrail((0, 0), (0, 5), "t", 0.05).verdict is Verdict.INCONCLUSIVE
    assert loss_guardrail((1, 0), (50, 50), "t", 0.05).verdict is Verdict.PASS


def test_worst_case_bounds_hold_the_truth_whatever_the_lost_were() -> None:
    draw = np.random.default_rng(8)
    control, treatment = draw.normal(0, 1, 20), draw.normal(1, 1, 20)
    found = bounds_of(gaps(control, treatment[:15], (0, 5)), METRIC, Redraws(plan=plan()))
    assert found is not None
    truth = float(treatment.mean() - control.mean())
    assert found.low.difference < truth < found.high.difference
    interval = found.low.interval(0.95)
    assert interval is not None
    assert interval.low is not None
    assert interval.low < found.low.difference


def test_nothing_missing_has_no_bounds() -> None:
    assert bounds_of(gaps(np.arange(5.0), np.arange(5.0), (0, 0)), METRIC, Redraws(plan=plan())) is None


def test_exposure_refuses_what_was_never_given() -> None:
    arm = ExposureArm(outcome=np.array([1.0, 2.0]), dose=np.zeros(2))
    with pytest.raises(NotEnoughData, match="exactly 0"):
        wald(arm, arm, 0.95)
    with pytest.raises(NotEnoughData, match="two hosts"):
        wald(ExposureArm(outcome=np.ones(1), dose=np.ones(1)), arm, 0.95)
    assert dose_response(np.arange(5.0), np.ones(5), 0.95) is None
    assert dose_response(np.arange(3.0), np.arange(3.0), 0.95) is None
    assert dose_response(np.arange(5.0), np.arange(5.0), 0.95) is None  # a perfect line has no error


def test_dose_response_is_the_regression() -> None:
    draw = np.random.default_rng(9)
    dose = draw.normal(68, 9, 40)
    outcome = 0.1 * dose + draw.normal(0, 1, 40)
    found = dose_response(outcome, dose, 0.95)
    assert found is not None
    assert found[0] == pytest.approx(np.polyfit(dose, outcome, 1)[0])


def test_guardrail_corners() -> None:
    with pytest.raises(ValueError, match="margin"):
        margin_verdict(replace(RAIL, margin=None), None, None)
    with pytest.raises(ValueError, match="tripwire"):
        tripwire_verdict(RAIL, 1.0, True)
    negative = row_of(contrast(control=-10.0))
    assert margin_verdict(RAIL, negative, None)[0] is Verdict.INCONCLUSIVE
    unbounded = Interval(low=None, high=None, level=0.9)
    assert margin_verdict(RAIL, row_of(contrast()), unbounded)[0] is Verdict.INCONCLUSIVE
    assert tripwire_verdict(replace(RAIL, tripwire=5.0), 1.0, False)[0] is Verdict.INCONCLUSIVE
    fall = replace(RAIL, worse=Direction.DECREASE, tripwire=5.0)
    assert tripwire_verdict(fall, 4.0, True)[0] is Verdict.FAIL
    assert tripwire_verdict(fall, 6.0, True)[0] is Verdict.PASS


def test_observer_check_needs_a_test() -> None:
    assert observer_effect(replace(row_of(contrast()), p_value=None), 0.5).passed is None


def test_trade_corners() -> None:
    bounded = Interval(low=-0.1, high=0.1, level=0.975)
    with pytest.raises(BadPlan, match="share"):
        servers_per_1000("t", (0.1, bounded), (0.1, bounded), 2.0)
    with pytest.raises(BadPlan, match="nothing"):
        servers_per_1000("t", (-1.0, bounded), (0.1, bounded), 0.5)
    assert servers_per_1000("t", (0.1, None), (0.1, bounded), 0.5).interval is None
    assert servers_per_1000("t", (0.1, replace(bounded, low=-1.5)), (0.1, bounded), 0.5).interval is None


def test_multiplicity_of_nothing_is_nothing() -> None:
    assert holm([]) == []
    assert benjamini_hochberg([]) == []
    assert holm([0.04, 0.01]) == [0.04, 0.02]


def test_errors_say_what_where_and_remedy() -> None:
    assert str(AnalysisError("wrong", "here", "do this")) == "wrong [here] — do this"
    assert str(AnalysisError("wrong")) == "wrong"


def test_early_look_at_a_switchback_is_wider_too() -> None:
    observations = switchback({"latency": shifted(-1)}, blocks=12)
    early = analyze(observations, switchback_plan(information_fractions=(0.5, 1.0), look=0)).estimates
    fixed = analyze(observations, switchback_plan()).estimates
    assert early[0].p_adjusted > fixed[0].p_adjusted  # type: ignore[operator]
    assert early[1].p_adjusted > fixed[1].p_value  # type: ignore[operator]
    unplanned = analyze(observations, switchback_plan(unplanned_look=True))
    assert unplanned.estimates[0].p_value is None
    assert unplanned.decision == "inconclusive"


def test_plan_without_a_direction_or_a_primary_decides_nothing() -> None:
    hosts = fleet(8, 8)
    observations = hosts.observations(
        {"throughput": np.random.default_rng(0).normal(100, 1, 16) + 50 * hosts.is_treated()}
    )
    nameless = analyze(observations, plan(metrics=(MetricPlan(name="throughput", unit="", role=Role.PRIMARY),)))
    assert "which way throughput is better" in nameless.reason
    aimless = analyze(observations, plan(metrics=(MetricPlan(name="throughput", unit="", role=Role.SECONDARY),)))
    assert "no primary metric" in aimless.reason
