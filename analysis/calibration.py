"""A/A calibration: draw arms anew over hosts that were all under control, and count how often the headline cries wolf.

It is the headline's own estimator that is tried, its pre-period and its randomisation test included, on real data: the
measurement of the control's hosts, or, where the baseline has several periods, its later half on all hosts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.adjustment import independent_columns
from analysis.assignment_redraws import DRAWS, Replay, WithinStrata, replay_of
from analysis.errors import NotEnoughData
from analysis.frame import check_plan, checked_observations, metric_label
from analysis.headline import Redraws, covariates_of, headline
from analysis.hosts import HostTable, TwoArms
from analysis.inference import MIN_HOSTS, is_delicate
from analysis.plan import AnalysisPlan, MetricPlan, Role
from analysis.randomisation import welch_t
from analysis.results import Check

RUNS = 1_000
SPLIT, CONTROLS = "the baseline, split in two", "the measurement of the control hosts"
BAND = 0.99  # the binomial band's confidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """One metric's false-positive rate over re-drawn A/A comparisons, with the band that chance allows it.

    Few assignments give few p-values: the band is around the largest rate at or below alpha that they can reach.
    """

    metric: str
    runs: int
    false_positives: int
    low: float
    high: float
    alpha: float
    hosts: int
    basis: str  # SPLIT or CONTROLS

    @property
    def rate(self) -> float:
        return self.false_positives / self.runs

    @property
    def calibrated(self) -> bool:
        """Whether the rate is not above what chance allows."""
        return self.rate <= self.high


def calibrate(observations: pd.DataFrame, plan: AnalysisPlan, runs: int = RUNS) -> tuple[Calibration, ...]:
    """Run the plan's own estimator under `runs` fresh draws on data without a treatment, each metric by itself.

    The arms keep their shares. Metrics without enough hosts for 4 + 4 are left out; raises NotEnoughData where none is
    left.
    """
    check_plan(plan)
    rows = checked_observations(observations, plan)
    treatment = next(arm for arm in plan.arms if arm != plan.control)
    out = []
    for metric in plan.metrics:
        sample, basis = _without_treatment(rows, metric, plan, treatment)
        if min(sample.sizes) >= MIN_HOSTS and sample.y.std() > 0:
            replay = replay_of(sample, plan) if basis == SPLIT else None
            out.append(calibrate_sample(sample, metric, plan.alpha, plan.seed, runs, replay=replay, basis=basis))
    if not out:
        raise NotEnoughData(
            f"no metric has {2 * MIN_HOSTS} hosts under control", "A/A calibration", "take more hosts as control"
        )
    return tuple(out)


def calibration_check(rows: pd.DataFrame, plan: AnalysisPlan, runs: int = RUNS) -> Check:
    """Put the primary's estimator to the A/A test on the run's own data: does it raise alarms at alpha?

    `rows` are checked observations. Not testable with fewer than 4 + 4 hosts that were not treated.
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
        f"Arms drawn anew {found.runs:,} times over {found.basis} ({found.hosts} hosts): false alarms in "
        f"{found.rate:.1%}, at alpha {found.alpha:.1%} chance allows {found.low:.1%} to {found.high:.1%}."
    )
    return Check(name=name, passed=found.calibrated, p_value=None, detail=detail)


def calibrate_sample(
    sample: TwoArms,
    metric: MetricPlan,
    alpha: float,
    seed: int,
    runs: int = RUNS,
    *,
    replay: Replay | None = None,
    basis: str = "",
) -> Calibration:
    """Count how often the headline estimator finds p < alpha when the arms are drawn anew over the same values."""
    mechanism = replay or WithinStrata(sample.treated, sample.strata)
    possible = mechanism.possible()
    if possible is not None and possible <= runs:
        draws = np.array(list(mechanism.every()))
        tried = draws
    else:
        draws = mechanism.redraw(max(runs, DRAWS), np.random.default_rng(seed))
        tried = draws[:runs]
    columns = independent_columns(covariates_of(sample)[0])
    rest = sample.y - sample.y.mean()
    rest = rest - columns @ (columns.T @ rest)
    delicate = is_delicate(*sample.arms(rest))
    drawn_p = _ranks(draws, rest)[: len(tried)] if delicate else np.zeros(len(tried))
    none = Redraws(plan=AnalysisPlan(design="parallel", control="", arms=(), metrics=()))
    found = 0
    for treated, of_draws in zip(tried, drawn_p.tolist(), strict=True):
        p = headline(replace(sample, treated=treated), metric, none, claims=False).inference.p_value()
        found += p is not None and max(p, of_draws) < alpha
    reachable = alpha
    if delicate and possible is not None:
        reachable = 2 * int(alpha * possible / 2) / possible
    low, high = (float(end) / len(tried) for end in stats.binom.interval(BAND, len(tried), reachable))
    return Calibration(
        metric=metric_label(metric),
        runs=len(tried),
        false_positives=found,
        low=0.0 if delicate else low,
        high=high if reachable > 0 else 0.0,
        alpha=alpha,
        hosts=sample.y.size,
        basis=basis,
    )


def _ranks(draws: NDArray[np.bool_], rest: NDArray[np.float64]) -> NDArray[np.float64]:
    """Two-sided, equal-tailed p of each draw among all of them."""
    t = welch_t(draws, rest)
    ordered = np.sort(t)
    slack = 1e-9 * (1 + np.abs(t))
    at_most = np.searchsorted(ordered, t + slack, side="right") / t.size
    at_least = 1 - np.searchsorted(ordered, t - slack, side="left") / t.size
    both: NDArray[np.float64] = np.minimum(1.0, 2 * np.minimum(at_most, at_least))
    return both


def _without_treatment(
    rows: pd.DataFrame, metric: MetricPlan, plan: AnalysisPlan, treatment: str
) -> tuple[TwoArms, str]:
    """A sample of untreated hosts: both halves of the baseline, or the control's hosts parted as the arms are."""
    baseline = rows[rows["kind"] == "baseline"]
    periods = baseline.drop_duplicates("period_id").groupby("host")["period_id"].nunique()
    if len(periods) and periods.min() >= 2:
        order = baseline.groupby("host")["position"].rank(method="dense")
        early = order <= baseline["host"].map(periods) / 2
        later = baseline.assign(kind=np.where(early, "baseline", "measure"))
        return HostTable(later, plan).two_arms(metric, treatment), SPLIT
    sample = HostTable(rows, plan).two_arms(metric, treatment)
    share = sample.sizes[1] / max(sum(sample.sizes), 1)
    control = sample.only(~sample.treated)
    draw = np.random.default_rng(plan.seed)
    treated = np.zeros(control.y.size, dtype=np.bool_)
    for name in np.unique(control.strata):
        here = np.flatnonzero(control.strata == name)
        treated[draw.permutation(here)[: round(share * here.size)]] = True
    return replace(control, treated=treated), CONTROLS
