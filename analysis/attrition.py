"""Lost hosts: intention to treat keeps them in the count; did one arm lose more, and how much could that hide?"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite
from analysis.plan import Direction, GuardrailPlan
from analysis.results import Check, GuardrailResult, Interval, Verdict
from analysis.welch import welch

_Floats = NDArray[np.float64]
LOST = "hosts_lost"
MARGIN = 0.01  # of the hosts: more lost than in control by less than this passes where chance explains it


def attrition_check(lost: tuple[int, int], assigned: tuple[int, int], treatment: str, alpha: float) -> Check:
    """Test whether hosts are missing more in one arm: Fisher's exact test on (control, treatment) counts."""
    name = f"attrition ({treatment})"
    sizes = f"{lost[1]} of {assigned[1]} lost, control {lost[0]} of {assigned[0]}"
    if min(assigned) == 0:
        return Check(name=name, passed=None, p_value=None, detail=f"An arm has no hosts ({sizes}).")
    p = _fisher(lost, assigned, "two-sided")
    if p < alpha:
        return Check(name=name, passed=False, p_value=p, detail=f"The arms lost different shares: {sizes}.")
    return Check(name=name, passed=True, p_value=p, detail=f"No sign that an arm lost more: {sizes}.")


def loss_guardrail(lost: tuple[int, int], assigned: tuple[int, int], treatment: str, alpha: float) -> GuardrailResult:
    """Judge the loss of hosts itself.

    Fail: the treatment lost more, beyond chance (one-sided). Pass: it lost no larger share than the control by 1 % of
    the hosts. Else inconclusive.
    """
    plan = GuardrailPlan(metric=LOST, worse=Direction.INCREASE, margin=MARGIN)
    if min(assigned) == 0:
        verdict, reason = Verdict.INCONCLUSIVE, "An arm has no hosts."
    else:
        p = _fisher(lost, assigned, "greater")
        sizes = f"lost {lost[1]} of {assigned[1]}, control {lost[0]} of {assigned[0]}"
        if p < alpha:
            verdict, reason = Verdict.FAIL, f"The treatment loses hosts: {sizes} (p = {p:.2g})."
        elif lost[1] / assigned[1] - lost[0] / assigned[0] < MARGIN:
            verdict, reason = Verdict.PASS, f"No more hosts were lost than under control: {sizes}."
        else:
            verdict, reason = Verdict.INCONCLUSIVE, f"More hosts were lost, perhaps by chance: {sizes} (p = {p:.2g})."
    return GuardrailResult(plan=plan, treatment=treatment, verdict=verdict, estimate=None, reason=reason)


def worst_case(control: _Floats, treatment: _Floats, lost: tuple[int, int], level: float) -> tuple[Interval, Interval]:
    """Bound the effect had the lost hosts been as bad, or as good, as any host that was seen.

    Returns the bounds of the point estimate, and an interval that holds for both ends. Horowitz and Manski (2000),
    J. Am. Stat. Assoc. 95:77-84, with the observed range standing in for the possible one.
    """
    if min(control.size, treatment.size) == 0:
        raise NotEnoughData("an arm reports nothing", "worst-case bounds", "at least one host in each")
    refuse_not_finite("worst-case bounds", control, treatment)
    low = min(float(control.min()), float(treatment.min()))
    high = max(float(control.max()), float(treatment.max()))
    least = welch(np.append(control, [high] * lost[0]), np.append(treatment, [low] * lost[1]))
    most = welch(np.append(control, [low] * lost[0]), np.append(treatment, [high] * lost[1]))
    below, above = least.interval(level), most.interval(level)
    return (
        Interval(low=least.difference, high=most.difference, level=level),
        Interval(
            low=least.difference if below is None else below.low,
            high=most.difference if above is None else above.high,
            level=level,
        ),
    )


def _fisher(lost: tuple[int, int], assigned: tuple[int, int], alternative: Literal["two-sided", "greater"]) -> float:
    table = np.array([[lost[1], assigned[1] - lost[1]], [lost[0], assigned[0] - lost[0]]])
    return float(stats.fisher_exact(table, alternative=alternative).pvalue)
