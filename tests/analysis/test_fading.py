"""Effects that fade, grow and stay: what is decided, what is said, and how often a constant effect is suspected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import analyze
from analysis.halves import in_later_half
from analysis.plan import AnalysisPlan, Estimand, Rule, TradePlan
from analysis.results import HALVES, ArmDecision, Cause, Check, Decision, Doubt, Findings
from tests.analysis.fleet_data import fleet, plan
from tests.analysis.simulation import host_levels
from tests.analysis.switchback_data import all_periods, switchback
from tests.analysis.switchback_data import plan as switchback_plan

Course = Callable[[float], float]  # share of the measured time that is over -> the effect then, relative

CONSTANT: Course = lambda at: 0.10  # noqa: E731
NOVELTY: Course = lambda at: 0.10 if at < 0.5 else 0.0  # noqa: E731
TURNED: Course = lambda at: 0.14 if at < 0.5 else -0.05  # noqa: E731
DECLINING: Course = lambda at: 0.12 if at < 0.5 else 0.08  # noqa: E731
GROWING: Course = lambda at: 0.0 if at < 0.5 else 0.10  # noqa: E731


def of_hosts(
    sizes: tuple[int, int],
    periods: int,
    course: Course,
    seed: int = 1,
    *,
    load: Course = lambda at: 1.0,
    skewed: bool = False,
    staged: bool = False,
) -> tuple[pd.DataFrame, AnalysisPlan]:
    """Draw hosts whose periods resemble each other, over days that differ; `staged`: every other one joins late."""
    hosts, draw = fleet(*sizes), np.random.default_rng(seed)
    treated, count = hosts.is_treated(), sum(sizes)
    level = 100 * host_levels(draw, count, 1.0 if skewed else 0.2, skewed=skewed)
    joins = np.where(staged & (np.arange(count) % 2 == 1), periods // 3, 0)
    gains, wobble = draw.normal(1, 0.1, count), draw.normal(size=count)
    frames = []
    for period in range(periods):
        wobble = 0.6 * wobble + 0.8 * draw.normal(size=count)
        since = (period - joins) / (periods - joins)
        effect = np.array([course(at) for at in since]) * treated * gains
        of_day = load(period / periods) * np.exp(draw.normal(0, 0.05))
        rows = hosts.observations(
            {"throughput": level * of_day * (1 + 0.03 * wobble) * (1 + effect), "cpu": 10 + 0.1 * wobble},
            {"throughput": level * (1 + 0.03 * draw.normal(size=count)), "cpu": 10 + 0.0 * wobble}
            if not period
            else None,
        )
        rows = rows[(rows["kind"] == "baseline") | np.tile(since >= 0, len(rows) // count)]
        later = np.where(rows["kind"] == "measure", period, 0)
        frames.append(rows.assign(period_id=rows["period_id"] + 1000 * later, position=rows["position"] + later))
    return pd.concat(frames, ignore_index=True), plan(units=hosts.units)


def in_one_period(rows: pd.DataFrame, figure: str = "mean") -> pd.DataFrame:
    """The same measurements as one period a host, whose halves are known."""
    key = ["host", "metric"]
    measured = rows[rows["kind"] == "measure"].sort_values("position")
    halves = measured.groupby(key)[figure].agg(["first", "last"]).set_axis([kind.value for kind in HALVES], axis=1)
    mean = measured.groupby(key)["mean"].mean()
    one = measured.drop_duplicates(key).drop(columns="mean").join(mean, on=key).join(halves, on=key)
    return pd.concat([rows[rows["kind"] == "baseline"], one], ignore_index=True)


def of_long_periods(sizes: tuple[int, int], course: Course, seed: int = 1) -> tuple[pd.DataFrame, AnalysisPlan]:
    rows, own = of_hosts(sizes, 2, course, seed)
    return in_one_period(rows), own


def of_blocks(
    hosts: int, blocks: int, course: Course, seed: int = 1, *, order: str = "pairs", noise: float = 1.5
) -> tuple[pd.DataFrame, AnalysisPlan, pd.DataFrame]:
    """Draw a switchback whose latency falls by the course; every host drifts."""

    def value(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        gone = course(block / blocks) if arm == "always" else 0.0
        return (100 + 0.3 * position) * (1 - gone) + draw.normal(0, noise)

    names = [f"host-{place}" for place in range(hosts)]
    seen = switchback({"latency": value}, blocks=blocks, hosts=names, order=order, seed=seed)
    return seen, switchback_plan(order=order), all_periods(seen)


DESIGNS: dict[str, Callable[[Course, int], Findings]] = {
    "parallel": lambda course, seed: analyze(*of_hosts((20, 20), 14, course, seed)),
    "one period a host": lambda course, seed: analyze(*of_long_periods((40, 40), course, seed)),
    "staged": lambda course, seed: analyze(*of_hosts((30, 30), 12, course, seed, staged=True)),
    "switchback on one host": lambda course, seed: analyze(*of_blocks(1, 16, course, seed)),
    "switchback on three hosts": lambda course, seed: analyze(*of_blocks(3, 12, course, seed)),
    "switchback of a fleet": lambda course, seed: analyze(*of_blocks(10, 8, course, seed)),
    "abba": lambda course, seed: analyze(*of_blocks(1, 24, course, seed, order="abba")),
}


def the_check(findings: Findings) -> Check:
    (found,) = [check for check in findings.checks if check.name.startswith("fading")]
    return found


def doubts(arm: ArmDecision) -> set[Doubt]:
    return {one.doubt for one in arm.overturn}


@pytest.mark.parametrize("design", DESIGNS)
def test_an_effect_that_has_gone_by_the_end_is_not_shipped(design: str) -> None:
    findings = DESIGNS[design](NOVELTY, 1)
    (arm,) = findings.arms
    main = findings.estimates[0]
    assert main.p is not None and main.p < findings.alpha  # over the whole time it is clear
    assert (arm.decision, arm.cause, arm.about) == (Decision.INCONCLUSIVE, Cause.FADED, (main.metric,))
    assert "in the earlier half" in arm.sentence and "in the later" in arm.sentence
    earlier, later = (next(row for row in findings.estimates if row.kind is kind) for kind in HALVES)
    assert abs(earlier.lift or 0) == pytest.approx(0.10, abs=0.03)
    assert later.lift == pytest.approx(0, abs=0.03)
    assert the_check(findings).passed is False


@pytest.mark.parametrize("design", DESIGNS)
def test_an_effect_that_declined_and_is_still_clear_is_shipped_and_it_is_said(design: str) -> None:
    findings = DESIGNS[design](DECLINING, 2)
    (arm,) = findings.arms
    assert arm.decision.is_favourable
    assert Doubt.FADING in doubts(arm)
    assert "smaller in the later half" in arm.sentence
    assert the_check(findings).passed is True


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("course", [CONSTANT, GROWING], ids=["constant", "growing"])
def test_an_effect_that_stays_or_grows_is_shipped_without_a_word(course: Course, design: str) -> None:
    findings = DESIGNS[design](course, 3)
    (arm,) = findings.arms
    assert arm.decision.is_favourable
    assert Doubt.FADING not in doubts(arm)
    assert the_check(findings).passed is True


@pytest.mark.parametrize("design", DESIGNS)
def test_harm_that_has_gone_by_the_end_does_not_decide_either(design: str) -> None:
    (arm,) = DESIGNS[design](lambda at: -NOVELTY(at), 4).arms
    assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.FADED)


def test_a_benefit_that_turned_to_harm_is_not_shipped_on_the_average() -> None:
    (arm,) = analyze(*of_hosts((40, 40), 14, TURNED)).arms
    assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.FADED)


def test_a_trade_that_rests_on_what_faded_does_not_decide() -> None:
    rows, own = of_hosts((40, 40), 14, NOVELTY)
    memory = rows[rows["metric"] == "cpu"].assign(metric="memory")
    for rule in Rule:
        trade = TradePlan(throughput="throughput", memory="memory", rule=rule)
        with_memory = (*own.metrics, replace(own.metrics[0], name="memory", role="secondary", better="decrease"))
        (arm,) = analyze(pd.concat([rows, memory]), replace(own, metrics=with_memory, trade=trade)).arms
        assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.FADED)


@pytest.mark.parametrize("estimand", Estimand)
def test_a_ratio_that_fades_is_found_out_too(estimand: Estimand) -> None:
    rows, own = of_hosts((30, 30), 12, lambda at: 4 * NOVELTY(at))
    ratio = replace(own.metrics[0], denominator="cpu", estimand=estimand)
    (arm,) = analyze(rows, replace(own, metrics=(ratio,))).arms
    assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.FADED)


@pytest.mark.parametrize("load", [lambda at: 1 - 0.6 * at, lambda at: 1 + 2 * at], ids=["falls", "rises"])
def test_a_load_that_moves_does_not_make_a_constant_change_fade(load: Course) -> None:
    """Relative and in the unit: one of them moves with the load by itself."""
    (arm,) = analyze(*of_hosts((40, 40), 14, CONSTANT, load=load)).arms
    assert arm.decision is Decision.SHIP
    assert Doubt.FADING not in doubts(arm)
    rows, own = of_hosts((40, 40), 14, lambda at: 0.10 / load(at), load=load)
    (arm,) = analyze(rows, own).arms
    assert arm.decision is Decision.SHIP
    assert Doubt.FADING not in doubts(arm)


def test_one_period_a_host_or_few_hosts_say_that_nothing_could_be_tested() -> None:
    for seen in (of_hosts((20, 20), 1, CONSTANT), of_hosts((3, 20), 10, CONSTANT)):
        findings = analyze(*seen)
        assert the_check(findings).passed is None
        assert not [row for row in findings.estimates if row.kind in HALVES]


@pytest.mark.parametrize("course", [NOVELTY, CONSTANT], ids=["novelty", "constant"])
@pytest.mark.parametrize("denominator", [None, "cpu"])
def test_the_halves_of_one_period_are_judged_as_two_periods_are(course: Course, denominator: str | None) -> None:
    rows, own = of_hosts((20, 20), 2, course)
    own = replace(own, metrics=(replace(own.metrics[0], denominator=denominator),))
    apart, cut = analyze(rows, own), analyze(in_one_period(rows).sample(frac=1, random_state=1), own)
    assert [replace(row, warnings=()) for row in cut.estimates if row.kind in HALVES] == [
        replace(row, warnings=()) for row in apart.estimates if row.kind in HALVES
    ]
    assert the_check(cut).detail == the_check(apart).detail
    assert (the_check(cut).passed, the_check(cut).p_value) == (the_check(apart).passed, the_check(apart).p_value)
    assert cut.arms[0].cause is apart.arms[0].cause


def test_a_period_of_which_a_half_is_not_known_is_no_half_by_itself() -> None:
    cut, own = of_long_periods((20, 20), NOVELTY)
    cut.loc[cut["host"].isin(["h0000", "h0001", "h0030"]), HALVES[1].value] = np.nan
    check = the_check(analyze(cut, own))
    assert check.passed is False
    assert check.detail.endswith("3 hosts without both halves left out.")
    cut[HALVES[0].value] = np.nan
    assert the_check(analyze(cut, own)).passed is None


def test_the_halves_are_of_the_figure_that_the_effect_is_of() -> None:
    rows, own = of_hosts((20, 20), 2, NOVELTY)
    own = replace(own, metrics=(replace(own.metrics[0], statistic="p99"),))
    cut = in_one_period(rows, "p99")
    assert [row for row in analyze(cut, own).estimates if row.kind in HALVES] == [
        row for row in analyze(rows, own).estimates if row.kind in HALVES
    ]


def test_what_is_not_clear_over_the_whole_time_is_not_called_faded() -> None:
    findings = analyze(*of_hosts((20, 20), 14, lambda at: 0.1 if at < 0.5 else -0.1))
    assert findings.arms[0].cause is Cause.NOT_CLEAR
    assert (the_check(findings).passed, the_check(findings).p_value) == (None, None)
    assert [row.kind for row in findings.estimates if row.kind in HALVES] == list(HALVES)


def test_the_middle_one_of_an_odd_number_is_in_the_earlier_half() -> None:
    unit = np.array([1, 0, 0, 1, 0, 2])
    assert in_later_half(unit, np.array([5.0, 2.0, 1.0, 4.0, 3.0, 9.0])).tolist() == [
        True, False, False, False, True, False,
    ]  # fmt: skip
    assert in_later_half(np.empty(0, dtype=np.intp), np.empty(0)).size == 0


def test_values_of_one_moment_are_in_one_half() -> None:
    unit = np.array([0, 0, 1, 0, 1, 0])
    assert in_later_half(unit, np.array([7.0, 8.0, 3.0, 8.0, 3.0, 7.0])).tolist() == [
        False, True, False, True, False, False,
    ]  # fmt: skip


# ---------------------------------------------------------------------------- how often
STILL: dict[str, Callable[[int], Findings]] = {
    **{design: (lambda seed, of=of: of(CONSTANT, seed)) for design, of in DESIGNS.items()},
    "few hosts": lambda seed: analyze(*of_hosts((5, 5), 10, lambda at: 0.5, seed)),
    "few controls": lambda seed: analyze(*of_hosts((4, 16), 20, lambda at: 0.5, seed)),
    "skewed hosts": lambda seed: analyze(*of_hosts((20, 20), 6, lambda at: 1.2, seed, skewed=True)),
    "two periods": lambda seed: analyze(*of_hosts((20, 20), 2, CONSTANT, seed)),
    "few hosts, one period": lambda seed: analyze(*of_long_periods((5, 5), lambda at: 0.5, seed)),
    "six blocks": lambda seed: analyze(*of_blocks(1, 6, lambda at: 0.3, seed)),
}


@pytest.mark.slow
@pytest.mark.parametrize("design", STILL)
def test_a_constant_effect_is_called_faded_no_more_often_than_by_chance(design: str) -> None:
    """A change in that direction alone, of a test at 5 %: 2.5 % of runs, of which most still show the effect."""
    runs = 150
    said = inconclusive = tested = 0
    for seed in range(runs):
        findings = STILL[design](seed)
        (arm,) = findings.arms
        tested += the_check(findings).p_value is not None
        inconclusive += arm.cause is Cause.FADED
        said += arm.cause is Cause.FADED or Doubt.FADING in doubts(arm)
    assert tested > 0.9 * runs
    assert said <= stats.binom.ppf(0.999, runs, 0.025), said / runs
    assert inconclusive <= stats.binom.ppf(0.999, runs, 0.01), inconclusive / runs
