"""`analyze`: from observations and plan to everything the data show."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.frame import check_plan, checked_observations, checked_periods, unusable
from analysis.meanings import Meanings, taken_apart
from analysis.parallel_findings import parallel_findings
from analysis.plan import AnalysisPlan, Crossing
from analysis.results import Findings
from analysis.switchback_findings import switchback_findings


def analyze(
    observations: pd.DataFrame,
    plan: AnalysisPlan,
    periods: pd.DataFrame | None = None,
    crossings: Sequence[Crossing] = (),
    *,
    calibration_runs: int = 0,
    meanings: Meanings | None = None,
) -> Findings:
    """Answer the plan from the observations of complete periods.

    `observations` has one row per period and metric with the columns period_id, host, arm, kind, block, attempt,
    position, seconds, metric, mean (and may have more: `earlier_half` and `later_half` are what the metric was in the
    halves of the period, for the tests whether the primary's effect fades and a guardrail's harm grows). `periods` has
    every period in whatever state with period_id, host, arm, kind, block, attempt, position, state, reason, to list and
    explain what was left out.
    `crossings` are tripwires for which hosts were taken out: their guardrail has failed, whatever the others measured.
    With `calibration_runs` a parallel design's primary is put to the A/A test on its own baseline: so many draws of
    the assignment. `meanings` tell what a metric really is on each host: where that differs among the hosts that
    measured it, each meaning is estimated by itself, and the metric is not. Equal input gives equal output: what is
    drawn comes from `plan.seed`. Raises BadPlan and BadObservations.
    """
    check_plan(plan)
    apart = taken_apart(checked_observations(observations, plan), plan, meanings or {})
    rows = checked_observations(apart.rows, apart.plan) if apart.mixed else apart.rows
    said = (*unusable(observations), *apart.sentences())
    if plan.design == "parallel":
        return parallel_findings(
            rows,
            apart.plan,
            checked_periods(periods),
            said,
            crossings,
            calibration_runs=calibration_runs,
            mixed=apart.mixed,
        )
    return switchback_findings(rows, apart.plan, checked_periods(periods), said, crossings, mixed=apart.mixed)
