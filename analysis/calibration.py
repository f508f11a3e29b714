"""A/A calibration: re-draw the assignment over real pre-period data, again and again, and count the false alarms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from analysis.errors import NotEnoughData
from analysis.frame import check_plan, checked_observations, metric_label
from analysis.headline import headline
from analysis.hosts import HostTable, TwoArms
from analysis.plan import AnalysisPlan, MetricPlan, Role
from analysis.replay import Replay, WithinStrata, replay_of
from analysis.results import Check

RUNS = 1_000
BAND = 0.99  # the binomial band's confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One metric's false-positive rate over re-drawn A/A comparisons, with the band that chance allows it."""

    metric: str
    runs: int
    false_positives: int
    low: float
    high: float
    alpha: float

    @property
    def rate(self) -> float:
        return self.false_positives / self.runs

    @property
    def calibrated(self) -> bool:
        """Whether the rate is not above what chance allows."""
        return self.rate <= self.high


def calibrate(observations: pd.DataFrame, plan: AnalysisPlan, runs: int = RUNS) -> tuple[Calibration, ...]:
    """Run the plan's own estimator on the baseline periods under `runs` fresh draws, each metric by itself.

    The arms keep their numbers in each stratum. Metrics without a baseline on 4 + 4 hosts are left out; raises
    NotEnoughData where none is left.
    """
    check_plan(plan)
    rows = checked_observations(observations, plan)
    table = HostTable(_as_outcome(rows), plan)
    treatment = next(arm for arm in plan.arms if arm != plan.control)
    out = []
    for metric in plan.metrics:
        sample = table.two_arms(metric, treatment)
        if min(sample.sizes) >= 4 and sample.y.std() > 0:
            replay = replay_of(sample, plan, treatment)
            out.append(calibrate_sample(sample, metric, plan.alpha, plan.seed, runs, replay=replay))
    if not out:
        raise NotEnoughData("no metric has a baseline on 4 + 4 hosts", "A/A calibration", "run a baseline first")
    return tuple(out)


def calibration_check(rows: pd.DataFrame, plan: AnalysisPlan, runs: int = RUNS) -> Check:
    """Put the primary's estimator to the A/A test on the plan's own baseline: does it raise alarms at alpha?

    `rows` are checked observations. Not testable where the baseline has fewer than 4 + 4 hosts.
    """
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    name = "A/A calibration" if primary is None else f"A/A calibration ({metric_label(primary)})"
    if primary is None:
        return Check(name=name, passed=None, p_value=None, detail="There is no primary metric.")
    try:
        (found,) = calibrate(rows, replace(plan, metrics=(primary,), guardrails=()), runs)
    except NotEnoughData as error:
        return Check(name=name, passed=None, p_value=None, detail=f"Not tested: {error.what}.")
    detail = (
        f"Arms drawn anew over the baseline {found.runs:,} times: false alarms in {found.rate:.1%}, "
        f"at alpha {found.alpha:.1%} chance allows {found.low:.1%} to {found.high:.1%}."
    )
    return Check(name=name, passed=found.calibrated, p_value=None, detail=detail)


def calibrate_sample(
    sample: TwoArms, metric: MetricPlan, alpha: float, seed: int, runs: int = RUNS, *, replay: Replay | None = None
) -> Calibration:
    """Count how often the headline estimator finds p < alpha when the arms are drawn anew over the same values."""
    mechanism = replay or WithinStrata(sample.treated, sample.strata)
    draws = mechanism.redraw(runs, np.random.default_rng(seed))
    runs = len(draws)
    found = 0
    for treated in draws:
        p = headline(replace(sample, treated=treated), metric).contrast.p_value()
        found += p is not None and p < alpha
    low, high = (float(end) / runs for end in stats.binom.interval(BAND, runs, alpha))
    return Calibration(metric=metric_label(metric), runs=runs, false_positives=found, low=low, high=high, alpha=alpha)


def _as_outcome(rows: pd.DataFrame) -> pd.DataFrame:
    """The baseline in the place of the measurement."""
    return rows[rows["kind"] == "baseline"].assign(kind="measure")
