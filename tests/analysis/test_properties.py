"""What must hold of every data set: the invariants of the methods, searched for counterexamples."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from analysis import analyze
from analysis.adjustment import ancova
from analysis.contrast import Contrast, fieller
from analysis.estimators.hodges_lehmann import hodges_lehmann
from analysis.exposure import ExposureArm, wald
from analysis.guardrails import margin_verdict
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Estimate, Interval, Verdict
from analysis.sequential import bounds, level_at, spent
from analysis.strata import combine, host_weights, within_strata
from analysis.welch import welch
from tests.analysis.fleet_data import Fleet, fleet
from tests.analysis.fleet_data import plan as fleet_plan
from tests.analysis.simulation import possible_assignments, randomisation_p, sign_flip_p

Floats = NDArray[np.float64]
seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(3, 30)


def arms(seed: int, n: int, m: int, skew: float = 0.0) -> tuple[Floats, Floats]:
    draw = np.random.default_rng(seed)
    base = draw.normal(5, 1, n + m)
    values = np.exp(base * skew) if skew else base
    return values[:n], values[n:] * draw.uniform(0.5, 1.5)


# 1. The unit
@settings(max_examples=20)
@given(seed=seeds)
def test_more_rows_of_a_host_or_another_order_change_nothing(seed: int) -> None:
    draw = np.random.default_rng(seed)
    hosts = fleet(6, 7)
    once = hosts.observations({"throughput": draw.normal(100, 10, 13)})
    again = once.assign(period_id=once["period_id"] + 7_000_000)
    doubled = once.iloc[:0].copy()
    doubled = type(once)(np.repeat(once.to_numpy(), 2, axis=0), columns=once.columns).astype(once.dtypes.to_dict())
    doubled["period_id"] = range(len(doubled))
    plain = analyze(once, fleet_plan(units=hosts.units))
    assert analyze(doubled, fleet_plan(units=hosts.units)).estimates == plain.estimates
    shuffled = again.sample(frac=1, random_state=seed % 1000)
    assert analyze(shuffled, fleet_plan(units=hosts.units)).estimates == plain.estimates


# 2. Effect and lift
@given(seed=seeds, n=sizes, m=sizes, alpha=st.sampled_from([0.01, 0.05, 0.2]), skew=st.sampled_from([0.0, 1.0]))
def test_zero_is_in_the_interval_exactly_when_p_is_at_least_alpha(
    seed: int, n: int, m: int, alpha: float, skew: float
) -> None:
    found = welch(*arms(seed, n, m, skew))
    p = found.p_value()
    assert p is not None
    assume(abs(p - alpha) > 1e-9)
    for interval in (found.interval(1 - alpha), found.lift_interval(1 - alpha)):
        assert interval is not None
        low = -math.inf if interval.low is None else interval.low
        high = math.inf if interval.high is None else interval.high
        inside = (low <= 0 <= high) != interval.excludes
        assert inside == (p >= alpha)


@given(seed=seeds, n=sizes, m=sizes, scale=st.sampled_from([1e-9, 0.001, 1024.0, 1e12]))
def test_rescaling_units_changes_neither_p_nor_lift(seed: int, n: int, m: int, scale: float) -> None:
    control, treatment = arms(seed, n, m)
    one, other = welch(control, treatment), welch(control * scale, treatment * scale)
    assert other.p_value() == pytest.approx(one.p_value(), rel=1e-6)
    assert other.lift() == pytest.approx(one.lift(), rel=1e-9)
    low, high = one.lift_interval(0.95), other.lift_interval(0.95)
    assert low is not None
    assert high is not None
    assert (low.low, low.high) == pytest.approx((high.low, high.high), rel=1e-6)


@given(seed=seeds, n=sizes, m=sizes)
def test_swapping_arms_maps_the_ratio_to_its_reciprocal(seed: int, n: int, m: int) -> None:
    control, treatment = arms(seed, n, m)
    there, back = welch(control, treatment), welch(treatment, control)
    assert back.p_value() == pytest.approx(there.p_value(), rel=1e-9)
    one, other = fieller(there, 0.95), fieller(back, 0.95)
    if one.bounded and other.bounded and one.low is not None and one.low > 0:
        assert other.low == pytest.approx(1 / one.high, rel=1e-6)  # type: ignore[operator]
        assert other.high == pytest.approx(1 / one.low, rel=1e-6)


@given(
    control=st.floats(-3, 3), treatment=st.floats(-3, 3), vc=st.floats(0.01, 4), vt=st.floats(0.01, 4),
    correlation=st.floats(-0.95, 0.95), ratio=st.floats(-50, 50),
)  # fmt: skip
def test_fieller_set_is_what_the_test_does_not_reject(
    *, control: float, treatment: float, vc: float, vt: float, correlation: float, ratio: float
) -> None:
    pair = Contrast(
        control=control, treatment=treatment, control_variance=vc, treatment_variance=vt,
        covariance=correlation * math.sqrt(vc * vt), df=9.0, n_control=10, n_treatment=10,
    )  # fmt: skip
    spread = vt - 2 * ratio * pair.covariance + ratio**2 * vc
    statistic = (treatment - ratio * control) ** 2 / spread - stats.t.ppf(0.975, 9.0) ** 2
    assume(abs(statistic) > 1e-6)
    found = fieller(pair, 0.95)
    low = -math.inf if found.low is None else found.low
    high = math.inf if found.high is None else found.high
    assert ((low <= ratio <= high) != found.excludes) == (statistic < 0)


# 3. Pre-period
@given(seed=seeds, n=st.integers(4, 30), constant=st.floats(-1e6, 1e6))
def test_constant_covariate_gives_the_unadjusted_answer_and_a_shifted_one_the_same(
    seed: int, n: int, constant: float
) -> None:
    draw = np.random.default_rng(seed)
    treated = np.arange(2 * n) < n
    before = draw.normal(100, 10, 2 * n)
    y = before + draw.normal(0, 5, 2 * n)
    assert ancova(y, treated, np.full((2 * n, 1), constant)) == welch(y[~treated], y[treated])
    one, other = ancova(y, treated, before[:, None]), ancova(y, treated, before[:, None] + constant)
    assert other.difference == pytest.approx(one.difference, rel=1e-5, abs=1e-6)
    assert other.standard_error == pytest.approx(one.standard_error, rel=1e-5)


# 4. Strata
@given(seed=seeds, strata=st.integers(1, 4), n=st.integers(3, 12))
def test_combined_estimate_lies_within_the_strata_and_one_stratum_is_unstratified(
    seed: int, strata: int, n: int
) -> None:
    hosts = fleet(strata * n, strata * n, strata)
    names = np.array(hosts.strata)
    y = np.random.default_rng(seed).normal(10, 3, names.size)
    parts = within_strata(y, hosts.is_treated(), names)
    found = combine(parts, host_weights(names))
    differences = [part.difference for part in parts.values()]
    assert min(differences) - 1e-9 <= found.difference <= max(differences) + 1e-9
    if strata == 1:
        assert found == welch(y[~hosts.is_treated()], y[hosts.is_treated()])


# 6. Heavy tails
@given(seed=seeds, n=st.integers(4, 70), m=st.integers(4, 70), alpha=st.sampled_from([0.05, 0.2]))
def test_zero_is_in_the_hodges_lehmann_interval_exactly_when_mann_whitney_is_at_least_alpha(
    seed: int, n: int, m: int, alpha: float
) -> None:
    control, treatment = arms(seed, n, m)
    shift, interval, p = hodges_lehmann(control, treatment, 1 - alpha)
    assert interval.low is not None
    assert interval.high is not None
    assume(interval.low < interval.high)
    assert interval.low <= shift <= interval.high
    assert (interval.low <= 0 <= interval.high) == (p >= alpha)


# 7. Few hosts
@given(seed=seeds, n=st.integers(2, 7), m=st.integers(2, 7))
def test_randomisation_p_is_never_below_one_over_the_assignments(seed: int, n: int, m: int) -> None:
    hosts = fleet(n, m)
    treated = hosts.is_treated()
    y = np.where(treated, 100.0, 0.0) + np.random.default_rng(seed).normal(0, 1, n + m)
    p = randomisation_p(y, treated, np.array(hosts.strata), seed=0)
    assert p >= 1 / possible_assignments(treated, np.array(hosts.strata))


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=12))
def test_sign_flip_p_is_never_below_two_patterns(values: list[float]) -> None:
    assert sign_flip_p(np.array(values), seed=0) >= 2 / 2 ** len(values) - 1e-12


def test_randomisation_p_is_uniform_under_a_a() -> None:
    draw = np.random.default_rng(5)
    hosts = fleet(6, 6)
    treated, strata = hosts.is_treated(), np.array(hosts.strata)
    values = [randomisation_p(np.exp(draw.normal(0, 1, 12)), treated, strata, seed=0) for _ in range(300)]
    assert stats.kstest(values, "uniform").pvalue > 0.001
    assert np.mean(np.array(values) <= 0.05) <= stats.binom.ppf(0.999, 300, 0.05) / 300


def test_drawn_randomisation_agrees_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = fleet(7, 7, 2)
    treated, strata = hosts.is_treated(), np.array(hosts.strata)
    y = np.random.default_rng(3).normal(0, 1, 14) + treated
    exact = randomisation_p(y, treated, strata, seed=1)
    monkeypatch.setattr("analysis.assignment_redraws.EXACT_UP_TO", 10)
    assert randomisation_p(y, treated, strata, seed=1) == pytest.approx(exact, abs=0.02)
    assert randomisation_p(y, treated, strata, seed=1) == randomisation_p(y, treated, strata, seed=1)


# 9. Guardrails
@given(
    low=st.floats(-0.5, 0.5), width=st.floats(0, 1), tight=st.floats(0, 0.5), more=st.floats(0, 0.5),
    worse=st.sampled_from(Direction),
)  # fmt: skip
def test_looser_margin_never_turns_pass_into_fail(
    low: float, width: float, tight: float, more: float, worse: Direction
) -> None:
    row = _row(lift=low + width / 2)
    bounds_ = Interval(low=low, high=low + width, level=0.9)
    rank = [Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS]
    verdicts = [
        margin_verdict(GuardrailPlan(metric="m", worse=worse, margin=margin), row, bounds_)[0]
        for margin in (tight, tight + more)
    ]
    assert rank.index(verdicts[1]) >= rank.index(verdicts[0])


def _row(lift: float) -> Estimate:
    return Estimate(
        metric="m", unit="", role=Role.GUARDRAIL, treatment="t", control="c", estimand="", method="", n_control=9,
        n_treatment=9, control_mean=1.0, treatment_mean=1 + lift, difference=lift, difference_interval=None, lift=lift,
        lift_interval=None, standard_error=None, df=None, p_value=None,
    )  # fmt: skip


# 10. Looking early
@settings(max_examples=20)
@given(
    parts=st.lists(st.floats(0.02, 1.0), min_size=1, max_size=6),
    alpha=st.sampled_from([0.01, 0.05, 0.1]),
)
def test_spending_never_falls_and_ends_at_alpha_and_no_look_is_easier_than_the_last(
    parts: list[float], alpha: float
) -> None:
    fractions = (*(np.cumsum(parts)[:-1] / sum(parts)).tolist(), 1.0)
    spendings = [spent(fraction, alpha) for fraction in fractions]
    assert spendings == sorted(spendings)
    assert spendings[-1] == pytest.approx(alpha)
    found = bounds(fractions, alpha)
    assert all(z >= stats.norm.isf(alpha / 2) - 1e-6 for z in found)
    if len(fractions) == 1:
        assert level_at(fractions, 0, alpha) == alpha
        assert found[0] == pytest.approx(stats.norm.isf(alpha / 2))


def test_bounds_spend_what_they_should() -> None:
    """Brownian motion looked at ten times crosses with probability alpha."""
    fractions = tuple((place + 1) / 10 for place in range(10))
    limits = np.array(bounds(fractions, 0.05))
    steps = np.random.default_rng(0).normal(0, math.sqrt(0.1), (200_000, 10))
    z = steps.cumsum(axis=1) / np.sqrt(fractions)
    crossed = (np.abs(z) > limits).any(axis=1).mean()
    assert crossed == pytest.approx(0.05, abs=0.002)


# 13. Exposure
@given(seed=seeds, n=st.integers(3, 30))
def test_full_compliance_with_unit_dose_is_intention_to_treat(seed: int, n: int) -> None:
    control, treatment = arms(seed, n, n)
    plain = welch(control, treatment)
    found = wald(ExposureArm(outcome=control, dose=np.zeros(n)), ExposureArm(outcome=treatment, dose=np.ones(n)), 0.95)
    interval = plain.interval(0.95)
    assert interval is not None
    assert found.effect == pytest.approx(plain.difference)
    assert found.standard_error == pytest.approx(plain.standard_error)
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high))
    assert found.first_stage_f is None


# 11. Sample ratio: every other unit's arm is untouched by who else is there (the draw itself is fleetexp's).
@given(seed=seeds, extra=st.integers(1, 5))
@settings(max_examples=15)
def test_hosts_of_another_arm_change_no_estimate(seed: int, extra: int) -> None:
    draw = np.random.default_rng(seed)
    hosts = fleet(6, 6)
    values = draw.normal(100, 10, 12 + extra)
    wider = Fleet(arms=(*hosts.arms, *["other"] * extra), strata=(*hosts.strata, *["pool-0"] * extra))
    names = ("control", "treatment", "other")
    alone = analyze(hosts.observations({"throughput": values[:12]}), fleet_plan(units=hosts.units))
    together = analyze(wider.observations({"throughput": values}), fleet_plan(units=wider.units, arms=names))
    pair = [row for row in together.estimates if row.treatment == "treatment" and row.headline]
    own = [row for row in alone.estimates if row.headline]
    shared = [
        (row.difference, row.lift, row.standard_error, row.df, row.p_value, row.n_control, row.n_treatment)
        for row in (*pair, *own)
    ]
    assert shared[: len(pair)] == shared[len(pair) :]
    intervals = [(row.difference_interval.low, row.difference_interval.high) for row in (*pair, *own)]  # type: ignore[union-attr]
    assert intervals[0][0] is None or intervals[0][0] < intervals[1][0]  # type: ignore[operator]


@given(
    values=st.lists(
        st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0, 1e-300, 1e300]),
        min_size=12, max_size=12,
    ),
    before=st.lists(st.floats(-1e9, 1e9) | st.just(math.nan), min_size=12, max_size=12),
)  # fmt: skip
@settings(max_examples=100)
def test_no_input_puts_nan_or_infinity_into_a_result(values: list[float], before: list[float]) -> None:
    hosts = fleet(6, 6, 2)
    metrics = (
        MetricPlan(name="throughput", unit="", role=Role.PRIMARY, better=Direction.INCREASE),
        MetricPlan(name="dose", unit="", role=Role.EXPOSURE),
    )
    rail = GuardrailPlan(metric="throughput", worse=Direction.DECREASE, margin=0.1)
    after = {"throughput": np.array(values), "dose": np.array(values[::-1])}
    frame = hosts.observations(after, {"throughput": np.array(before)})
    found = analyze(frame, fleet_plan(units=hosts.units, metrics=metrics, guardrails=(rail,)))
    for row in found.estimates:
        numbers = [row.control_mean, row.treatment_mean, row.difference, row.lift, row.standard_error, row.df]
        numbers += [row.p_value, row.p_adjusted]
        for interval in (row.difference_interval, row.lift_interval):
            numbers += [] if interval is None else [interval.low, interval.high]
        assert all(number is None or math.isfinite(number) for number in numbers), row
    assert all(check.p_value is None or math.isfinite(check.p_value) for check in found.checks)
