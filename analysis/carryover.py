"""Does what a period measured depend on the arm before it? Then the switchback compared mixtures."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from analysis.plan import MetricPlan
from analysis.results import Check

THRESHOLD = 0.01
LEAST_DF = 3


def carry_over(rows: pd.DataFrame, metric: MetricPlan, before: Mapping[int, str]) -> Check:
    """Test the previous arm's part in a period's value, beside block, arm and place in the block.

    `rows` holds the used measure periods of the metric; `before` the arm that ran before each. A least-squares F-test
    of the lag terms; not testable with fewer than 3 degrees of freedom left over.
    """
    name = f"carry-over ({metric.name})"
    data = rows[rows["metric"] == metric.name].assign(before=lambda frame: frame["period_id"].map(before))
    data = data[data["before"].notna()]
    if data.empty or metric.denominator is not None:
        return Check(name=name, passed=None, p_value=None, detail="No period has a measured one before it.")
    place = data.groupby(["host", "block", "attempt"])["position"].rank().to_numpy(dtype=np.float64)
    blocks = data["host"].astype(str) + "\0" + data["block"].astype(str)
    ones = np.ones((len(data), 1))
    without = np.hstack((ones, _dummies(blocks), _dummies(data["arm"]), place[:, np.newaxis]))
    full = np.hstack((without, _dummies(data["before"])))
    y = data["mean"].to_numpy(dtype=np.float64)
    y = y - y.mean()
    rank_without, rest_without = _fit(without, y)
    rank_full, rest_full = _fit(full, y)
    lags, df = rank_full - rank_without, len(y) - rank_full
    if lags == 0 or df < LEAST_DF:
        return Check(name=name, passed=None, p_value=None, detail="Too few blocks to tell; more blocks are needed.")
    if rest_full <= 1e-18 * float(y @ y):
        return Check(name=name, passed=None, p_value=None, detail="The values do not vary: nothing to test.")
    p = float(stats.f.sf((rest_without - rest_full) / lags / (rest_full / df), lags, df))
    if p < THRESHOLD:
        detail = f"Values depend on the arm before (p = {p:.2g}): use a longer washout. The effect is a mixture."
        return Check(name=name, passed=False, p_value=p, detail=detail)
    detail = f"No sign that a period depends on the arm before it (p = {p:.2g}, {df} degrees of freedom)."
    return Check(name=name, passed=True, p_value=p, detail=detail)


def _dummies(labels: pd.Series) -> NDArray[np.float64]:
    codes, levels = pd.factorize(labels, sort=True)
    return np.eye(len(levels))[codes][:, 1:]


def _fit(design: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[int, float]:
    solution, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    rest = y - design @ solution
    return int(rank), float(rest @ rest)
