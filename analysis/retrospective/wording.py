"""Verdicts in words, the same for terminal, Markdown and HTML. They never say more than 'consistent with'."""

from __future__ import annotations

from analysis.results import Check, Estimate
from analysis.retrospective.verdicts import (
    Ground,
    MarginStanding,
    MetricFindings,
    RetrospectiveFindings,
    RetrospectiveVerdict,
)
from analysis.wording import effect_words

_LABELS = {
    RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT: "consistent with a benefit",
    RetrospectiveVerdict.CONSISTENT_WITH_HARM: "consistent with harm",
    RetrospectiveVerdict.NOT_DISTINGUISHABLE: "not distinguishable",
    RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED: "assumptions contradicted",
}
NOT_RANDOMISED = (
    "NOT RANDOMISED: nobody drew which hosts were changed. What sets them apart from the others may be the cause of "
    "every difference below; only a randomised experiment can tell."
)


def verdict_label(verdict: RetrospectiveVerdict) -> str:
    """Return the words that people read."""
    return _LABELS[verdict]


def verdict_sentence(findings: RetrospectiveFindings) -> str:
    """Write the one sentence of the verdict, without a full stop."""
    primary = findings.metric(findings.primary)
    effect = primary.plan.name if primary.headline is None else effect_words(primary.headline, findings.alpha)
    said = f"{_of_ground(findings, primary, effect)}; hosts were not drawn at random"
    if findings.ground in {Ground.EFFECT, Ground.GUARDRAIL}:
        open_ones = [one.plan.metric for one in findings.guardrails if one.standing is MarginStanding.OPEN]
        said += f"; harm to {', '.join(open_ones)} is not ruled out" if open_ones else ""
        said += "" if findings.ground is Ground.GUARDRAIL else f"; {robustness_words(primary)}"
    return said


def _of_ground(findings: RetrospectiveFindings, primary: MetricFindings, effect: str) -> str:
    match findings.ground:
        case Ground.EFFECT:
            said = effect
        case Ground.GUARDRAIL:
            rows = [one for one in findings.guardrails if one.standing is MarginStanding.BEYOND]
            said = " and ".join(_beyond(one.estimate, one.plan.margin, findings.alpha) for one in rows)
        case Ground.PRE_TREND:
            said = f"changed hosts moved otherwise than the others before, so nothing can be put down to it: {effect}"
        case Ground.PLACEBO_DATE:
            said = f"a date before the change seems to have had an effect, so nothing can be put down to it: {effect}"
        case Ground.PLACEBO_HOSTS:
            said = f"{effect}, but hosts that were not changed differ by as much"
        case Ground.RATIOS:
            said = f"{effect}, but told in ratios nothing changed: hosts of another level may have moved alike"
        case Ground.UNLIKE_HOSTS:
            said = f"{effect}, but hosts of such a level before moved alike without the change"
        case Ground.FADED:
            said = f"{effect} over all the time since, but nothing of it is left in the later half"
        case Ground.FEW_MOVED:
            said = f"{effect} in the mean, but few hosts carry it: the middle half of them does not show it"
        case Ground.NOT_CLEAR:
            said = effect
        case Ground.NO_DIRECTION:
            said = f"{effect}; nobody says which way is better"
        case Ground.TOO_FEW_HOSTS:
            said = f"too few hosts for a verdict; {effect}"
        case Ground.NO_PRE_TREND_TEST:
            said = f"{effect}, but too little is known of the time before to see whether hosts moved alike"
        case Ground.MISSING_DATA:
            said = f"{effect}, but what is missing could turn that around"
        case Ground.NOT_ESTIMATED:
            said = next(iter(primary.warnings), f"{effect} could not be estimated")
    return said


def _beyond(row: Estimate | None, margin: float | None, alpha: float) -> str:
    if row is None or margin is None:
        return "a guardrail is beyond its margin"
    return f"{effect_words(row, alpha)}, beyond the margin of {margin:.0%}"


def robustness_words(found: MetricFindings) -> str:
    """Say how large an unseen drift would have to be to explain the change away."""
    if found.robustness is None:
        return "how large an unseen drift would explain it away is not known"
    if found.robustness.breakdown <= 0:
        return "a drift smaller than those before the change would explain it away"
    return f"only a drift more than {found.robustness.breakdown:.2g} times the largest before it would explain it away"


def passed_word(check: Check) -> str:
    """Say how a check went."""
    if check.passed is None:
        return "not testable" if check.p_value is None else "tells nothing"
    return "holds" if check.passed else "fails"
