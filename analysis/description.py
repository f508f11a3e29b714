"""What the arms of a rollout measured, side by side, where nobody drew lots: no difference is put down to the arm."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd

from analysis.estimates import no_estimate
from analysis.frame import checked_observations, checked_periods, unusable
from analysis.hosts import HostTable
from analysis.parallel_findings import scope_of
from analysis.plan import AnalysisPlan, Role
from analysis.results import ArmDecision, Cause, Decision, Estimate, Findings
from analysis.wording import decision_sentence

METHOD = "means side by side"
NO_CLAIM = "the hosts of the arms were chosen, not drawn: they may differ for any other reason"


def described(observations: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame) -> Findings:
    """Return the means of each arm's hosts after the change, without a test; the decision is always inconclusive.

    Frames as `analysis.analyze` takes them. Raises BadObservations where a column or name is missing.
    """
    rows = checked_observations(observations, plan)
    table = HostTable(rows, plan, checked_periods(periods))
    said = list(unusable(observations))
    estimates: list[Estimate] = []
    arms: list[ArmDecision] = []
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    for treatment in (arm for arm in plan.arms if arm != plan.control):
        for metric in plan.metrics:
            sample = table.two_arms(metric, treatment)
            if min(sample.sizes) == 0:
                said.append(f"{metric.name}, {treatment}: unavailable, an arm has no host with it")
                continue
            control, treated = sample.arms(sample.y)
            estimates.append(
                no_estimate(
                    metric,
                    treatment=treatment,
                    control=plan.control,
                    estimand="mean over hosts",
                    method=METHOD,
                    sizes=sample.sizes,
                    means=(float(control.mean()), float(treated.mean())),
                    reason=NO_CLAIM,
                )
            )
        found = ArmDecision(
            arm=treatment,
            decision=Decision.INCONCLUSIVE,
            cause=Cause.NOT_RANDOMISED,
            scope=scope_of(rows, table, primary, treatment, plan),
        )
        arms.append(replace(found, sentence=decision_sentence(found, None, None, (), plan.alpha)))
    reason = "; ".join(arm.sentence if len(arms) == 1 else f"{arm.arm}: {arm.sentence}" for arm in arms)
    return Findings(
        decision=Decision.INCONCLUSIVE,
        reason=f"{reason}.",
        estimates=tuple(estimates),
        guardrails=(),
        checks=(),
        contrasts=(),
        excluded=(),
        alpha=plan.alpha,
        warnings=tuple(said),
        arms=tuple(arms),
    )
