"""What a period measured because of the arm before it: an estimate with its interval, or that none can be made.

A carry-over test that finds nothing says little: with a few blocks it would miss most of what there is. Freeman (1989),
The performance of the two-stage analysis of two-treatment, two-period crossover trials, Stat. Med. 8:1421-1432.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import t_quantile
from analysis.plan import MetricPlan
from analysis.results import Check, Estimate, EstimateKind, Interval
from analysis.validation import finite_estimate

THRESHOLD = 0.01
LEAST_DF = 2
CARRY_OVER = "what the arm before adds to a period"


@dataclass(frozen=True, slots=True, kw_only=True)
class CarryOver:
    """What one arm leaves behind for the period after it, against the control. `standard_error` None: not testable.

    `lasting` is what must be added to the mean contrast for arms that are kept: there every period has its own arm
    before it, in the switchback only some have.
    """

    effect: float | None
    standard_error: float | None
    df: float
    lasting: float = 0.0
    lasting_variance: float = 0.0

    def p_value(self) -> float | None:
        if self.effect is None or not self.standard_error:
            return None
        return float(2 * stats.t.sf(abs(self.effect) / self.standard_error, self.df))

    def interval(self, level: float) -> Interval | None:
        if self.effect is None or not self.standard_error:
            return None
        half = t_quantile(level, self.df) * self.standard_error
        return Interval(low=self.effect - half, high=self.effect + half, level=level)


NOT_TESTABLE = CarryOver(effect=None, standard_error=None, df=0.0)


def carry_over(
    rows: pd.DataFrame,
    metric: MetricPlan,
    before: Mapping[int, str],
    pair: tuple[str, str],
    *,
    together: bool = False,
) -> CarryOver:
    """Estimate the previous arm's part in a period's value, beside block, arm and place in the block.

    `rows` holds the used measure periods; `before` the arm that ran before each, of any arm of the plan. By least
    squares; not testable with fewer than 2 degrees of freedom left over. Hosts that change arms `together` share what
    a time brings: their mean is one value.
    """
    control, treatment = pair
    data = _values(rows, metric)
    data = data.assign(before=data["period_id"].map(before))
    data = data[data["before"].notna()]
    if together:
        data = data.groupby(["block", "attempt", "arm", "before"], as_index=False)[["position", "value"]].mean()
        data = data.assign(host="")
    if data.empty:
        return NOT_TESTABLE
    arms = [arm for arm in sorted({*data["arm"], *data["before"]}) if arm != control]
    if treatment not in arms:
        return NOT_TESTABLE
    place = data.groupby(["host", "block", "attempt"])["position"].rank().to_numpy(dtype=np.float64)
    block = np.asarray(data.groupby(["host", "block"]).ngroup(), dtype=np.intp)
    now = [(data["arm"] == arm).to_numpy(dtype=np.float64) for arm in arms]
    lag = [(data["before"] == arm).to_numpy(dtype=np.float64) for arm in arms]
    value = data["value"].to_numpy(dtype=np.float64)
    design = _within(np.column_stack((place, *now, *lag)), block)
    y = _within((value - value.mean())[:, np.newaxis], block)[:, 0]
    gram = design.T @ design
    inverse = np.linalg.pinv(gram, rcond=1e-10, hermitian=True)
    solution = inverse @ (design.T @ y)
    df = len(y) - int(block.max() + 1) - int(np.linalg.matrix_rank(gram, tol=1e-8, hermitian=True))
    wanted = np.zeros(design.shape[1])
    wanted[1 + len(arms) + arms.index(treatment)] = 1.0
    estimable = np.allclose(wanted @ inverse @ gram, wanted, atol=1e-6)
    if df < LEAST_DF or not estimable:
        return NOT_TESTABLE
    rest = y - design @ solution
    scatter = float(rest @ rest) / df
    variance = scatter * float(wanted @ inverse @ wanted)
    effect = float(solution @ wanted)
    if scatter <= 1e-18 * float(value @ value) / len(value):  # no spread beyond the model: nothing to measure with
        variance = 0.0
    own = [float((data.loc[data["arm"] == arm, "before"] == treatment).mean()) for arm in pair]
    factor = 1 - (own[1] - own[0])  # the contrast holds this much less of it than arms that are kept
    return CarryOver(
        effect=effect,
        standard_error=float(np.sqrt(variance)),
        df=float(df),
        lasting=factor * effect,
        lasting_variance=factor**2 * variance,
    )


def carry_over_check(found: CarryOver, metric: MetricPlan, treatment: str) -> Check:
    """Judge the carry-over of one treatment: shown beyond doubt, the contrast is a mixture. Else never 'none'."""
    name = f"carry-over ({metric.name}, {treatment})"
    p = found.p_value()
    if p is None or found.effect is None or found.standard_error is None:
        exact = found.effect is not None and found.standard_error == 0
        said = "The values do not vary: nothing to test." if exact else "Not testable: more blocks are needed."
        return Check(name=name, passed=None, p_value=None, detail=said)
    interval = found.interval(0.95)
    assert interval is not None and interval.low is not None and interval.high is not None  # noqa: S101 - it has an error
    size = f"{found.effect:+.3g} [{interval.low:+.3g}, {interval.high:+.3g}] {metric.unit}".rstrip()
    if p < THRESHOLD:
        detail = f"The arm before adds {size} (p = {p:.2g}): use a longer washout. The effect is a mixture."
        return Check(name=name, passed=False, p_value=p, detail=detail)
    return Check(
        name=name, passed=True, p_value=p, detail=f"The arm before adds {size}; within this it is not excluded."
    )


def carry_over_row(found: CarryOver, headline: Estimate, level: float) -> Estimate:
    """The carry-over as a row beside the headline."""
    p, interval = found.p_value(), found.interval(level)
    return finite_estimate(
        Estimate(
            metric=headline.metric,
            unit=headline.unit,
            role=headline.role,
            treatment=headline.treatment,
            control=headline.control,
            estimand=CARRY_OVER,
            method="least squares on block, arm, place and the arm before",
            n_control=headline.n_control,
            n_treatment=headline.n_treatment,
            control_mean=None,
            treatment_mean=None,
            difference=found.effect,
            difference_interval=interval,
            lift=None,
            lift_interval=None,
            standard_error=found.standard_error,
            df=found.df or None,
            p_value=p,
            kind=EstimateKind.CARRY_OVER,
            warnings=() if found.effect is not None else ("not testable: more blocks are needed",),
        )
    )


def _values(rows: pd.DataFrame, metric: MetricPlan) -> pd.DataFrame:
    """One row per period with the metric's value; of a ratio, its parts divided within the period."""
    own = rows[rows["metric"] == metric.name]
    columns = ["period_id", "host", "block", "attempt", "arm", "position"]
    if metric.denominator is None:
        return own[columns].assign(value=own[metric.statistic])
    below = rows[rows["metric"] == metric.denominator].set_index("period_id")["mean"]
    divisor = own["period_id"].map(below)
    return own[columns].assign(value=(own["mean"] / divisor).where(divisor > 0)).dropna(subset=["value"])


def _within(columns: NDArray[np.float64], block: NDArray[np.intp]) -> NDArray[np.float64]:
    """Columns less their means in each block: the same as a coefficient for each block, without its columns."""
    counts = np.bincount(block)
    means = np.column_stack([np.bincount(block, weights=column) / counts for column in columns.T])
    centred: NDArray[np.float64] = columns - means[block]
    return centred
