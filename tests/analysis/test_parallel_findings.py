"""The whole path of a parallel design: hosts in, decision out, and what spoils it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis import analyze
from analysis.calibration import CONTROLS, SPLIT, calibrate
from analysis.errors import BadObservations, NotEnoughData
from analysis.plan import AssignedUnit, Direction, GuardrailPlan, MetricPlan, Role, TradePlan
from analysis.results import Cause, Decision, EstimateKind, Findings, Verdict
from tests.analysis.fleet_data import Fleet, fleet, plan

THROUGHPUT = MetricPlan(name="throughput", unit="requests per second", role=Role.PRIMARY, better=Direction.INCREASE)
MEMORY = MetricPlan(name="memory", unit="bytes", role=Role.SECONDARY)
MARGIN = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.1)


def normal(hosts: Fleet, mean: float, sd: float, effect: float = 0.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, sd, len(hosts.arms)) + effect * hosts.is_treated()


def method_of(findings: Findings, part: str) -> list[str]:
    return [row.method for row in findings.estimates if part in row.method]


def check(findings: Findings, name: str) -> bool | None:
    return next(row.passed for row in findings.checks if row.name.startswith(name))


def test_adjusted_estimate_leads_and_every_other_way_stands_beside_it() -> None:
    hosts = fleet(30, 30, 2)
    before = normal(hosts, 100, 20)
    after = before + normal(hosts, 0, 5, effect=10, seed=2)
    dose = normal(hosts, 0, 1, effect=68, seed=3) * hosts.is_treated()
    metrics = (THROUGHPUT, MetricPlan(name="backed", unit="GB", role=Role.EXPOSURE))
    observations = hosts.observations({"throughput": after, "backed": dose}, {"throughput": before})
    findings = analyze(observations, plan(units=hosts.units, metrics=metrics))
    headline = next(row for row in findings.estimates if row.headline)
    assert headline.method == "Lin's ANCOVA on pre-period and strata, HC2"
    assert headline.difference == pytest.approx(10, abs=4)
    unadjusted = next(row for row in findings.estimates if row.method == "Welch t, unadjusted")
    assert headline.standard_error < unadjusted.standard_error / 2  # type: ignore[operator]
    for part in (
        "randomisation test", "difference in differences", "Hodges-Lehmann", "winsorised", "BCa", "within the stratum",
        "strata combined", "random effects", "Wald", "dose-response",
    ):  # fmt: skip
        rows = [row for row in findings.estimates if part in row.method]
        assert rows, part
        assert not any(row.headline for row in rows)
    complier = next(row for row in findings.estimates if "Wald" in row.method)
    assert complier.unit == "requests per second per GB"
    assert complier.difference == pytest.approx(unadjusted.difference / 68, rel=0.05)  # type: ignore[operator]
    assert findings.decision == "ship"
    assert check(findings, "pre-period A/A") is True
    assert check(findings, "heterogeneity") is not False


def test_three_hosts_an_arm_claim_nothing_and_four_may() -> None:
    small, large = fleet(3, 3), fleet(4, 4)
    few = analyze(small.observations({"throughput": normal(small, 100, 0.1, 50)}), plan(units=small.units))
    enough = analyze(large.observations({"throughput": normal(large, 100, 0.1, 50)}), plan(units=large.units))
    assert few.decision == "inconclusive"
    assert few.estimates[0].p_value is None
    assert "3 + 3 hosts of at least 4 + 4" in few.reason
    assert enough.decision == "ship"
    drawn = next(row for row in enough.estimates if "randomisation" in row.method)
    assert drawn.p_value == pytest.approx(2 / 70)


def test_few_hosts_need_the_randomisation_test_to_agree() -> None:
    hosts = fleet(4, 4)
    y = np.array([0.0, 1.0, 2.0, 3.0, 2.9, 4.0, 5.0, 6.0]) * 1.0
    findings = analyze(hosts.observations({"throughput": y + 100}), plan(units=hosts.units, alpha=0.049))
    headline = findings.estimates[0]
    assert headline.p_value is not None
    welch_alone = next(row for row in findings.estimates if row.kind is EstimateKind.UNADJUSTED)
    assert welch_alone.p_value is not None
    assert welch_alone.p_value < 0.049 < headline.p_value
    assert findings.decision is Decision.INCONCLUSIVE
    assert findings.arms[0].cause is Cause.NOT_CLEAR


def test_lone_hosts_have_means_and_no_error() -> None:
    hosts = fleet(1, 1)
    findings = analyze(hosts.observations({"throughput": np.array([100.0, 110.0])}), plan(units=hosts.units))
    row = findings.estimates[0]
    assert (row.difference, row.lift, row.standard_error) == (10, pytest.approx(0.1), None)
    assert findings.decision == "inconclusive"


def test_metric_missing_in_an_arm_is_named() -> None:
    hosts = fleet(6, 6)
    observations = hosts.observations({"throughput": normal(hosts, 100, 1)})
    one_sided = observations[observations["arm"] == "control"]
    findings = analyze(one_sided, plan(units=hosts.units))
    assert "throughput, treatment: unavailable, no host of treatment has it" in findings.warnings
    assert findings.decision in {"inconclusive", "do_not_ship"}


def test_lost_hosts_stay_in_the_count_and_losing_them_is_a_guardrail() -> None:
    hosts = fleet(40, 40)
    observations = hosts.observations({"throughput": normal(hosts, 100, 5, 20)})
    lost = {f"h{place:04d}" for place in range(45, 65)}
    findings = analyze(observations[~observations["host"].isin(lost)], plan(units=hosts.units))
    rail = next(rail for rail in findings.guardrails if rail.plan.metric == "hosts_lost")
    assert rail.verdict is Verdict.FAIL
    assert findings.decision is Decision.DO_NOT_SHIP
    assert check(findings, "attrition") is False
    bound = next(row for row in findings.estimates if row.kind is EstimateKind.WORST_CASE)
    assert bound.n_treatment == 40
    assert bound.difference_interval is not None
    assert bound.difference_interval.low < findings.estimates[0].difference  # type: ignore[operator]


def test_a_few_lost_hosts_by_chance_are_weighed_by_the_bounds_and_no_veto() -> None:
    hosts = fleet(40, 40)
    observations = hosts.observations({"throughput": normal(hosts, 100, 5, 20)})
    findings = analyze(observations[~observations["host"].isin({"h0050", "h0051"})], plan(units=hosts.units))
    rail = next(rail for rail in findings.guardrails if rail.plan.metric == "hosts_lost")
    assert rail.verdict is Verdict.PASS
    assert findings.decision is Decision.SHIP
    assert [(one.arm, one.lost, one.due) for one in findings.arms[0].missing] == [
        ("control", 0, 40),
        ("treatment", 2, 40),
    ]
    small = observations.assign(
        mean=observations["mean"].where(observations["arm"] == "control", observations["mean"] - 16)
    )
    findings = analyze(small[~small["host"].isin({"h0050", "h0051"})], plan(units=hosts.units))
    assert findings.decision is Decision.INCONCLUSIVE
    assert findings.arms[0].cause is Cause.MISSING_DATA


def test_sample_ratio_mismatch_spoils_everything() -> None:
    hosts = fleet(100, 40)
    findings = analyze(hosts.observations({"throughput": normal(hosts, 100, 5, 20)}), plan())
    assert check(findings, "sample-ratio") is False
    assert findings.decision == "inconclusive"
    as_planned = analyze(hosts.observations({"throughput": normal(hosts, 100, 5, 20)}), plan(ratio=(5.0, 2.0)))
    assert check(as_planned, "sample-ratio") is True


def test_mismatch_inside_one_stratum_is_found() -> None:
    arms = ("control",) * 40 + ("treatment",) * 40
    strata = ("a",) * 38 + ("b",) * 2 + ("a",) * 15 + ("b",) * 25
    hosts = Fleet(arms=arms, strata=strata)
    findings = analyze(hosts.observations({"throughput": normal(hosts, 100, 5)}), plan(units=hosts.units))
    detail = next(row.detail for row in findings.checks if row.name.startswith("sample-ratio"))
    assert "stratum" in detail
    assert check(findings, "sample-ratio") is False


def test_strata_that_disagree_are_flagged() -> None:
    hosts = fleet(40, 40, 2)
    sign = np.where(np.array(hosts.strata) == "pool-0", 1.0, -1.0)
    y = normal(hosts, 100, 5) + 20 * sign * hosts.is_treated()
    findings = analyze(hosts.observations({"throughput": y}), plan(units=hosts.units))
    row = next(row for row in findings.checks if row.name.startswith("heterogeneity"))
    assert "OPPOSITE SIGNS" in row.detail
    assert row.passed is None
    assert findings.decision is Decision.SHIP_IN_STRATA
    assert findings.arms[0].scope.strata == ("pool-0",)
    assert findings.arms[0].scope.harmed == ("pool-1",)


def test_stratum_too_small_to_adjust_for_is_said() -> None:
    arms = ("control",) * 9 + ("treatment",) * 9
    hosts = Fleet(arms=arms, strata=("a",) * 9 + ("a",) * 8 + ("lonely",))
    findings = analyze(hosts.observations({"throughput": normal(hosts, 100, 5)}), plan(units=hosts.units))
    assert findings.estimates[0].method == "Welch t and randomisation test"
    assert any("strata were not adjusted for" in warning for warning in findings.estimates[0].warnings)
    combined = next(row for row in findings.estimates if row.kind is EstimateKind.STRATA_COMBINED)
    assert "stratum lonely has too few hosts" in combined.warnings


def test_declared_weights_decide_the_combination() -> None:
    hosts = fleet(20, 20, 2)
    step = np.where(np.array(hosts.strata) == "pool-0", 10.0, 0.0)
    y = normal(hosts, 100, 0.1) + step * hosts.is_treated()
    weights = (("pool-0", 9.0), ("pool-1", 1.0))
    findings = analyze(hosts.observations({"throughput": y}), plan(units=hosts.units, stratum_weights=weights))
    combined = next(row for row in findings.estimates if row.kind is EstimateKind.STRATA_COMBINED)
    assert combined.difference == pytest.approx(9.0, abs=0.2)


@pytest.mark.parametrize(
    ("missing", "method"),
    [(3, "ANCOVA on pre-period, HC2 and randomisation test"), (12, "Welch t and randomisation test")],
)
def test_hosts_without_a_pre_period_are_kept(missing: int, method: str) -> None:
    hosts = fleet(15, 15)
    before = normal(hosts, 100, 20)
    observations = hosts.observations({"throughput": before + normal(hosts, 0, 2, 5, seed=3)}, {"throughput": before})
    gone = {f"h{place:04d}" for place in range(missing)}
    kept = observations[~((observations["kind"] == "baseline") & observations["host"].isin(gone))]
    row = analyze(kept, plan(units=hosts.units)).estimates[0]
    assert row.method == method
    assert row.n_control + row.n_treatment == 30
    assert any("pre-period" in warning for warning in row.warnings)


def test_host_measured_under_the_wrong_arm_counts_as_assigned_and_is_named() -> None:
    hosts = fleet(6, 6)
    observations = hosts.observations({"throughput": normal(hosts, 100, 1, 10)})
    observations.loc[observations["host"] == "h0008", "arm"] = "control"
    findings = analyze(observations, plan(units=hosts.units))
    assert findings.estimates[0].n_treatment == 6
    assert any("h0008" in warning for warning in findings.warnings)


def test_fleet_ratio_and_host_mean_are_different_questions() -> None:
    hosts = fleet(10, 10)
    instructions = np.tile([1.0, 9.0], 10)
    misses = (
        np.where(np.tile([True, False], 10), 0.5, 0.9) * (1 + 0.1 * hosts.is_treated()) * (1 + normal(hosts, 0, 0.01))
    )
    ratio = MetricPlan(
        name="misses", denominator="instructions", unit="ratio", role=Role.PRIMARY, better=Direction.DECREASE
    )
    observations = hosts.observations({"misses": misses, "instructions": instructions})
    by_host = analyze(observations, plan(metrics=(ratio,))).estimates[0]
    fleet_wide = analyze(observations, plan(metrics=(replace(ratio, estimand="fleet ratio"),))).estimates[0]
    assert by_host.metric == "misses / instructions"
    assert by_host.control_mean == pytest.approx((0.5 + 0.1) / 2, rel=0.02)
    assert fleet_wide.control_mean == pytest.approx(1.4 / 10, rel=0.02)
    assert fleet_wide.lift == pytest.approx(0.1, abs=0.03)


def test_tail_metric_is_the_host_p99() -> None:
    hosts = fleet(6, 6)
    tail = replace(THROUGHPUT, statistic="p99")
    observations = hosts.observations({"throughput": normal(hosts, 100, 1)})
    row = analyze(observations, plan(metrics=(tail,))).estimates[0]
    own = observations[observations["arm"] == "control"]["p99"].mean()
    assert row.control_mean == pytest.approx(own)
    with pytest.raises(BadObservations, match="lack p99"):
        analyze(observations.drop(columns="p99"), plan(metrics=(tail,)))


def test_early_look_is_wider_and_says_so() -> None:
    hosts = fleet(25, 25)
    observations = hosts.observations({"throughput": normal(hosts, 100, 5, 4)})
    last = analyze(observations, plan(information_fractions=(0.5, 1.0), look=1)).estimates[0]
    first = analyze(observations, plan(information_fractions=(0.5, 1.0), look=0)).estimates[0]
    fixed = analyze(observations, plan()).estimates[0]
    widths = [row.difference_interval.high - row.difference_interval.low for row in (fixed, last, first)]  # type: ignore[union-attr, operator]
    assert widths == sorted(widths)
    assert first.p_adjusted == pytest.approx(min(1.0, first.p_value * 0.05 / 0.0030507), rel=1e-3)  # type: ignore[operator]
    assert "look 1 of 2" in " ".join(first.warnings)


def test_unplanned_look_uses_an_interval_that_always_holds() -> None:
    hosts, small = fleet(25, 25), fleet(8, 8)
    observations = hosts.observations({"throughput": normal(hosts, 100, 5, 4)})
    row = analyze(observations, plan(unplanned_look=True)).estimates[0]
    fixed = analyze(observations, plan()).estimates[0]
    assert row.standard_error == fixed.standard_error
    ratio = (row.difference_interval.high - row.difference) / (fixed.difference_interval.high - fixed.difference)  # type: ignore[union-attr, operator]
    assert 1.4 < ratio < 1.8
    few = analyze(small.observations({"throughput": normal(small, 100, 5, 50)}), plan(unplanned_look=True))
    assert few.estimates[0].p_value is None
    assert few.decision == "inconclusive"


@pytest.mark.parametrize(
    ("growth", "verdict", "decision"),
    [(0.0, Verdict.PASS, "ship"), (40.0, Verdict.FAIL, "do_not_ship"), (10.0, Verdict.INCONCLUSIVE, "inconclusive")],
)
def test_guardrail_decides_with_the_primary(growth: float, verdict: Verdict, decision: str) -> None:
    hosts = fleet(20, 20)
    observations = hosts.observations(
        {"throughput": normal(hosts, 100, 5, 20), "memory": normal(hosts, 100, 5, growth, seed=5)}
    )
    findings = analyze(observations, plan(metrics=(THROUGHPUT, MEMORY), guardrails=(MARGIN,)))
    assert findings.guardrails[0].verdict is verdict
    assert findings.decision == decision


def test_servers_per_thousand_is_the_trade_in_one_number() -> None:
    hosts = fleet(100, 100)
    observations = hosts.observations(
        {"throughput": normal(hosts, 100, 1, 5.9), "memory": normal(hosts, 217, 1, 16, seed=5)}
    )
    trade = TradePlan(throughput="throughput", memory="memory", memory_bound_share=0.0)
    (found,) = analyze(observations, plan(metrics=(THROUGHPUT, MEMORY), trade=trade)).trades
    assert found.saved_per_1000 == pytest.approx(1000 * (1 - 1 / 1.059), abs=3)
    assert found.interval is not None
    assert found.interval.low < found.saved_per_1000 < found.interval.high  # type: ignore[operator]
    memory_bound = replace(trade, memory_bound_share=1.0)
    (found,) = analyze(observations, plan(metrics=(THROUGHPUT, MEMORY), trade=memory_bound)).trades
    assert found.saved_per_1000 == pytest.approx(-1000 * 16 / 217, abs=3)


def test_weak_exposure_is_said_and_its_interval_is_honest() -> None:
    hosts = fleet(20, 20)
    metrics = (THROUGHPUT, MetricPlan(name="backed", unit="GB", role=Role.EXPOSURE))
    observations = hosts.observations({"throughput": normal(hosts, 100, 5), "backed": normal(hosts, 50, 20, 1, seed=9)})
    row = next(row for row in analyze(observations, plan(metrics=metrics)).estimates if "Wald" in row.method)
    assert any("weak instrument" in warning for warning in row.warnings)
    assert row.difference_interval is not None
    assert not row.difference_interval.bounded


def test_no_exposure_at_all_has_no_complier_row() -> None:
    hosts = fleet(20, 20)
    metrics = (THROUGHPUT, MetricPlan(name="backed", unit="GB", role=Role.EXPOSURE))
    observations = hosts.observations({"throughput": normal(hosts, 100, 5), "backed": np.zeros(40)})
    assert method_of(analyze(observations, plan(metrics=metrics)), "Wald") == []


def test_arms_that_differed_before_are_alarming() -> None:
    hosts = fleet(30, 30)
    before = normal(hosts, 100, 1, effect=50)
    findings = analyze(hosts.observations({"throughput": before + 1}, {"throughput": before}), plan())
    assert check(findings, "pre-period A/A") is False
    assert findings.decision == "inconclusive"


def test_constant_metric_has_no_test() -> None:
    hosts = fleet(6, 6)
    findings = analyze(hosts.observations({"throughput": 100.0 + 5 * hosts.is_treated()}), plan())
    row = findings.estimates[0]
    assert (row.difference, row.p_value, row.difference_interval) == (5, None, None)
    assert "no spread between units" in findings.reason


def test_figures_are_plain_floats_ready_for_a_table() -> None:
    hosts = fleet(25, 25, 2)
    before = normal(hosts, 100, 20)
    findings = analyze(hosts.observations({"throughput": before + 1}, {"throughput": before}), plan(units=hosts.units))
    for row in findings.estimates:
        for value in (
            row.control_mean,
            row.difference,
            row.lift,
            row.standard_error,
            row.df,
            row.p_value,
            row.p_adjusted,
        ):
            assert value is None or type(value) is float


@pytest.mark.parametrize(
    ("units", "says"),
    [((AssignedUnit(host="h", stratum="a", arm="control"),) * 2, "twice")],
)
def test_impossible_units_are_refused(units: tuple[AssignedUnit, ...], says: str) -> None:
    hosts = fleet(4, 4)
    with pytest.raises(BadObservations, match=says):
        analyze(hosts.observations({"throughput": normal(hosts, 1, 1)}), plan(units=units))


def test_host_under_two_arms_without_a_plan_of_units_is_refused() -> None:
    hosts = fleet(4, 4)
    observations = hosts.observations({"throughput": normal(hosts, 1, 1)})
    doubled = observations.assign(period_id=observations["period_id"] + 50, arm="treatment")
    with pytest.raises(BadObservations, match="two arms"):
        analyze(type(observations)(np.vstack((observations, doubled)), columns=observations.columns), plan())


def test_calibration_finds_its_band_and_needs_hosts_without_a_treatment() -> None:
    hosts = fleet(20, 20, 2)
    before = np.exp(normal(hosts, 3, 0.5))
    observations = hosts.observations({"throughput": before}, {"throughput": before})
    (found,) = calibrate(observations, plan(units=hosts.units), runs=300)
    assert found.calibrated
    assert found.low < 0.05 < found.high
    assert (found.hosts, found.basis) == (20, CONTROLS)
    assert calibrate(observations, plan(units=hosts.units), runs=300) == (found,)
    few = fleet(7, 20, 1)
    with pytest.raises(NotEnoughData, match="under control"):
        calibrate(few.observations({"throughput": normal(few, 100, 1)}), plan(units=few.units))


def test_calibration_tries_both_halves_of_a_baseline_of_several_periods_on_all_hosts() -> None:
    hosts = fleet(20, 20)
    before = normal(hosts, 100, 10)
    rows = hosts.observations({"throughput": before}, {"throughput": before})
    again = rows[rows["kind"] == "baseline"].assign(position=1, mean=before + normal(hosts, 0, 1, seed=9))
    again = again.assign(period_id=again["period_id"] + 500_000)
    (found,) = calibrate(pd.concat((rows, again), ignore_index=True), plan(units=hosts.units), runs=300)
    assert (found.hosts, found.basis) == (40, SPLIT)
    assert found.calibrated


def test_equal_input_gives_equal_output() -> None:
    hosts = fleet(25, 25, 2)
    before = normal(hosts, 100, 20)
    observations = hosts.observations({"throughput": before + 1}, {"throughput": before})
    assert analyze(observations, plan(units=hosts.units)) == analyze(
        observations.sample(frac=1, random_state=2), plan(units=hosts.units)
    )


def test_hosts_of_a_stage_not_reached_or_still_measuring_are_not_lost() -> None:
    hosts = fleet(20, 20)
    later = {f"h{place:04d}" for place in (*range(10, 20), *range(30, 40))}
    units = tuple(replace(unit, stage=int(unit.host in later)) for unit in hosts.units)
    observations = hosts.observations({"throughput": normal(hosts, 100, 5)})
    here = observations[~observations["host"].isin(later)]
    halted = analyze(here, plan(units=units))
    assert next(r for r in halted.guardrails if r.plan.metric == "hosts_lost").verdict is Verdict.PASS
    assert "0 of 10" in next(row.detail for row in halted.checks if row.name.startswith("attrition"))
    slow = {"h0021", "h0022", "h0023"}
    periods = observations.drop_duplicates("period_id").assign(reason="", state="complete")
    periods.loc[periods["host"].isin(slow), "state"] = "running"
    early = plan(units=hosts.units, information_fractions=(0.5, 1.0), look=0)
    looked = analyze(observations[~observations["host"].isin(slow)], early, periods)
    assert "0 of 17" in next(row.detail for row in looked.checks if row.name.startswith("attrition"))
    assert {row.reason for row in looked.excluded} == {"the period is running"}


def test_the_primary_is_put_to_the_aa_test_on_the_hosts_that_were_not_treated() -> None:
    hosts = fleet(12, 12, strata=2)
    draw = np.random.default_rng(2)
    before = draw.normal(100, 10, 24)
    seen = hosts.observations({"throughput": before * draw.normal(1, 0.02, 24)}, {"throughput": before})
    checks = analyze(seen, plan(units=hosts.units), calibration_runs=400).checks
    check = next(one for one in checks if one.name == "A/A calibration (throughput)")
    assert check.passed is True
    assert "400 times" in check.detail
    few = fleet(6, 12)
    without = few.observations({"throughput": before[:18]})
    check = next(
        one
        for one in analyze(without, plan(units=few.units), calibration_runs=400).checks
        if one.name.startswith("A/A calibration")
    )
    assert check.passed is None
