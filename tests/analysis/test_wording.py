"""Words follow the sign and the test, and every part of a decision has its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.plan import Direction, GuardrailPlan, Role
from analysis.quantities import MINUS
from analysis.results import (
    ArmDecision,
    Cause,
    Decision,
    Doubt,
    Estimate,
    EstimateKind,
    GuardrailResult,
    Interval,
    Missing,
    Overturn,
    Preference,
    Scope,
    Trade,
    Units,
    Verdict,
)
from analysis.wording import (
    change_of,
    choice_sentence,
    decision_label,
    decision_sentence,
    doubt_words,
    effect_words,
    leaves_out_zero,
    missing_sentence,
    missing_words,
    preference_sentence,
    scope_words,
    settling_words,
    trade_words,
)

ALPHA = 0.05


def interval(low: float | None, high: float | None) -> Interval:
    return Interval(low=low, high=high, level=0.95)


def lifted(lift: float, low: float, high: float, **more: object) -> Estimate:
    """A primary whose control mean is 1000; its p agrees with the interval."""
    fields: dict[str, object] = {
        "metric": "throughput",
        "unit": "operations per second",
        "role": Role.PRIMARY,
        "treatment": "treatment",
        "control": "control",
        "estimand": "mean over hosts",
        "method": "Welch t",
        "n_control": 40,
        "n_treatment": 40,
        "control_mean": 1000.0,
        "treatment_mean": 1000.0 * (1 + lift),
        "difference": 1000.0 * lift,
        "difference_interval": interval(1000 * low, 1000 * high),
        "lift": lift,
        "lift_interval": interval(low, high),
        "standard_error": 10.0,
        "df": 78.0,
        "p_value": 0.001 if leaves_out_zero(interval(low, high)) else 0.4,
    }
    return Estimate(**(fields | more))  # type: ignore[arg-type]


def absolute(metric: str, unit: str, means: tuple[float, float], ends: tuple[float, float]) -> Estimate:
    """An estimate without a relative change."""
    control, treatment = means
    row = lifted(0.0, *ends)  # for a p that agrees with the ends
    return replace(
        row, metric=metric, unit=unit, control_mean=control, treatment_mean=treatment, difference=treatment - control,
        difference_interval=interval(*ends), lift=None, lift_interval=None,
    )  # fmt: skip


BETTER = lifted(0.058, 0.031, 0.084)
WORSE = lifted(-0.15, -0.21, -0.09)
UNCLEAR = lifted(0.008, -0.031, 0.047)
ROSE = "throughput rose by 5.8 % [+3.1 %, +8.4 %]"
FELL = f"throughput fell by 15 % [{MINUS}21 %, {MINUS}9 %]"
NOT_CLEAR = f"throughput: no clear change, +0.8 % [{MINUS}3.1 %, +4.7 %]"


# ---------------------------------------------------------------------------- effects
@pytest.mark.parametrize(
    ("row", "words"),
    [
        (BETTER, ROSE),
        (WORSE, FELL),
        (UNCLEAR, NOT_CLEAR),
        (lifted(1.7, 1.5, 1.9), "throughput rose by 170 % [+150 %, +190 %]"),
        (
            absolute("latency", "seconds", (0.2, 0.188), (-0.02, -0.004)),
            f"latency fell by 12 ms [{MINUS}20 ms, {MINUS}4 ms]",
        ),
        (absolute("score", "", (-10.0, -5.0), (3.0, 7.0)), "score rose by 5.0 [+3.0, +7.0]"),
        (
            absolute("swap_ratio", "ratio", (0.10, 0.20), (0.05, 0.15)),
            "swap_ratio rose by 10 percentage points [+5 percentage points, +15 percentage points]",
        ),
        (
            absolute("splits", "pages per second", (0.00619, 0.0075), (0.0005, 0.0021)),
            "splits rose by 4.7 pages per host and hour [+1.8, +7.6]",
        ),
        (
            absolute("dtlb", "misses per 1000 instructions", (8.4, 6.3), (-2.6, 0.1)),
            f"dtlb: no clear change, {MINUS}2.1 misses per 1000 instructions [{MINUS}2.6, +0.1]",
        ),
        (
            absolute("memory_used_bytes", "bytes", (2.0**31, 2.0**31 + 2.0**20), (2.0**19, 1.5 * 2.0**20)),
            "memory_used_bytes rose by 1.0 MiB [+0.5 MiB, +1.5 MiB]",
        ),
        (replace(BETTER, difference=None, lift=None, difference_interval=None), "throughput could not be estimated"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_effect_is_worded_by_its_sign_in_units_people_use(row: Estimate, words: str) -> None:
    assert effect_words(row, ALPHA) == words


@pytest.mark.parametrize(
    "row",
    [
        replace(BETTER, p_value=0.2),
        replace(BETTER, p_adjusted=0.051),
        replace(BETTER, p_value=None),
        replace(BETTER, lift_interval=None),
        replace(BETTER, lift_interval=interval(-0.01, 0.12)),
        replace(BETTER, lift_interval=interval(None, 0.12)),
    ],
    ids=["p", "adjusted p", "no p", "no interval", "interval holds 0", "unbounded below"],
)
def test_a_change_that_test_or_interval_does_not_bear_out_is_no_clear_change(row: Estimate) -> None:
    change = change_of(row, ALPHA)
    assert (change.clear, change.compared) == (False, "no clear change" if row.lift_interval else "not tested")
    assert change.figures.startswith(("+5.8 %", "+6 %"))


def test_relative_change_of_a_mean_that_is_not_positive_is_not_shown_even_where_one_is_given() -> None:
    row = replace(BETTER, control_mean=-10.0, difference=5.0, difference_interval=interval(3.0, 7.0), lift=-0.5)
    assert effect_words(row, ALPHA) == "throughput rose by 5.0 operations per second [+3.0, +7.0]"


@given(
    difference=st.floats(-1e6, 1e6).filter(lambda value: abs(value) > 1e-3),
    control=st.floats(-1e6, 1e6),
    half=st.floats(0.01, 10.0),
)
def test_words_of_direction_stand_only_beside_an_interval_that_leaves_out_0(
    difference: float, control: float, half: float
) -> None:
    low, high = difference - half * abs(difference), difference + half * abs(difference)
    row = absolute("latency", "seconds", (control, control + difference), (low, high))
    row = replace(row, difference=difference)
    if control > 1:
        row = replace(row, lift=difference / control, lift_interval=interval(low / control, high / control))
    said, change = effect_words(row, ALPHA), change_of(row, ALPHA)
    words = {"rose", "fell", "faster", "slower", "higher", "lower", "long"}
    found = words & set(f"{said} {change.compared}".split())
    if leaves_out_zero(interval(low, high)):
        assert ("rose" if difference > 0 else "fell") in found
        assert not found & ({"fell", "faster", "lower"} if difference > 0 else {"rose", "slower", "higher", "long"})
    else:
        assert not found


# ---------------------------------------------------------------------------- the trade
@pytest.mark.parametrize(
    ("saved", "ends", "words"),
    [
        (-9.9, (-36.0, 14.5), "9.9 more servers per 1,000 needed [14.5 fewer, 36 more]"),
        (25.4, (7.1, 43.2), "25.4 fewer servers per 1,000 needed [7.1 to 43.2 fewer]"),
        (-25.4, (-43.2, -7.1), "25.4 more servers per 1,000 needed [7.1 to 43.2 more]"),
        (25.4, (0.0123, 43.2), "25.4 fewer servers per 1,000 needed [0.0123 to 43.2 fewer]"),
        (25.4, (None, 43.2), "25.4 fewer servers per 1,000 needed [43.2 fewer, unbounded]"),
        (25.4, None, "25.4 fewer servers per 1,000 needed"),
    ],
)
def test_trade_says_servers_needed_with_the_interval_in_the_same_sense(
    saved: float, ends: tuple[float | None, float] | None, words: str
) -> None:
    trade = Trade(treatment="t", saved_per_1000=saved, interval=None if ends is None else interval(*ends), detail="how")
    assert trade_words(trade) == words


SAVES = Trade(treatment="t", saved_per_1000=25.4, interval=interval(7.1, 43.2), detail="")
COSTS = Trade(treatment="t", saved_per_1000=-25.4, interval=interval(-43.2, -7.1), detail="")
OPEN = Trade(treatment="t", saved_per_1000=-9.9, interval=interval(-36.0, 14.5), detail="")


# ---------------------------------------------------------------------------- what is missing, for whom
LOST = (
    Missing(metric="throughput", arm="treatment", units=Units.HOSTS, lost=16, due=40),
    Missing(metric="throughput", arm="control", units=Units.HOSTS, lost=0, due=40),
)


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        (LOST[0], "16 of 40 hosts under treatment have no throughput"),
        (
            Missing(metric="oom_kills", arm="always", units=Units.PERIODS, lost=1, due=24, stratum="web"),
            "1 of 24 periods under always in web has no oom_kills",
        ),
        (Missing(metric="y", arm="a", units=Units.HOSTS, lost=1, due=1), "1 of 1 host under a has no y"),
        (Missing(metric="y", arm="a", units=Units.HOSTS, lost=2.5, due=40), "2.50 of 40 hosts under a have no y"),
    ],
)
def test_missing_values_are_counted_by_arm(missing: Missing, words: str) -> None:
    assert missing_words(missing) == words


def test_missing_values_of_the_arms_stand_beside_each_other_the_worst_first() -> None:
    assert missing_sentence(reversed(LOST)) == "16 of 40 hosts under treatment have no throughput (control: 0 of 40)"
    assert missing_sentence(LOST[1:]) == ""
    strata = [replace(LOST[0], stratum=name) for name in "abcd"]
    assert missing_sentence(strata, 2).endswith("in b have no throughput; 2 more such gaps")


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        (Scope(hosts=80, periods=240, seconds=144_000.0), "80 hosts, 240 periods, 40 h measured"),
        (Scope(hosts=1, periods=16, seconds=0.0, host_names=("h1",)), "1 host (h1), 16 periods"),
        (
            Scope(hosts=8, periods=8, seconds=8.0, strata=("a", "b"), without=("c",)),
            "8 hosts, 8 periods, 8 s measured, in a, b, not in c",
        ),
    ],
)
def test_scope_says_hosts_time_and_strata(scope: Scope, words: str) -> None:
    assert scope_words(scope) == words


DOUBTS = {
    Doubt.MISSING_DATA: "what is missing of x could turn the effect around",
    Doubt.STRATA_DIFFER: "the strata of x do not tell the same story",
    Doubt.STRATUM_NOT_RULED_OUT: "harm in x is not ruled out",
    Doubt.COST_NOT_EXCLUDED: "it is not excluded that more servers are needed",
    Doubt.CARRY_OVER_UNTESTED: "what an arm leaves behind for the next could not be tested",
    Doubt.FADING: "the change of x was smaller in the later half of the measured time",
    Doubt.GROWING: "harm to x was larger in the later half of the measured time, within its margin",
    Doubt.FEW_HOSTS: "so few hosts do not speak for others",
    Doubt.CARRY_OVER: "it is not excluded that what an arm leaves behind for the next eats the change of x",
    Doubt.NO_GUARDRAIL: "no guardrail was set",
    Doubt.EARLY_LOOK: "this is an early look",
}


@pytest.mark.parametrize("doubt", Doubt)
def test_every_doubt_has_its_words_and_what_would_settle_it(doubt: Doubt) -> None:
    assert doubt_words(Overturn(doubt=doubt, about="x")) == DOUBTS[doubt]
    for overturn in (Overturn(doubt=doubt), Overturn(doubt=doubt, about="x")):
        assert "{" not in doubt_words(overturn) + settling_words(overturn)
        assert len(settling_words(overturn)) > 10


# ---------------------------------------------------------------------------- decisions
def rail(metric: str, verdict: Verdict = Verdict.PASS, reason: str = "", *, built_in: bool = False) -> GuardrailResult:
    return GuardrailResult(
        plan=GuardrailPlan(metric=metric, worse=Direction.INCREASE, margin=0.1), treatment="treatment",
        verdict=verdict, estimate=None, reason=reason, built_in=built_in,
    )  # fmt: skip


PASSED = (rail("memory_used_bytes"), rail("oom_kills"), rail("hosts_lost", built_in=True))
FAILED = rail("oom_kills", Verdict.FAIL, "The tripwire 1 was reached: 3.")
EVERY = "every guardrail passed (memory_used_bytes, oom_kills)"
FLEET = Scope(hosts=80, periods=80, seconds=8e4)
EARLY = replace(BETTER, kind=EstimateKind.EARLIER_HALF)
LATE = replace(UNCLEAR, kind=EstimateKind.LATER_HALF)
IN_C = replace(WORSE, stratum="c", kind=EstimateKind.STRATUM)


def sentence(
    cause: Cause,
    headline: Estimate | None = BETTER,
    *,
    decision: Decision = Decision.INCONCLUSIVE,
    trade: Trade | None = None,
    rails: Sequence[GuardrailResult] = PASSED,
    rows: Sequence[Estimate] = (),
    **parts: object,
) -> str:
    fields: dict[str, object] = {"scope": FLEET, **parts}
    arm = ArmDecision(arm="treatment", decision=decision, cause=cause, **fields)  # type: ignore[arg-type]
    return decision_sentence(arm, headline, trade, rails, ALPHA, parts=rows)


SENTENCES: dict[Cause, list[tuple[str, str]]] = {
    Cause.BETTER: [
        (sentence(Cause.BETTER, decision=Decision.SHIP), f"{ROSE}, and {EVERY}"),
        (sentence(Cause.BETTER, decision=Decision.SHIP, rails=PASSED[2:]), f"{ROSE}, and no guardrail was set"),
        (
            sentence(Cause.BETTER, decision=Decision.SHIP, trade=OPEN),
            f"{ROSE}, and {EVERY}, but it is not excluded that more servers are needed: 9.9 more per 1,000 "
            "[14.5 fewer, 36 more]",
        ),
        (
            sentence(Cause.BETTER, decision=Decision.SHIP, trade=SAVES, missing=LOST),
            f"{ROSE}, and {EVERY}, and fewer servers are needed: 25.4 fewer per 1,000 [7.1 to 43.2 fewer]; "
            "16 of 40 hosts under treatment have no throughput (control: 0 of 40)",
        ),
        (
            sentence(
                Cause.BETTER,
                decision=Decision.BETTER_HERE,
                scope=Scope(hosts=1, periods=16, seconds=1.0, host_names=("h1",)),
                overturn=(Overturn(doubt=Doubt.FEW_HOSTS), Overturn(doubt=Doubt.CARRY_OVER_UNTESTED)),
            ),
            f"{ROSE} on host h1 only, which does not speak for a fleet, and {EVERY}; still open: what an arm leaves "
            "behind for the next could not be tested",
        ),
        (
            sentence(
                Cause.BETTER,
                decision=Decision.BETTER_HERE,
                scope=Scope(hosts=3, periods=48, seconds=1.0, host_names=("h1", "h2", "h3")),
            ),
            f"{ROSE} on hosts h1, h2 and h3 only, which do not speak for a fleet, and {EVERY}",
        ),
        (
            sentence(Cause.BETTER, decision=Decision.SHIP, rails=(*PASSED, rail("psi", Verdict.INCONCLUSIVE))),
            f"{ROSE}, and harm to psi is not ruled out",
        ),
    ],
    Cause.BETTER_IN_STRATA: [
        (
            sentence(
                Cause.BETTER_IN_STRATA,
                decision=Decision.SHIP_IN_STRATA,
                rows=(IN_C,),
                scope=replace(FLEET, strata=("a", "b"), without=("c", "d"), harmed=("c",)),
            ),
            f"{ROSE}, and {EVERY}; ship in a, b; not in c, where {FELL}, nor in d, where harm is not ruled out",
        ),
    ],
    Cause.SERVERS_SAVED: [
        (
            sentence(Cause.SERVERS_SAVED, UNCLEAR, decision=Decision.SHIP, trade=SAVES),
            f"25.4 fewer servers per 1,000 needed [7.1 to 43.2 fewer]; {NOT_CLEAR}, and {EVERY}",
        ),
    ],
    Cause.WORSE: [(sentence(Cause.WORSE, WORSE, decision=Decision.DO_NOT_SHIP), f"{FELL}, which is worse")],
    Cause.GUARDRAIL_FAILED: [
        (
            sentence(Cause.GUARDRAIL_FAILED, rails=(PASSED[0], FAILED), decision=Decision.DO_NOT_SHIP),
            "guardrail oom_kills: The tripwire 1 was reached: 3",
        ),
        (sentence(Cause.GUARDRAIL_FAILED, rails=(), about=("psi",)), "a guardrail failed: psi"),
    ],
    Cause.COSTS_SERVERS: [
        (
            sentence(Cause.COSTS_SERVERS, trade=COSTS),
            f"{ROSE}, but more servers are needed: 25.4 more per 1,000 [7.1 to 43.2 more]",
        ),
        (sentence(Cause.COSTS_SERVERS, None), "more servers are needed"),
    ],
    Cause.COST_NOT_EXCLUDED: [
        (
            sentence(Cause.COST_NOT_EXCLUDED, trade=OPEN),
            f"{ROSE}, but it is not excluded that more servers are needed: 9.9 more per 1,000 [14.5 fewer, 36 more]",
        ),
        (sentence(Cause.COST_NOT_EXCLUDED, None), "it is not excluded that more servers are needed"),
    ],
    Cause.GUARDRAIL_OPEN: [
        (sentence(Cause.GUARDRAIL_OPEN, about=("psi", "oom")), f"{ROSE}, but harm to psi, oom is not ruled out"),
        (sentence(Cause.GUARDRAIL_OPEN, UNCLEAR, about=("psi",)), f"{NOT_CLEAR}, and harm to psi is not ruled out"),
    ],
    Cause.GUARDRAIL_GROWING: [
        (
            sentence(
                Cause.GUARDRAIL_GROWING,
                rows=(
                    *(replace(row, metric="memory") for row in (EARLY, LATE)),
                    replace(EARLY, metric="psi"),
                    replace(EARLY, lift=0.5),
                ),
                about=("memory", "psi"),
            ),
            f"{ROSE}, but harm to memory, psi grew, and the later half of the measured time alone does not rule it "
            f"out: memory +5.8 % [+3.1 %, +8.4 %] in the earlier half, +0.8 % [{MINUS}3.1 %, +4.7 %] in the later",
        ),
        (
            sentence(Cause.GUARDRAIL_GROWING, UNCLEAR, rows=(EARLY, LATE), about=("throughput",)),
            f"{NOT_CLEAR}, and harm to throughput grew, and the later half of the measured time alone does not rule it "
            f"out: +5.8 % [+3.1 %, +8.4 %] in the earlier half, +0.8 % [{MINUS}3.1 %, +4.7 %] in the later",
        ),
        (
            sentence(Cause.GUARDRAIL_GROWING),
            f"{ROSE}, but harm to a guardrail grew, and the later half of the measured time alone does not rule it out",
        ),
    ],
    Cause.STRATUM_HARMED: [
        (
            sentence(Cause.STRATUM_HARMED, UNCLEAR, rows=(IN_C,), scope=replace(FLEET, without=("c",), harmed=("c",))),
            f"{NOT_CLEAR}, and in c {FELL}, and no stratum shows a benefit",
        ),
        (sentence(Cause.STRATUM_HARMED, about=("c",)), f"{ROSE}, but c is harmed, and no stratum shows a benefit"),
    ],
    Cause.CHECK_FAILED: [
        (
            sentence(Cause.CHECK_FAILED, about=("sample-ratio mismatch",), missing=LOST),
            "the experiment itself is in doubt: sample-ratio mismatch failed; 16 of 40 hosts under treatment have no "
            "throughput (control: 0 of 40)",
        ),
    ],
    Cause.MISSING_DATA: [
        (
            sentence(Cause.MISSING_DATA, missing=LOST),
            f"{ROSE}, but 16 of 40 hosts under treatment have no throughput (control: 0 of 40): had they done as badly "
            "as the worst, nothing would be gained",
        ),
        (
            sentence(Cause.MISSING_DATA, missing=(replace(LOST[0], lost=0), replace(LOST[1], lost=7))),
            f"{ROSE}, but 7 of 40 hosts under control have no throughput (treatment: 0 of 40): had they done as well "
            "as the best, nothing would be gained",
        ),
        (
            sentence(Cause.MISSING_DATA, missing=(LOST[0], replace(LOST[1], lost=7))),
            f"{ROSE}, but 16 of 40 hosts under treatment have no throughput (control: 7 of 40): in the worst case "
            "nothing would be gained",
        ),
    ],
    Cause.FADED: [
        (
            sentence(Cause.FADED, rows=(EARLY, LATE), about=("throughput",)),
            f"{ROSE}, but it faded, and the later half of the measured time alone does not show it: +5.8 % [+3.1 %, "
            f"+8.4 %] in the earlier half, +0.8 % [{MINUS}3.1 %, +4.7 %] in the later",
        ),
        (
            sentence(Cause.FADED),
            f"{ROSE}, but it faded, and the later half of the measured time alone does not show it",
        ),
    ],
    Cause.NOT_CLEAR: [
        (sentence(Cause.NOT_CLEAR, UNCLEAR), NOT_CLEAR),
        (sentence(Cause.NOT_CLEAR), f"{ROSE}, but the randomisation test does not bear it out"),
    ],
    Cause.TOO_FEW_UNITS: [
        (
            sentence(Cause.TOO_FEW_UNITS, replace(UNCLEAR, n_control=3, n_treatment=2)),
            f"3 + 2 units are too few for a decision; {NOT_CLEAR}",
        ),
        (sentence(Cause.TOO_FEW_UNITS, None), "so few units are too few for a decision"),
    ],
    Cause.NOT_TESTED: [
        (
            sentence(Cause.NOT_TESTED, replace(UNCLEAR, p_value=None, warnings=("the values do not vary.",))),
            f"no test could be made: the values do not vary; {NOT_CLEAR}",
        ),
        (sentence(Cause.NOT_TESTED, None), "no test could be made"),
    ],
    Cause.NOT_MEASURED: [
        (sentence(Cause.NOT_MEASURED, None, about=("y",)), "the primary metric y was not measured"),
        (sentence(Cause.NOT_MEASURED, None), "the primary metric was not measured"),
    ],
    Cause.MIXED_MEANINGS: [
        (
            sentence(Cause.MIXED_MEANINGS, None, about=("misses", "walks of loads", "walks of both")),
            "hosts counted different things as misses: walks of loads; walks of both",
        ),
        (sentence(Cause.MIXED_MEANINGS, None), "hosts counted different things as the primary metric"),
    ],
    Cause.RESOLUTION: [
        (
            sentence(Cause.RESOLUTION, about=("p99",)),
            "p99 never left one bucket of its histogram: the arms are not told apart",
        )
    ],
    Cause.NOT_RANDOMISED: [
        (
            sentence(Cause.NOT_RANDOMISED, None),
            "nobody drew which host got which arm, so no difference can be put down to it",
        )
    ],
    Cause.NO_PRIMARY: [(sentence(Cause.NO_PRIMARY, None), "no primary metric was named")],
    Cause.NO_DIRECTION: [
        (sentence(Cause.NO_DIRECTION), "the plan does not say which way throughput is better"),
        (sentence(Cause.NO_DIRECTION, None), "the plan does not say which way the primary metric is better"),
    ],
}


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_has_its_sentence(cause: Cause) -> None:
    for found, expected in SENTENCES[cause]:
        assert found == expected


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("decision", Decision)
def test_no_sentence_is_empty_or_broken_where_nothing_but_the_cause_is_known(cause: Cause, decision: Decision) -> None:
    found = sentence(cause, None, decision=decision, rails=())
    assert len(found) > 10
    assert not found.startswith((",", ";", " ", "but", "and"))
    assert "  " not in found and " ," not in found and "None" not in found


@pytest.mark.parametrize("doubt", Doubt)
def test_a_favourable_sentence_says_each_doubt_once(doubt: Doubt) -> None:
    found = sentence(
        Cause.BETTER, decision=Decision.SHIP, overturn=(Overturn(doubt=doubt, about="x"),),
        rails=() if doubt is Doubt.NO_GUARDRAIL else PASSED, trade=OPEN if doubt is Doubt.COST_NOT_EXCLUDED else None,
    )  # fmt: skip
    assert found.count(DOUBTS[doubt]) == 1


def test_labels_are_the_words_people_read() -> None:
    assert [decision_label(one) for one in Decision] == [
        "ship", "ship in strata", "better here", "inconclusive", "do not ship",
    ]  # fmt: skip


# ---------------------------------------------------------------------------- several treatments
def pair(row: Estimate, treatment: str, control: str) -> Estimate:
    return replace(row, treatment=treatment, control=control, kind=EstimateKind.PAIRWISE)


@pytest.mark.parametrize(
    ("preference", "rows", "words"),
    [
        (Preference(arm="2m", over=("1g",)), (pair(BETTER, "2m", "1g"),), f"2m is preferred over 1g: {ROSE}"),
        (
            Preference(arm="2m", over=("1g",)),
            (pair(WORSE, "1g", "2m"),),
            f"2m is preferred over 1g: {FELL} under 1g against 2m",
        ),
        (
            Preference(arm=None, over=("1g", "2m")),
            (pair(UNCLEAR, "1g", "2m"), pair(BETTER, "1g", "64k"), UNCLEAR),
            f"1g and 2m are not told apart: throughput +0.8 % [{MINUS}3.1 %, +4.7 %] under 1g against 2m",
        ),
        (Preference(arm="2m", over=("1g", "64k")), (), "2m is preferred over 1g and 64k"),
    ],
)
def test_preference_names_the_pairs_that_it_rests_on(
    preference: Preference, rows: tuple[Estimate, ...], words: str
) -> None:
    assert preference_sentence(preference, rows, ALPHA) == words


@pytest.mark.parametrize(
    ("decisions", "preferred", "words"),
    [
        ((Decision.SHIP, Decision.SHIP), "b", "take b; told"),
        ((Decision.SHIP, Decision.SHIP), None, "take any of a and b; told"),
        ((Decision.SHIP, Decision.SHIP_IN_STRATA), None, "take a, the only one to ship without a limit; told"),
        ((Decision.DO_NOT_SHIP, Decision.SHIP), None, "take b; told"),
        ((Decision.DO_NOT_SHIP, Decision.SHIP), "a", "take b; told"),
        ((Decision.INCONCLUSIVE, Decision.DO_NOT_SHIP), "a", "none of them is shown to be worth taking; told"),
        ((Decision.DO_NOT_SHIP, Decision.DO_NOT_SHIP), None, "take none of them; told"),
    ],
)
def test_one_line_says_which_arm_to_take(decisions: tuple[Decision, ...], preferred: str | None, words: str) -> None:
    arms = [
        ArmDecision(arm=name, decision=decision, cause=Cause.BETTER, scope=FLEET)
        for name, decision in zip("ab", decisions, strict=True)
    ]
    preference = Preference(arm=preferred, over=("a", "b"), sentence="told")
    assert choice_sentence(arms, preference) == words
    assert choice_sentence(arms, None) in {words.removesuffix("; told"), "take any of a and b"}
