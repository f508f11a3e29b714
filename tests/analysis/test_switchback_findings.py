"""The whole path of a switchback: observations in, decision out, and what spoils it."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import analyze
from analysis.errors import BadObservations, BadPlan
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role, TradePlan
from analysis.results import Decision, Findings, Verdict
from tests.analysis.switchback_data import all_periods, plan, shifted, switchback

LATENCY = MetricPlan(name="latency", unit="seconds", role=Role.PRIMARY, better=Direction.DECREASE)


def assert_finite(findings: Findings) -> None:
    def walk(value: object) -> None:
        if isinstance(value, float):
            assert math.isfinite(value)
        elif isinstance(value, dict):
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                walk(inner)

    walk(asdict(findings))


def test_clear_improvement_ships_on_this_host_only() -> None:
    observations = switchback({"latency": shifted(-20)})
    findings = analyze(observations, plan())
    headline = findings.estimates[0]
    wide = observations.pivot(index="block", columns="arm", values="mean")
    expected = stats.ttest_rel(wide["always"], wide["never"])
    assert findings.decision == "better_here"
    assert "host-1 only" in findings.reason
    assert expected.pvalue < 2 / 2**8
    assert headline.p_value == 2 / 2**8  # the larger of both tests': eight blocks can't say more
    assert headline.df == 7
    interval = expected.confidence_interval(0.95)
    assert headline.difference_interval is not None
    assert headline.difference_interval.low <= interval.low + 1e-9
    assert headline.lift == pytest.approx(wide["always"].mean() / wide["never"].mean() - 1)
    assert headline.estimand == "mean over blocks"
    assert len(findings.contrasts) == 8
    flip = findings.estimates[1]
    assert not flip.headline
    assert flip.p_value == 2 / 2**8
    assert_finite(findings)


def test_clear_harm_is_not_shipped() -> None:
    findings = analyze(switchback({"latency": shifted(+20)}), plan())
    assert findings.decision == "do_not_ship"
    assert "worse" in findings.reason


def test_no_effect_is_inconclusive() -> None:
    findings = analyze(switchback({"latency": shifted(0)}), plan())
    assert findings.decision == "inconclusive"
    assert "no clear change" in findings.reason


def test_fewer_than_six_blocks_claim_nothing_however_large_the_effect() -> None:
    findings = analyze(switchback({"latency": shifted(-90, noise=0.01)}, blocks=5), plan())
    assert findings.decision == "inconclusive"
    assert "5 whole blocks of at least 6" in findings.reason
    headline = findings.estimates[0]
    assert headline.p_value is None
    assert headline.p_adjusted is None
    assert headline.difference_interval is not None


def test_one_block_gives_means_and_no_error() -> None:
    findings = analyze(switchback({"latency": shifted(-90)}, blocks=1), plan())
    (row,) = (row for row in findings.estimates if row.headline)
    assert row.difference == pytest.approx(-90, abs=5)
    assert row.standard_error is None
    assert findings.decision == "inconclusive"
    assert_finite(findings)


def test_several_treatments_are_each_compared_with_the_named_control_under_holm() -> None:
    steps = {"4k": 0.0, "2m": -10.0, "1g": -20.0}
    observations = switchback(
        {"latency": lambda arm, block, position, draw: 100 + steps[arm] + draw.normal(0, 2)},
        arms=("1g", "2m", "4k"),
        blocks=12,
    )
    findings = analyze(observations, plan(control="4k", arms=("1g", "4k", "2m")))
    rows = {row.treatment: row for row in findings.estimates if row.headline}
    assert set(rows) == {"1g", "2m"}
    for arm, row in rows.items():
        assert row.difference == pytest.approx(steps[arm], abs=2)
        assert row.p_adjusted is not None
        assert row.p_value is not None
        assert row.p_adjusted >= row.p_value
    assert findings.decision == "better_here"
    assert "1g:" in findings.reason


def test_linear_drift_cancels_exactly_in_abba() -> None:
    observations = switchback(
        {"latency": lambda arm, block, position, draw: 100 + 5.0 * position + (1 if arm == "always" else 0)},
        order="abba",
        blocks=12,
    )
    findings = analyze(observations, plan(order="abba"))
    row = findings.estimates[0]
    assert row.n_control == 6  # a coin was thrown for two blocks
    assert row.difference == pytest.approx(1, abs=1e-9)


def test_half_of_an_abba_pair_is_left_out_and_listed() -> None:
    findings = analyze(switchback({"latency": shifted(-5)}, order="abba", blocks=13), plan(order="abba"))
    assert findings.estimates[0].n_control == 6
    assert {row.block for row in findings.excluded} == {12}


def test_broken_block_counts_by_its_last_whole_attempt() -> None:
    first = switchback({"latency": shifted(-20)}, blocks=8)
    broken = first[(first["block"] == 3)].copy()
    repeat = broken.assign(attempt=1, period_id=broken["period_id"] + 100, position=broken["position"] + 100, mean=77.0)
    complete = pd.concat([first[~((first["block"] == 3) & (first["arm"] == "always"))], repeat])
    periods = all_periods(pd.concat([first, repeat]))
    spoilt = (periods["block"] == 3) & (periods["arm"] == "always") & (periods["attempt"] == 0)
    periods.loc[spoilt, ["state", "reason"]] = ["invalid", "drift"]
    findings = analyze(complete, plan(), periods)
    block = next(row for row in findings.contrasts if row.block == 3)
    assert (block.control_value, block.treatment_value) == (77.0, 77.0)
    assert sorted((row.arm, row.reason) for row in findings.excluded) == [
        ("always", "drift"),
        ("never", "its block was repeated"),
    ]


def test_block_that_was_never_whole_is_excluded() -> None:
    observations = switchback({"latency": shifted(-20)})
    lacking = observations[~((observations["block"] == 2) & (observations["arm"] == "never"))]
    findings = analyze(lacking, plan())
    assert findings.estimates[0].n_control == 7
    assert [(row.block, row.arm) for row in findings.excluded] == [(2, "always")]


def test_washout_and_baseline_are_not_measured() -> None:
    observations = switchback({"latency": shifted(-20)})
    spoiling = observations.assign(period_id=observations["period_id"] + 500, kind="washout", mean=1e9)
    with_washout = analyze(pd.concat([observations, spoiling]), plan())
    assert with_washout.estimates == analyze(observations, plan()).estimates


def test_missing_primary_is_inconclusive_and_named() -> None:
    findings = analyze(switchback({"other": shifted(1)}), plan())
    assert findings.decision == "inconclusive"
    assert "latency was not measured" in findings.reason
    assert any(warning.startswith("latency: unavailable") for warning in findings.warnings)


def test_no_observations_at_all_is_inconclusive() -> None:
    findings = analyze(switchback({"latency": shifted(1)}).iloc[:0], plan())
    assert findings.decision == "inconclusive"
    assert findings.estimates == ()


def test_values_that_are_not_finite_are_left_out_and_said() -> None:
    observations = switchback({"latency": shifted(-20)}, blocks=9)
    observations.loc[observations["period_id"] == 1, "mean"] = np.nan
    observations.loc[observations["period_id"] == 4, "mean"] = np.inf
    findings = analyze(observations, plan())
    assert findings.estimates[0].n_control == 7
    assert "latency: 2 values are not finite numbers and were left out" in findings.warnings
    assert_finite(findings)


def test_constant_values_have_no_test_and_no_nan() -> None:
    findings = analyze(switchback({"latency": lambda arm, *rest: 5.0 if arm == "always" else 10.0}), plan())
    row = findings.estimates[0]
    assert row.difference == -5
    assert row.p_value is None
    assert row.difference_interval is None
    assert findings.decision == "inconclusive"
    assert_finite(findings)


def test_ratio_metric_is_sum_over_sum() -> None:
    metric = MetricPlan(
        name="misses", denominator="instructions", unit="ratio", role=Role.PRIMARY, better=Direction.DECREASE
    )
    observations = switchback(
        {
            "misses": lambda arm, block, position, draw: 10.0 + block if arm == "never" else 5.0 + block,
            "instructions": lambda arm, block, position, draw: 1000.0,
        }
    )
    findings = analyze(observations, plan(metrics=(metric,)))
    row = findings.estimates[0]
    assert row.control_mean == pytest.approx(np.mean([(10 + block) / 1000 for block in range(8)]))


def test_few_hosts_speak_for_themselves_and_six_for_others() -> None:
    few = analyze(switchback({"latency": shifted(-20)}, hosts=("a", "b")), plan())
    many = analyze(switchback({"latency": shifted(-20)}, hosts=tuple("abcdefg")), plan())
    assert few.decision is Decision.BETTER_HERE
    assert few.arms[0].scope.host_names == ("a", "b")
    assert "on hosts a and b only" in few.reason
    assert few.estimates[0].n_control == 16
    assert many.estimates[0].n_control == 7
    assert many.estimates[0].df == 6
    assert many.decision is Decision.SHIP


def test_hosts_with_one_block_each_have_no_error() -> None:
    findings = analyze(switchback({"latency": shifted(-20)}, hosts=("a", "b"), blocks=1), plan())
    assert findings.estimates[0].standard_error is None
    assert findings.decision == "inconclusive"


@pytest.mark.parametrize(
    ("effect", "verdict", "decision"),
    [
        (0.0, Verdict.PASS, "better_here"),
        (30.0, Verdict.FAIL, "do_not_ship"),
        (9.9, Verdict.INCONCLUSIVE, "inconclusive"),
    ],
)
def test_guardrail_has_three_answers_and_the_decision_heeds_them(
    effect: float, verdict: Verdict, decision: str
) -> None:
    rail = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.1)
    findings = analyze(switchback({"latency": shifted(-20), "memory": shifted(effect)}), plan(guardrails=(rail,)))
    assert findings.guardrails[0].verdict is verdict
    assert findings.decision == decision


def test_guardrail_without_data_never_passes() -> None:
    rails = (
        GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.1),
        GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1),
    )
    findings = analyze(switchback({"latency": shifted(-20)}), plan(guardrails=rails))
    assert [rail.verdict for rail in findings.guardrails] == [Verdict.INCONCLUSIVE] * 2
    assert findings.decision == "inconclusive"


@pytest.mark.parametrize(("rate", "verdict"), [(0.0, Verdict.PASS), (0.1, Verdict.FAIL)])
def test_tripwire_on_a_counter_looks_at_the_total(rate: float, verdict: Verdict) -> None:
    metrics = (LATENCY, MetricPlan(name="oom_kills", unit="count per second", role=Role.GUARDRAIL, counter=True))
    rail = GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1)
    observations = switchback(
        {"latency": shifted(-20), "oom_kills": lambda arm, block, *rest: rate if block == 0 else 0.0}
    )
    findings = analyze(observations, plan(metrics=metrics, guardrails=(rail,)))
    assert findings.guardrails[0].verdict is verdict


def test_carry_over_puts_the_experiment_in_doubt() -> None:
    previous = {"arm": "never"}

    def sticky(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        value = 100.0 + (-20 if arm == "always" else 0) + (30 if previous["arm"] == "always" else 0) + draw.normal(0, 1)
        previous["arm"] = arm
        return value

    findings = analyze(switchback({"latency": sticky}, blocks=16), plan())
    check = findings.checks[0]
    assert check.passed is False
    assert findings.decision == "inconclusive"
    assert "carry-over" in findings.reason


def test_carry_over_is_silent_without_any() -> None:
    findings = analyze(switchback({"latency": shifted(-20)}, blocks=16), plan())
    assert findings.checks[0].passed is True


def test_observer_effect_is_a_check() -> None:
    metrics = (
        LATENCY,
        MetricPlan(name="agent_cpu_seconds", unit="seconds per second", role=Role.OBSERVER, counter=True),
    )
    for extra, change, passed in ((0.0, -20, True), (0.05, -20, False), (0.004, -20, True), (0.004, -2, False)):
        observations = switchback(
            {
                "latency": shifted(change),
                "agent_cpu_seconds": lambda arm, block, position, draw, extra=extra: (
                    0.01 + (extra if arm == "always" else 0) + draw.normal(0, 1e-4)
                ),
            }
        )
        findings = analyze(observations, plan(metrics=metrics))
        check = next(check for check in findings.checks if check.name.startswith("observer"))
        assert check.passed is passed
        assert findings.decision == ("better_here" if passed else "inconclusive")


def test_exposure_is_estimated_but_not_adjusted() -> None:
    metrics = (LATENCY, MetricPlan(name="backed", unit="bytes", role=Role.EXPOSURE))
    observations = switchback({"latency": shifted(-20), "backed": shifted(1e9, noise=1e6, base=0.0)})
    row = next(row for row in analyze(observations, plan(metrics=metrics)).estimates if row.metric == "backed")
    assert row.role is Role.EXPOSURE
    assert row.p_adjusted is None
    assert row.difference == pytest.approx(1e9, rel=0.01)


def test_equal_input_gives_equal_output() -> None:
    observations = switchback({"latency": shifted(-1)}, blocks=30)
    again = observations.sample(frac=1, random_state=3)
    assert analyze(observations, plan()) == analyze(again, plan())


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"control": "nobody"}, BadPlan, "control"),
        ({"arms": ("never",)}, BadPlan, "two or more"),
        ({"design": "crossover"}, BadPlan, "design"),
        ({"alpha": 0.0}, BadPlan, "alpha"),
        ({"metrics": (LATENCY, LATENCY)}, BadPlan, "primary"),
        ({"guardrails": (GuardrailPlan(metric="x", worse=Direction.INCREASE),)}, BadPlan, "limit"),
        ({"guardrails": (GuardrailPlan(metric="x", worse=Direction.INCREASE, margin=-1),)}, BadPlan, "share"),
        ({"information_fractions": (0.5, 0.5, 1.0)}, BadPlan, "looks"),
        ({"information_fractions": (0.5, 1.0), "look": 2}, BadPlan, "look 2"),
    ],
)
def test_impossible_plan_is_refused(change: dict[str, object], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        analyze(switchback({"latency": shifted(0)}), plan(**change))


def test_impossible_observations_are_refused() -> None:
    good = switchback({"latency": shifted(0)})
    with pytest.raises(BadObservations, match="lack mean"):
        analyze(good.drop(columns="mean"), plan())
    with pytest.raises(BadObservations, match="comes twice"):
        analyze(pd.concat([good, good.iloc[:1]]), plan())
    with pytest.raises(BadObservations, match="not in the plan"):
        analyze(good.assign(arm="madvise"), plan())
    with pytest.raises(BadObservations, match="numbers"):
        analyze(good.assign(mean="fast"), plan())
    with pytest.raises(BadObservations, match="periods lack"):
        analyze(good, plan(), good[["period_id"]])


def test_trade_is_weighed_in_a_switchback_too() -> None:
    trade = TradePlan(throughput="rate", memory="memory", memory_bound_share=0.0)
    metrics = (LATENCY, MetricPlan(name="rate", unit="", role=Role.SECONDARY))
    rail = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.5)
    observations = switchback({"latency": shifted(-20), "rate": shifted(25), "memory": shifted(5)})
    (found,) = analyze(observations, plan(metrics=metrics, guardrails=(rail,), trade=trade)).trades
    assert found.saved_per_1000 == pytest.approx(200, abs=10)
    lacking = plan(metrics=metrics, trade=trade)
    assert analyze(observations, lacking).trades == ()


def test_period_of_unknown_length_still_counts() -> None:
    observations = switchback({"latency": shifted(-20)})
    timed = analyze(observations, plan())
    observations.loc[observations["block"] == 3, "seconds"] = np.nan
    assert analyze(observations, plan()).estimates == timed.estimates
    assert analyze(observations.assign(seconds=0.0), plan()).estimates == timed.estimates
