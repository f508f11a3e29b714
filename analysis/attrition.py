"""Lost hosts: intention to treat keeps them in the count; did one arm lose more, and how much could that hide?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import stats

from analysis.missing import Gaps
from analysis.plan import Direction, GuardrailPlan
from analysis.results import Check, GuardrailResult, Verdict

LOST = "hosts_lost"
MISSING_ALARM = 0.001
PLAINLY_CHANCE = 0.2  # one-sided p: from here on more lost hosts are weighed (they bound the effect), no veto


def missing_check(metric: str, treatment: str, gaps: Gaps) -> Check:
    """Test whether a metric's values are missing more in one arm: exact, within strata."""
    name = f"missing data ({metric}, {treatment})"
    lost, treated = gaps.lost, gaps.sample.treated
    sizes = f"{lost[1]:.3g} of {int(treated.sum())} missing, control {lost[0]:.3g} of {int((~treated).sum())}"
    p = gaps.p_value()
    if p is None:
        return Check(name=name, passed=True, p_value=None, detail="Nothing is missing.")
    if p < MISSING_ALARM:
        return Check(name=name, passed=False, p_value=p, detail=f"The arms miss different shares: {sizes}.")
    return Check(name=name, passed=True, p_value=p, detail=f"No sign that an arm misses more: {sizes}.")


def attrition_check(lost: tuple[int, int], assigned: tuple[int, int], treatment: str) -> Check:
    """Test whether whole hosts are missing more in one arm: Fisher's exact test on (control, treatment) counts."""
    name = f"attrition ({treatment})"
    sizes = f"{lost[1]} of {assigned[1]} lost, control {lost[0]} of {assigned[0]}"
    if min(assigned) == 0:
        return Check(name=name, passed=None, p_value=None, detail=f"An arm has no hosts ({sizes}).")
    p = _fisher(lost, assigned, "two-sided")
    if p < MISSING_ALARM:
        return Check(name=name, passed=False, p_value=p, detail=f"The arms lost different shares: {sizes}.")
    return Check(name=name, passed=True, p_value=p, detail=f"No sign that an arm lost more: {sizes}.")


def loss_guardrail(lost: tuple[int, int], assigned: tuple[int, int], treatment: str, alpha: float) -> GuardrailResult:
    """Judge the loss of hosts itself.

    Fail: the treatment lost more, beyond chance (one-sided). Pass: it lost no larger share, or so few more that chance
    plainly explains it; the worst case of the primary counts them all the same. Else inconclusive.
    """
    plan = GuardrailPlan(metric=LOST, worse=Direction.INCREASE)
    if min(assigned) == 0:
        verdict, reason = Verdict.INCONCLUSIVE, "An arm has no hosts."
    else:
        p = _fisher(lost, assigned, "greater")
        sizes = f"lost {lost[1]} of {assigned[1]}, control {lost[0]} of {assigned[0]}"
        if p < alpha:
            verdict, reason = Verdict.FAIL, f"The treatment loses hosts: {sizes} (p = {p:.2g})."
        elif lost[1] / assigned[1] <= lost[0] / assigned[0]:
            verdict, reason = Verdict.PASS, f"No more hosts were lost than under control: {sizes}."
        elif p >= PLAINLY_CHANCE:
            verdict, reason = Verdict.PASS, f"Chance explains that more hosts were lost: {sizes} (p = {p:.2g})."
        else:
            verdict, reason = Verdict.INCONCLUSIVE, f"More hosts were lost, perhaps by chance: {sizes} (p = {p:.2g})."
    return GuardrailResult(plan=plan, treatment=treatment, verdict=verdict, estimate=None, reason=reason, built_in=True)


def _fisher(lost: tuple[int, int], assigned: tuple[int, int], alternative: Literal["two-sided", "greater"]) -> float:
    table = np.array([[lost[1], assigned[1] - lost[1]], [lost[0], assigned[0] - lost[0]]])
    return float(stats.fisher_exact(table, alternative=alternative).pvalue)
