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
from analysis.plan import AnalysisPlan, MetricPlan
from analysis.replay import Replay, WithinStrata, replay_of

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
