"""Effects that fade, harms that grow, and what stays: what is decided and said, how often the last is suspected."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis import analyze
from analysis.halves import in_later_half
from analysis.plan import AnalysisPlan, Direction, Estimand, GuardrailPlan, Rule, TradePlan
from analysis.results import HALVES, ArmDecision, Cause, Check, Decision, Doubt, Findings, Verdict
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
    hosts: int,
    blocks: int,
    course: Course,
    seed: int = 1,
    *,
    order: str = "pairs",
    noise: float = 1.5,
    harm: Course | None = None,
) -> tuple[pd.DataFrame, AnalysisPlan, pd.DataFrame]:
    """Draw a switchback whose latency falls by the course; every host drifts. With a harm, memory rises by that."""

    def value(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        gone = course(block / blocks) if arm == "always" else 0.0
        return (100 + 0.3 * position) * (1 - gone) + draw.normal(0, noise)

    def memory(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        risen = harm(block / blocks) if harm is not None and arm == "always" else 0.0
        return 100 * (1 + risen) + draw.normal(0, noise)

    names = [f"host-{place}" for place in range(hosts)]
    seen = switchback(
        {"latency": value} | ({} if harm is None else {"memory": memory}),
        blocks=blocks,
        hosts=names,
        order=order,
        seed=seed,
    )
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


# ---------------------------------------------------------------------------- harm that grows
RAIL = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.10)
TO_THE_MARGIN: Course = lambda at: 0.0 if at < 0.5 else 0.10  # noqa: E731 - half of it over the whole time
BEYOND: Course = lambda at: 0.0 if at < 0.5 else 0.16  # noqa: E731


def hosts_with_memory(
    sizes: tuple[int, int], periods: int, harm: Course, seed: int = 1
) -> tuple[pd.DataFrame, AnalysisPlan]:
    """Hosts whose throughput rises for good, and whose memory rises by the harm."""
    rows, own = of_hosts(sizes, periods, CONSTANT, seed)
    memory, _ = of_hosts(sizes, periods, harm, seed + 10_000)
    memory = memory[memory["metric"] == "throughput"].assign(metric="memory")
    return pd.concat([rows, memory], ignore_index=True), replace(own, guardrails=(RAIL,))


def long_with_memory(harm: Course, seed: int) -> tuple[pd.DataFrame, AnalysisPlan]:
    rows, own = hosts_with_memory((40, 40), 2, harm, seed)
    return in_one_period(rows), own


def blocks_with_memory(hosts: int, blocks: int, harm: Course, seed: int) -> Findings:
    rows, own, periods = of_blocks(hosts, blocks, CONSTANT, seed, harm=harm)
    return analyze(rows, replace(own, guardrails=(RAIL,)), periods)


HARMED: dict[str, Callable[[Course, int], Findings]] = {
    "parallel": lambda harm, seed: analyze(*hosts_with_memory((20, 20), 12, harm, seed)),
    "one period a host": lambda harm, seed: analyze(*long_with_memory(harm, seed)),
    "switchback on three hosts": lambda harm, seed: blocks_with_memory(3, 16, harm, seed),
    "switchback of a fleet": lambda harm, seed: blocks_with_memory(10, 12, harm, seed),
}


def growing_check(findings: Findings) -> Check:
    (found,) = [check for check in findings.checks if check.name.startswith("growing harm (memory, ")]
    return found


@pytest.mark.parametrize("design", HARMED)
def test_harm_that_grows_to_its_margin_does_not_pass_on_the_average(design: str) -> None:
    findings = HARMED[design](TO_THE_MARGIN, 1)
    (arm,) = findings.arms
    (rail,) = [rail for rail in findings.guardrails if rail.plan.metric == "memory"]
    assert (arm.decision, arm.cause, arm.about) == (Decision.INCONCLUSIVE, Cause.GUARDRAIL_GROWING, ("memory",))
    assert "harm to memory grew" in arm.sentence and "in the earlier half" in arm.sentence
    assert rail.verdict is Verdict.INCONCLUSIVE and rail.reason.startswith("Harm grew: ")
    rows = [row for row in findings.estimates if row.kind in HALVES and row.metric == "memory"]
    assert [row.kind for row in rows] == list(HALVES)
    assert [row.lift for row in rows] == pytest.approx([0.0, 0.10], abs=0.03)
    assert growing_check(findings).passed is False


@pytest.mark.parametrize("design", HARMED)
def test_harm_whose_later_half_is_clearly_beyond_its_margin_fails(design: str) -> None:
    findings = HARMED[design](BEYOND, 1)
    (arm,) = findings.arms
    assert (arm.decision, arm.cause, arm.about) == (Decision.DO_NOT_SHIP, Cause.GUARDRAIL_FAILED, ("memory",))
    assert "Of the later half alone: An increase of 10 % or more is shown" in arm.sentence


@pytest.mark.parametrize("design", HARMED)
@pytest.mark.parametrize("harm", [0.04, -0.3], ids=["within its margin", "to the better"])
def test_growth_that_does_no_harm_ships_and_what_grew_within_its_margin_is_said(harm: float, design: str) -> None:
    findings = HARMED[design](lambda at: 0.0 if at < 0.5 else harm, 1)
    (arm,) = findings.arms
    assert arm.decision.is_favourable
    assert (Doubt.GROWING in doubts(arm)) == (harm > 0)
    assert ("harm to memory was larger in the later half" in arm.sentence) == (harm > 0)
    assert growing_check(findings).passed is True


@pytest.mark.parametrize("design", HARMED)
@pytest.mark.parametrize("course", [lambda at: 0.03, lambda at: 0.06 - 0.06 * at], ids=["constant", "fading"])
def test_harm_that_stays_or_goes_is_judged_over_the_whole_time(course: Course, design: str) -> None:
    findings = HARMED[design](course, 4)
    (arm,) = findings.arms
    assert arm.decision.is_favourable
    assert Doubt.GROWING not in doubts(arm)


def test_the_growth_of_a_harm_by_hand() -> None:
    """Two guardrails share alpha; a change counts by the weaker of two t-tests, in the unit and relative to control."""
    rows, own = hosts_with_memory((20, 20), 2, CONSTANT)
    rows = rows[rows["kind"] == "measure"].sort_values(["position", "host"])  # no pre-period: Welch's t alone
    even = np.linspace(-1, 1, 20)  # neither few hosts nor skewed ones: no randomisation test
    rows.loc[rows["metric"] == "memory", "mean"] = np.concatenate(
        [100 + 2 * even, 101 + even, 110 + even, 121 - 2 * even]  # control, treatment: first the earlier half
    )
    falls = replace(RAIL, metric="cpu", worse=Direction.DECREASE)
    findings = analyze(rows, replace(own, guardrails=(RAIL, falls)))
    changes = [(10 - even, 20 - 3 * even), (even / 110 - even / 50, 11 / 110 - 1 / 100 - 2 * even / 110 - even / 100)]
    by_hand = [stats.ttest_ind(treated, control, equal_var=False).pvalue for control, treated in changes]
    assert growing_check(findings).p_value == pytest.approx(2 * max(by_hand))
    halves = [row for row in findings.estimates if row.kind in HALVES and row.metric == "memory"]
    assert [row.lift for row in halves] == pytest.approx([0.01, 0.10])
    (rail, _) = findings.guardrails[:2]
    assert rail.verdict is Verdict.INCONCLUSIVE
    assert "in the later. Of the later half alone: An increase of 10 % or more is neither ruled out" in rail.reason
    (cpu,) = [check for check in findings.checks if check.name == "growing harm (cpu, treatment)"]
    assert cpu.passed is True


def test_too_few_hosts_or_one_period_leave_the_growth_untested_and_it_is_said() -> None:
    for seen in (hosts_with_memory((20, 20), 1, TO_THE_MARGIN), hosts_with_memory((3, 20), 10, TO_THE_MARGIN)):
        check = growing_check(analyze(*seen))
        assert check.passed is None
        assert "Not testable" in check.detail


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


@pytest.mark.slow
@pytest.mark.parametrize("design", ["one period a host", "switchback on three hosts"])
def test_constant_harm_near_its_margin_is_rarely_blocked_for_growing_and_growing_harm_nearly_always(
    design: str,
) -> None:
    """Growth to harm alone, of a test at 5 %: at most 2.5 % of runs. A harm of 2 %, then 12 %, has the same mean."""
    runs, grown = 50, 20
    still = [HARMED[design](lambda at: 0.07, 500 + seed).arms[0] for seed in range(runs)]
    suspected = sum(one.cause is Cause.GUARDRAIL_GROWING or Doubt.GROWING in doubts(one) for one in still)
    assert suspected <= stats.binom.ppf(0.999, runs, 0.025), suspected / runs
    growing = [HARMED[design](lambda at: 0.02 if at < 0.5 else 0.12, 900 + seed).arms[0] for seed in range(grown)]
    caught = sum(not one.decision.is_favourable for one in growing)
    assert caught >= stats.binom.ppf(0.001, grown, 0.95), caught / grown
