"""What once led the decision astray, each with the right answer: missing values, few hosts, strata, signs, traps.

The numbers at the headings are those of the methods' list; how often each goes wrong is counted in the matrix.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis import analyze
from analysis.adjustment import ancova
from analysis.errors import AnalysisError, BadPlan, NotEnoughData
from analysis.plan import AnalysisPlan, Direction, GuardrailPlan, MetricPlan, Role, Rule, TradePlan
from analysis.results import (
    ArmDecision,
    Cause,
    Decision,
    Doubt,
    Estimate,
    EstimateKind,
    Findings,
    TradeSide,
    Units,
    Verdict,
)
from analysis.rows import compare_rows
from tests.analysis.fleet_data import Fleet, fleet, plan
from tests.analysis.matrix import holds, passes_as_better
from tests.analysis.simulation import band, host_levels
from tests.analysis.switchback_data import all_periods, shifted, switchback
from tests.analysis.switchback_data import plan as switchback_plan
from tests.analysis.worlds import Design, Estimand, Trouble, World

Floats = NDArray[np.float64]
MEMORY = MetricPlan(name="memory", unit="bytes", role=Role.SECONDARY, better=Direction.DECREASE)
RAIL = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.1)


def around(hosts: Fleet, sd: float, effect: float = 0.0, seed: int = 1, mean: float = 100.0) -> Floats:
    return np.random.default_rng(seed).normal(mean, sd, len(hosts.arms)) + effect * hosts.is_treated()


def of_arm(findings: Findings, arm: str = "treatment") -> ArmDecision:
    return next(own for own in findings.arms if own.arm == arm)


def rows_of(findings: Findings, kind: EstimateKind) -> list[Estimate]:
    return [row for row in findings.estimates if row.kind is kind]


def headline(findings: Findings, metric: str = "throughput") -> Estimate:
    return next(row for row in findings.estimates if row.headline and row.metric == metric)


def without(frame: pd.DataFrame, metric: str, hosts: set[str]) -> pd.DataFrame:
    """Drop one metric's measured values on some hosts."""
    gone = (frame["metric"] == metric) & (frame["kind"] == "measure") & frame["host"].isin(hosts)
    return frame[~gone].reset_index(drop=True)


def lowest(values: Floats, among: NDArray[np.bool_], count: int) -> set[str]:
    order = np.where(among, values, np.inf).argsort()[:count]
    return {f"h{place:04d}" for place in order.tolist()}


def assert_agrees(row: Estimate, alpha: float) -> None:
    """Interval and test say the same."""
    if row.p is None or abs(row.p - alpha) < 1e-9:
        return
    for interval in (row.difference_interval, row.lift_interval):
        if interval is not None:
            assert holds(interval, 0.0) == (row.p >= alpha), row


def no_more_than(hits: int, runs: int, rate: float = 0.05) -> bool:
    return hits <= stats.binom.ppf(0.999, runs, rate)


# --- 18. What is missing
@pytest.mark.parametrize("seed", range(8))
def test_the_slowest_treated_hosts_lack_the_primary_alone(seed: int) -> None:
    hosts = fleet(40, 40)
    y = around(hosts, 10, seed=seed)
    seen = hosts.observations({"throughput": y, "cpu": around(hosts, 1, seed=seed + 100)})
    findings = analyze(
        without(seen, "throughput", lowest(y, hosts.is_treated(), 16)), plan(units=hosts.units, ratio=(1, 1))
    )
    own = of_arm(findings)
    assert not findings.decision.is_favourable
    assert [(m.metric, m.arm, m.units, m.lost, m.due) for m in own.missing if not m.stratum and m.lost] == [
        ("throughput", "treatment", Units.HOSTS, 16, 40)
    ]
    (bound,) = rows_of(findings, EstimateKind.WORST_CASE)
    assert bound.difference_interval is not None
    assert holds(bound.difference_interval, 0.0)


@pytest.mark.parametrize("seed", range(8))
def test_the_control_loses_its_seven_best_of_twelve(seed: int) -> None:
    hosts = fleet(12, 12)
    y = around(hosts, 10, seed=seed)
    gone = lowest(-y, ~hosts.is_treated(), 7)
    seen = hosts.observations({"throughput": y, "cpu": around(hosts, 1)})
    findings = analyze(seen[~seen["host"].isin(gone)], plan(units=hosts.units))
    assert not findings.decision.is_favourable
    assert ("control", 7, 12) in {(m.arm, m.lost, m.due) for m in of_arm(findings).missing}


@pytest.mark.parametrize("estimand", ["mean over hosts", "fleet ratio"])
def test_a_ratio_without_a_denominator_is_missing(estimand: str) -> None:
    hosts = fleet(20, 20)
    ratio = MetricPlan(
        name="done", denominator="cpu", unit="per second", role=Role.PRIMARY, better=Direction.INCREASE,
        estimand=estimand,
    )  # fmt: skip
    for seed in range(5):
        cpu = around(hosts, 1, seed=seed)
        done = cpu * around(hosts, 10, seed=seed + 50)
        bad = lowest(done / cpu, hosts.is_treated(), 8)
        idle = np.where([unit.host in bad for unit in hosts.units], 0.0, cpu)
        findings = analyze(hosts.observations({"done": done, "cpu": idle}), plan(units=hosts.units, metrics=(ratio,)))
        assert not findings.decision.is_favourable
        assert ("treatment", 8, 20) in {(m.arm, m.lost, m.due) for m in of_arm(findings).missing}


@pytest.mark.parametrize("hosts", [1, 3, 20])
def test_treated_periods_that_were_killed_until_one_did_well(hosts: int) -> None:
    world = World(design=Design.SWITCHBACK, hosts=(hosts, 12), trouble=Trouble.DYING)
    for seed in range(5):
        planted = world.draw(seed)
        findings = analyze(planted.observations, planted.plan, planted.periods)
        assert not findings.decision.is_favourable
        lost = {m.arm: m for m in of_arm(findings).missing if m.units is Units.PERIODS and not m.stratum}
        assert lost["treatment"].lost > 0
        assert "control" not in lost or lost["control"].lost == 0


def test_a_parallel_hosts_attempts_that_died_count_as_missing_too() -> None:
    world = World(hosts=(20, 20), trouble=Trouble.DYING, before=True)
    for seed in range(5):
        planted = world.draw(seed)
        findings = analyze(planted.observations, planted.plan, planted.periods)
        assert not findings.decision.is_favourable
        assert any(m.arm == "treatment" and m.lost > 0 for m in of_arm(findings).missing)


def test_a_guardrail_does_not_pass_on_what_its_worst_hosts_did_not_report() -> None:
    hosts = fleet(40, 40)
    memory = around(hosts, 10, effect=12, seed=4)
    seen = hosts.observations({"throughput": around(hosts, 5, 20), "memory": memory})
    hidden = without(seen, "memory", lowest(-memory, hosts.is_treated(), 16))
    findings = analyze(hidden, plan(units=hosts.units, guardrails=(RAIL,)))
    rail = next(rail for rail in findings.guardrails if rail.plan.metric == "memory")
    assert rail.verdict is not Verdict.PASS
    assert not findings.decision.is_favourable
    assert ("memory", "treatment", 16) in {(m.metric, m.arm, m.lost) for m in of_arm(findings).missing}


def test_the_stratum_that_lost_is_named() -> None:
    hosts = fleet(40, 40, 2)
    y = around(hosts, 10)
    here = hosts.is_treated() & (np.array(hosts.strata) == "pool-1")
    findings = analyze(
        without(hosts.observations({"throughput": y, "cpu": y}), "throughput", lowest(y, here, 12)),
        plan(units=hosts.units),
    )
    assert ("throughput", "treatment", "pool-1", 12, 20) in {
        (m.metric, m.arm, m.stratum, m.lost, m.due) for m in of_arm(findings).missing
    }


def test_a_great_effect_survives_a_little_missing_at_random_and_says_so() -> None:
    hosts = fleet(60, 60)
    seen = hosts.observations({"throughput": around(hosts, 5, 40), "cpu": around(hosts, 1)})
    findings = analyze(without(seen, "throughput", {"h0003", "h0100"}), plan(units=hosts.units))
    assert findings.decision is Decision.SHIP
    assert {(m.arm, m.lost) for m in of_arm(findings).missing if not m.stratum} == {("control", 1), ("treatment", 1)}


@pytest.mark.parametrize("rule", [Rule.SERVERS, Rule.BOTH])
def test_a_trade_does_not_save_servers_by_what_is_missing(rule: Rule) -> None:
    hosts = fleet(40, 40)
    own = plan(
        units=hosts.units, metrics=(*plan().metrics, MEMORY),
        trade=TradePlan(throughput="throughput", memory="memory", rule=rule),
    )  # fmt: skip
    for seed in range(4):
        y, memory = around(hosts, 3, 5 * (rule is Rule.BOTH), seed=seed), around(hosts, 20, 10, seed=seed + 99)
        seen = hosts.observations({"throughput": y, "memory": memory, "cpu": y})
        hidden = without(seen, "memory", lowest(-memory, hosts.is_treated(), 16))
        assert not analyze(hidden, own).decision.is_favourable


@pytest.mark.parametrize("gone", ["treatment", "control"])
def test_an_arm_that_reports_nothing_of_the_primary_decides_nothing(gone: str) -> None:
    hosts = fleet(8, 8, 2)
    seen = hosts.observations({"throughput": around(hosts, 5, 20), "cpu": around(hosts, 1)})
    lacking = seen[~((seen["arm"] == gone) & (seen["metric"] == "throughput"))]
    findings = analyze(lacking, plan(units=hosts.units))
    assert findings.decision is Decision.INCONCLUSIVE
    assert (gone, 8, 8) in {(m.arm, m.lost, m.due) for m in of_arm(findings).missing}


def test_a_stratum_whose_treated_hosts_are_all_lost_is_not_shipped_to() -> None:
    hosts = fleet(30, 30, 3)
    seen = hosts.observations({"throughput": around(hosts, 5, 20), "cpu": around(hosts, 1)})
    lost = hosts.is_treated() & (np.array(hosts.strata) == "pool-2")
    names = {f"h{place:04d}" for place in np.flatnonzero(lost).tolist()}
    findings = analyze(without(seen, "throughput", names), plan(units=hosts.units))
    own = of_arm(findings)
    assert not findings.decision.is_favourable or (own.scope.strata and "pool-2" not in own.scope.strata)


# --- 19. Degrees of freedom at any size
@pytest.mark.parametrize("columns", [1, 3])
def test_a_canary_of_five_beside_396_keeps_its_error_rate(columns: int) -> None:
    draw = np.random.default_rng(columns)
    treated = np.arange(401) >= 396
    runs, alarms, passes = 1500, 0, 0
    for _ in range(runs):
        before = draw.normal(0, 1, (401, columns))
        y = 20 + before.sum(axis=1) + draw.normal(0, 1, 401)
        p = ancova(y, treated, before).p_value()
        alarms += p is not None and p < 0.05
        bounds = ancova(y * (1 + 0.1 * treated), treated, before).lift_interval(0.9)
        passes += bounds is not None and bounds.high is not None and bounds.high < 0.1
    assert no_more_than(alarms, runs), alarms / runs
    assert no_more_than(passes, runs), passes / runs


# --- 20. Strata
@pytest.mark.slow
def test_ten_strata_of_two_and_two_do_not_disagree_by_chance() -> None:
    runs, alarms, tested, uncovered, bounded = 120, 0, 0, 0, 0
    hosts = fleet(20, 20, 10)
    for seed in range(runs):
        findings = analyze(hosts.observations({"throughput": around(hosts, 10, seed=seed)}), plan(units=hosts.units))
        check = next((one for one in findings.checks if one.name.startswith("heterogeneity")), None)
        if check is not None and check.p_value is not None:
            tested += 1
            alarms += check.passed is not True
        for row in rows_of(findings, EstimateKind.RANDOM_EFFECTS):
            if row.difference_interval is not None:
                bounded += 1
                uncovered += not holds(row.difference_interval, 0.0)
        assert not of_arm(findings).scope.harmed
    assert tested == runs
    assert no_more_than(alarms, tested), alarms / tested
    assert bounded
    assert no_more_than(uncovered, bounded, 0.06), uncovered / bounded


def test_a_harmed_pool_is_named_and_the_rest_may_ship() -> None:
    hosts = fleet(80, 80, 2)
    lift = np.where(np.array(hosts.strata) == "pool-1", -0.15, 0.25)
    y = around(hosts, 5) * (1 + lift * hosts.is_treated())
    findings = analyze(hosts.observations({"throughput": y}), plan(units=hosts.units))
    own = of_arm(findings)
    assert findings.decision is own.decision is Decision.SHIP_IN_STRATA
    assert own.cause in {Cause.BETTER, Cause.BETTER_IN_STRATA}
    assert (own.scope.strata, own.scope.without, own.scope.harmed) == (("pool-0",), ("pool-1",), ("pool-1",))
    assert "pool-1" in own.sentence


def test_strata_that_all_gain_ship_as_one() -> None:
    hosts = fleet(40, 40, 2)
    findings = analyze(hosts.observations({"throughput": around(hosts, 5, 20)}), plan(units=hosts.units))
    own = of_arm(findings)
    assert findings.decision is Decision.SHIP
    assert (own.scope.strata, own.scope.without, own.scope.harmed) == ((), (), ())


def test_a_claim_on_a_stratum_pays_for_its_look() -> None:
    hosts = fleet(60, 60, 2)
    sign = np.where(np.array(hosts.strata) == "pool-0", 1.0, -1.0)
    cells = [
        (np.array(hosts.strata) == pool) & (hosts.is_treated() == arm)
        for pool in ("pool-0", "pool-1")
        for arm in (0, 1)
    ]
    y = around(hosts, 10)
    for cell in cells:  # exactly so far apart in each pool, whatever was drawn
        y[cell] += 100 - y[cell].mean()
    seen = hosts.observations({"throughput": y + 7.5 * sign * hosts.is_treated()})
    assert analyze(seen, plan(units=hosts.units)).decision is Decision.SHIP_IN_STRATA
    for early in ({"information_fractions": (0.2, 0.4, 1.0), "look": 0}, {"unplanned_look": True}):
        assert not analyze(seen, plan(units=hosts.units, **early)).decision.is_favourable


@pytest.mark.parametrize(("hosts", "strata"), [((20, 24), 10), ((20, 12), 3)])
def test_a_switchback_does_not_hide_its_harmed_pool_in_the_mean(hosts: tuple[int, int], strata: int) -> None:
    world = World(design=Design.SWITCHBACK, hosts=hosts, strata=strata, trouble=Trouble.HARMED_STRATUM)
    for seed in range(3):
        planted = world.draw(seed)
        assert not passes_as_better(analyze(planted.observations, planted.plan, planted.periods), planted.benefit)


# --- 21. Ratios of the fleet
@pytest.mark.slow
def test_a_fleet_ratio_of_four_and_four_keeps_its_error_rate() -> None:
    world = World(hosts=(4, 4), skewed=True, estimand=Estimand.FLEET_RATIO)
    runs, ships, tested = 250, 0, 0
    for seed in range(runs):
        planted = world.draw(seed)
        findings = analyze(planted.observations, planted.plan)
        ships += passes_as_better(findings, frozenset()) or findings.decision is Decision.DO_NOT_SHIP
        tested += any(row.p_value is not None for row in rows_of(findings, EstimateKind.RANDOMISATION))
    assert no_more_than(ships, runs), ships / runs
    assert tested == runs


def test_a_fleet_ratio_uses_the_pre_period_or_says_that_it_does_not() -> None:
    planted = World(hosts=(30, 30), strata=3, before=True, estimand=Estimand.FLEET_RATIO).draw(1)
    rows = planted.observations
    seen = [analyze(frame, planted.plan) for frame in (rows, rows[rows["kind"] == "measure"])]
    one, other = (rows_of(findings, EstimateKind.HEADLINE)[0] for findings in seen)
    assert one.standard_error != other.standard_error or any("pre-period" in said for said in one.warnings)


def test_a_randomisation_test_that_could_not_be_made_is_no_consent() -> None:
    hosts = fleet(6, 6)
    findings = analyze(
        hosts.observations({"throughput": around(hosts, 1, 20)}), plan(units=hosts.units, method="rerandomise")
    )
    assert not findings.decision.is_favourable


# --- 22. Interval, p and look agree
def three_arms(seed: int, effects: tuple[float, float], size: int = 12) -> tuple[pd.DataFrame, AnalysisPlan]:
    arms = ("4k",) * size + ("2m",) * size + ("1g",) * size
    hosts = Fleet(arms=arms, strata=("all",) * (3 * size))
    draw = np.random.default_rng(seed)
    y = draw.normal(100, 5, 3 * size) + effects[0] * hosts.is_treated("2m") + effects[1] * hosts.is_treated("1g")
    memory = draw.normal(50, 2, 3 * size)
    trade = TradePlan(throughput="throughput", memory="memory", rule=Rule.PRIMARY)
    own = plan(
        control="4k", arms=("4k", "2m", "1g"), units=hosts.units, metrics=(*plan().metrics, MEMORY), trade=trade,
    )  # fmt: skip
    return hosts.observations({"throughput": y, "memory": memory}), own


def test_interval_and_p_agree_in_every_row_of_three_arms() -> None:
    for seed in range(15):
        seen, own = three_arms(seed, (4.5, 5.5))
        findings = analyze(seen, own)
        tested = [row for row in findings.estimates if row.p is not None and row.difference_interval is not None]
        assert {row.treatment for row in tested} >= {"2m", "1g"}
        for row in findings.estimates:
            assert_agrees(row, findings.alpha)


def test_interval_and_p_agree_at_every_look() -> None:
    hosts = fleet(25, 25)
    for look in range(3):
        for seed in range(6):
            findings = analyze(
                hosts.observations({"throughput": around(hosts, 10, 7, seed=seed)}),
                plan(units=hosts.units, information_fractions=(0.3, 0.6, 1.0), look=look),
            )
            for row in findings.estimates:
                assert_agrees(row, findings.alpha)


def test_the_trade_pays_for_its_look() -> None:
    hosts = fleet(40, 40)
    seen = hosts.observations({"throughput": around(hosts, 5, 6), "memory": around(hosts, 5, 1, seed=7)})
    trade = TradePlan(throughput="throughput", memory="memory")
    own = plan(units=hosts.units, metrics=(*plan().metrics, MEMORY), trade=trade)
    widths = []
    for looking in (own, replace(own, information_fractions=(0.5, 1.0), look=0), replace(own, unplanned_look=True)):
        (found,) = analyze(seen, looking).trades
        assert found.interval is not None
        assert found.interval.low is not None
        assert found.interval.high is not None
        widths.append(found.interval.high - found.interval.low)
    assert widths[0] < min(widths[1:])


def test_hodges_lehmann_with_ties_claims_no_more_than_its_test() -> None:
    hosts = fleet(9, 9)
    told = 0
    for seed in range(40):
        y = np.round(np.random.default_rng(seed).normal(5, 1.2, 18)) + 2 * hosts.is_treated() * (seed % 2)
        findings = analyze(hosts.observations({"throughput": y}), plan(units=hosts.units))
        for row in rows_of(findings, EstimateKind.HODGES_LEHMANN):
            told += 1
            assert_agrees(row, findings.alpha)
    assert told


# --- 23. Words follow signs
def test_from_minus_ten_to_minus_five_it_rose_and_no_relative_change_is_shown() -> None:
    hosts = fleet(20, 20)
    findings = analyze(hosts.observations({"throughput": around(hosts, 1, 5, mean=-10)}), plan(units=hosts.units))
    row = headline(findings)
    assert row.difference == pytest.approx(5, abs=1)
    assert (row.lift, row.lift_interval) == (None, None)
    assert findings.decision is Decision.SHIP
    assert " rose" in of_arm(findings).sentence
    assert " fell" not in of_arm(findings).sentence


def test_a_mean_that_may_be_zero_has_no_relative_change() -> None:
    hosts = fleet(20, 20)
    row = headline(analyze(hosts.observations({"throughput": around(hosts, 5, 2, mean=0.3)}), plan(units=hosts.units)))
    assert (row.lift, row.lift_interval) == (None, None)
    assert row.difference_interval is not None


# --- 25. Carry-over
def lagging(direct: float, left: float, noise: float = 1.0) -> Callable[[str, int, int, np.random.Generator], float]:
    """A value that keeps a part of what the arm before did; called in the order of the periods."""
    before = {"arm": ""}

    def value(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        own = 100.0 + direct * (arm == "always") + left * (before["arm"] == "always") + draw.normal(0, noise)
        before["arm"] = arm
        return own

    return value


def test_carry_over_is_an_estimate_with_an_interval() -> None:
    seen = switchback({"latency": lagging(-20, -8)}, blocks=24)
    findings = analyze(seen, switchback_plan(), all_periods(seen))
    (row,) = [row for row in rows_of(findings, EstimateKind.CARRY_OVER) if row.metric == "latency"]
    assert row.difference == pytest.approx(-8, abs=2)
    assert row.difference_interval is not None
    assert holds(row.difference_interval, -8.0)
    assert not findings.decision.is_favourable


def test_little_data_do_not_say_that_there_is_no_carry_over() -> None:
    seen = switchback({"latency": shifted(-20)}, blocks=6)
    findings = analyze(seen, switchback_plan(), all_periods(seen))
    (check,) = [one for one in findings.checks if one.name.startswith("carry-over")]
    rows = [row for row in rows_of(findings, EstimateKind.CARRY_OVER) if row.difference_interval is not None]
    assert rows or check.passed is None


@pytest.mark.parametrize("hosts", [("host-1",), tuple("abcdefghij")])
def test_a_guardrail_allows_for_harm_that_comes_a_period_late(hosts: tuple[str, ...]) -> None:
    seen = switchback({"latency": shifted(-20), "memory": lagging(0, 30)}, blocks=16, hosts=hosts)
    findings = analyze(seen, switchback_plan(guardrails=(RAIL,)), all_periods(seen))
    rail = next(rail for rail in findings.guardrails if rail.plan.metric == "memory")
    assert rail.verdict is not Verdict.PASS
    assert not findings.decision.is_favourable


# --- 26. Several treatments
def test_all_pairs_of_treatments_are_compared_and_the_better_one_is_preferred() -> None:
    seen, own = three_arms(1, (10.0, 25.0))
    findings = analyze(seen, own)
    (pair,) = [row for row in rows_of(findings, EstimateKind.PAIRWISE) if row.metric == "throughput"]
    assert {pair.treatment, pair.control} == {"2m", "1g"}
    assert abs(pair.difference or 0.0) == pytest.approx(15, abs=5)
    assert findings.preference is not None
    assert (findings.preference.arm, findings.preference.over) == ("1g", ("2m",))


def test_treatments_that_are_alike_are_not_told_apart() -> None:
    seen, own = three_arms(2, (20.0, 20.0))
    findings = analyze(seen, own)
    assert findings.preference is not None
    assert findings.preference.arm is None
    assert set(findings.preference.over) == {"2m", "1g"}
    assert [of_arm(findings, arm).decision for arm in ("2m", "1g")] == [Decision.SHIP] * 2


def test_an_arm_that_a_guardrail_stopped_is_not_preferred() -> None:
    seen, own = three_arms(1, (10.0, 25.0))
    grown = (seen["metric"] == "memory") & (seen["arm"] == "1g")
    seen.loc[grown, "mean"] *= 1.5
    findings = analyze(seen, replace(own, guardrails=(RAIL,)))
    assert of_arm(findings, "1g").decision is Decision.DO_NOT_SHIP
    assert findings.preference is None or findings.preference.arm != "1g"


@pytest.mark.slow
def test_three_alike_arms_raise_no_more_alarms_than_one_test_would() -> None:
    runs, alarms, apart = 150, 0, 0
    for seed in range(runs):
        seen, own = three_arms(seed, (0.0, 0.0), size=10)
        findings = analyze(seen, own)
        rows = rows_of(findings, EstimateKind.HEADLINE) + rows_of(findings, EstimateKind.PAIRWISE)
        primary = [row for row in rows if row.metric == "throughput"]
        alarms += any(row.p is not None and row.p < findings.alpha for row in primary)
        apart += findings.preference is not None and findings.preference.arm is not None
    assert no_more_than(alarms, runs), alarms / runs
    assert no_more_than(apart, runs), apart / runs


# --- 27. One host is not a fleet
@pytest.mark.parametrize(
    ("hosts", "decision"),
    [
        (("host-1",), Decision.BETTER_HERE),
        (("a", "b", "c"), Decision.BETTER_HERE),
        (tuple("abcdefghij"), Decision.SHIP),
    ],
)
def test_few_hosts_are_better_here_and_many_ship(hosts: tuple[str, ...], decision: Decision) -> None:
    seen = switchback({"latency": shifted(-20)}, hosts=hosts)
    findings = analyze(seen, switchback_plan(), all_periods(seen))
    assert findings.decision is decision
    if decision is Decision.BETTER_HERE:
        assert of_arm(findings, "always").scope.host_names == hosts
    assert "ship" not in of_arm(findings, "always").sentence or decision is Decision.SHIP


def test_one_host_that_is_worse_is_not_shipped() -> None:
    assert analyze(switchback({"latency": shifted(20)}), switchback_plan()).decision is Decision.DO_NOT_SHIP


# --- 28. The estimator that speaks is calibrated
@pytest.mark.slow
@pytest.mark.parametrize("estimand", [Estimand.MEAN, Estimand.FLEET_RATIO])
def test_calibration_runs_the_estimator_of_the_headline(estimand: Estimand) -> None:
    planted = World(hosts=(12, 12), skewed=True, before=True, estimand=estimand).draw(5)
    findings = analyze(planted.observations, planted.plan, calibration_runs=400)
    (check,) = [one for one in findings.checks if one.name.startswith("A/A calibration")]
    assert check.passed is True


# --- Decision and trade speak with one voice
def traded(gain: float, growth: float, rule: Rule = Rule.BOTH, noise: float = 5.0) -> Findings:
    hosts = fleet(60, 60)
    seen = hosts.observations({"throughput": around(hosts, 5, gain), "memory": around(hosts, noise, growth, seed=7)})
    trade = TradePlan(throughput="throughput", memory="memory", rule=rule)
    return analyze(seen, plan(units=hosts.units, metrics=(*plan().metrics, MEMORY), trade=trade))


def test_a_gain_whose_trade_does_not_exclude_a_cost_is_no_plain_ship() -> None:
    findings = traded(5.8, 5, noise=25)
    assert findings.trades[0].side is TradeSide.OPEN
    assert findings.decision is Decision.INCONCLUSIVE
    assert of_arm(findings).cause is Cause.COST_NOT_EXCLUDED


def test_a_gain_that_costs_servers_is_not_shipped_unless_the_primary_decides() -> None:
    findings = traded(6, 30)
    assert findings.trades[0].side is TradeSide.COSTS
    assert not findings.decision.is_favourable
    assert of_arm(findings).cause is Cause.COSTS_SERVERS
    assert traded(6, 30, Rule.PRIMARY).decision is Decision.SHIP


def test_servers_saved_decide_where_the_plan_says_so() -> None:
    findings = traded(0, -30, Rule.SERVERS)
    assert findings.trades[0].side is TradeSide.SAVES
    assert findings.decision is Decision.SHIP
    assert of_arm(findings).cause is Cause.SERVERS_SAVED
    assert traded(0, -30).decision is Decision.INCONCLUSIVE


def test_a_gain_that_saves_servers_ships() -> None:
    assert traded(10, -5).decision is Decision.SHIP


# --- Guardrails at corners
@pytest.mark.parametrize(
    ("treated", "control", "verdict"), [(0.0, 0.0, Verdict.PASS), (0.0, 1.0, Verdict.PASS), (1.0, 0.0, None)]
)
@pytest.mark.parametrize("design", Design)
def test_counts_that_are_all_zero_pass(treated: float, control: float, verdict: Verdict | None, design: Design) -> None:
    rail = GuardrailPlan(metric="stalls", worse=Direction.INCREASE, margin=0.1)
    if design is Design.PARALLEL:
        hosts = fleet(20, 20)
        counts = np.random.default_rng(3).poisson(3, 40)
        seen = hosts.observations(
            {"throughput": around(hosts, 5, 20), "stalls": counts * np.where(hosts.is_treated(), treated, control)}
        )
        findings = analyze(seen, plan(units=hosts.units, guardrails=(rail,)))
    else:

        def stalls(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
            return float(draw.poisson(3)) * (treated if arm == "always" else control)

        seen = switchback({"latency": shifted(-20), "stalls": stalls}, blocks=24)
        findings = analyze(seen, switchback_plan(guardrails=(rail,)), all_periods(seen))
    own = next(one for one in findings.guardrails if one.plan.metric == "stalls")
    if verdict is None:
        assert own.verdict is not Verdict.PASS
    else:
        assert own.verdict is verdict
    assert findings.decision.is_favourable == (verdict is Verdict.PASS)


def test_zeros_of_too_few_hosts_pass_nothing() -> None:
    hosts = fleet(3, 3)
    rail = GuardrailPlan(metric="stalls", worse=Direction.INCREASE, margin=0.1)
    seen = hosts.observations({"throughput": around(hosts, 5, 20), "stalls": np.zeros(6)})
    findings = analyze(seen, plan(units=hosts.units, guardrails=(rail,)))
    assert next(one for one in findings.guardrails if one.plan.metric == "stalls").verdict is Verdict.INCONCLUSIVE


def test_one_lost_host_of_sixty_is_weighed_and_is_no_veto() -> None:
    hosts = fleet(60, 60)
    seen = hosts.observations({"throughput": around(hosts, 5, 20)})
    findings = analyze(seen[seen["host"] != "h0077"], plan(units=hosts.units))
    assert findings.decision is Decision.SHIP
    assert ("treatment", 1, 60) in {(m.arm, m.lost, m.due) for m in of_arm(findings).missing}


def test_losing_many_hosts_is_still_harm() -> None:
    hosts = fleet(60, 60)
    seen = hosts.observations({"throughput": around(hosts, 5, 20)})
    gone = {f"h{place:04d}" for place in range(70, 90)}
    assert analyze(seen[~seen["host"].isin(gone)], plan(units=hosts.units)).decision is Decision.DO_NOT_SHIP


def test_a_built_in_guardrail_alone_is_not_every_guardrail() -> None:
    hosts = fleet(20, 20)
    findings = analyze(hosts.observations({"throughput": around(hosts, 5, 20)}), plan(units=hosts.units))
    own = of_arm(findings)
    assert all(rail.built_in for rail in findings.guardrails)
    assert Doubt.NO_GUARDRAIL in {one.doubt for one in own.overturn}
    assert "every guardrail" not in own.sentence
    railed = analyze(
        hosts.observations({"throughput": around(hosts, 5, 20), "memory": around(hosts, 3, seed=3)}),
        plan(units=hosts.units, guardrails=(RAIL,)),
    )
    assert Doubt.NO_GUARDRAIL not in {one.doubt for one in of_arm(railed).overturn}


def test_hosts_under_another_arm_than_assigned_show_in_the_checks() -> None:
    hosts = fleet(60, 60)
    seen = hosts.observations({"throughput": around(hosts, 5, 20)})
    moved = {f"h{place:04d}" for place in range(60, 95)}
    findings = analyze(
        seen.assign(arm=seen["arm"].where(~seen["host"].isin(moved), "control")), plan(units=hosts.units)
    )
    assert any(check.passed is False for check in findings.checks)
    assert not findings.decision.is_favourable
    one = analyze(seen.assign(arm=seen["arm"].where(seen["host"] != "h0077", "control")), plan(units=hosts.units))
    assert one.checks != analyze(seen, plan(units=hosts.units)).checks


# --- The notebook's traps
def test_a_switchbacks_p99_is_the_p99() -> None:
    seen = switchback({"latency": shifted(-20)}, blocks=8)
    seen["p99"] = seen["mean"] * np.where(seen["arm"] == "always", 3.0, 1.0)  # worse where the mean is better
    tail = replace(switchback_plan().metrics[0], statistic="p99")
    findings = analyze(seen, switchback_plan(metrics=(tail,)))
    row = headline(findings, "latency")
    assert row.treatment_mean == pytest.approx(seen.loc[seen["arm"] == "always", "p99"].mean())
    assert findings.decision is Decision.DO_NOT_SHIP
    with pytest.raises(AnalysisError, match="p99"):
        analyze(seen.drop(columns="p99"), switchback_plan(metrics=(tail,)))


def test_a_statistic_that_there_is_not_is_an_error_in_both_designs() -> None:
    hosts = fleet(6, 6)
    wrong = replace(plan().metrics[0], statistic="p98")
    with pytest.raises(AnalysisError, match="p98"):
        analyze(hosts.observations({"throughput": around(hosts, 5)}), plan(metrics=(wrong,)))
    late = replace(switchback_plan().metrics[0], statistic="p98")
    with pytest.raises(AnalysisError, match="p98"):
        analyze(switchback({"latency": shifted(0)}), switchback_plan(metrics=(late,)))


@pytest.mark.parametrize("estimand", ["fleet ratios", "Fleet ratio", "mean", ""])
def test_a_misspelt_estimand_is_refused(estimand: str) -> None:
    hosts = fleet(6, 6)
    wrong = replace(plan().metrics[0], estimand=estimand)
    with pytest.raises(BadPlan, match="estimand"):
        analyze(hosts.observations({"throughput": around(hosts, 5)}), plan(metrics=(wrong,)))


@pytest.mark.parametrize("order", ["ABBA", "abab", "pair"])
def test_a_misspelt_order_is_refused(order: str) -> None:
    with pytest.raises(BadPlan, match="order"):
        analyze(switchback({"latency": shifted(0)}), switchback_plan(order=order))


def test_a_fleet_ratio_without_a_denominator_is_refused() -> None:
    hosts = fleet(6, 6)
    wrong = replace(plan().metrics[0], estimand="fleet ratio")
    with pytest.raises(BadPlan):
        analyze(hosts.observations({"throughput": around(hosts, 5)}), plan(metrics=(wrong,)))


def test_rows_of_two_and_two_hosts_make_no_claim() -> None:
    numbers = np.repeat(np.arange(4), 50)
    samples = np.random.default_rng(1).normal(np.where(numbers < 2, 100, 200)[:, np.newaxis], 1, (200, 1))
    arms = {0: "control", 1: "control", 2: "treatment", 3: "treatment"}
    with pytest.raises(NotEnoughData, match="2 and 2 hosts"):
        compare_rows(numbers, samples, plan().metrics, arms, control="control", treatment="treatment")


@pytest.mark.parametrize("named", [True, False])
def test_hosts_may_be_whole_numbers(named: bool) -> None:
    hosts = fleet(12, 12, 2)
    seen = hosts.observations({"throughput": around(hosts, 5, 20)}, {"throughput": around(hosts, 5, seed=3)})
    numbered = seen.assign(host=seen["host"].str[1:].astype(int))
    units = tuple(replace(unit, host=str(int(unit.host[1:]))) for unit in hosts.units) if named else ()
    findings = analyze(numbered, plan(units=units))
    assert headline(findings).n_control == headline(findings).n_treatment == 12
    assert findings.decision is Decision.SHIP


@pytest.mark.parametrize("design", Design)
def test_categories_are_as_good_as_words(design: Design) -> None:
    planted = World(design=design, hosts=(8, 8), strata=2, before=True, effect=0.4).draw(3)
    words = ["host", "arm", "kind", "metric", "stratum"]
    as_categories = planted.observations.astype(dict.fromkeys(words, "category"))
    # categories that no row has: what a filter leaves behind
    as_categories["metric"] = as_categories["metric"].cat.add_categories(["other"])
    as_categories["arm"] = as_categories["arm"].cat.add_categories(["elsewhere"])
    expected = analyze(planted.observations, planted.plan, planted.periods)
    assert analyze(as_categories, planted.plan, planted.periods) == expected


def test_a_a_with_skewed_hosts_ships_no_more_than_it_may() -> None:
    hosts = fleet(10, 10)
    runs, ships = 60, 0
    for seed in range(runs):
        y = 100 * host_levels(np.random.default_rng(seed), 20, 1.0, skewed=True)
        ships += analyze(hosts.observations({"throughput": y}), plan(units=hosts.units)).decision.is_favourable
    assert ships / runs <= band(runs, 0.05)[1]
