"""The median of all differences between hosts of two arms: what the effect would be were it not for heavy tails."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.errors import NotEnoughData
from analysis.estimator import Estimator, Shift
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan
from analysis.results import EstimateKind, Interval
from analysis.validation import refuse_not_finite

_Floats = NDArray[np.float64]
EXACT_UP_TO = 49  # hosts an arm, as in R's wilcox.test
ALL_PAIRS_UP_TO = 4_000_000


def hodges_lehmann(control: _Floats, treatment: _Floats, level: float) -> tuple[float, Interval, float]:
    """Median of all treatment-control differences, the interval that inverts Mann-Whitney, and its p.

    Hodges and Lehmann (1963), Ann. Math. Statist. 34:598-611; interval and p as in R's wilcox.test: exact ranks
    below 50 hosts an arm, the normal approximation beyond. Tied values count against a difference in both, so that
    interval and p agree and neither claims more than it would without ties.
    """
    m, n = treatment.size, control.size
    if min(m, n) == 0:
        raise NotEnoughData("an arm is empty", "Hodges-Lehmann", "at least one host in each")
    refuse_not_finite("Hodges-Lehmann", control, treatment)
    pairs = m * n
    critical = _critical_rank(m, n, 1 - level)
    rank = max(1, critical)
    middle = ((pairs + 1) // 2, pairs // 2 + 1)
    wanted = (*middle, rank, pairs - rank + 1)
    if pairs <= ALL_PAIRS_UP_TO:
        differences = np.sort(np.subtract.outer(treatment, control), axis=None)
        found = [float(differences[place - 1]) for place in wanted]
    else:
        found = [_ranked_difference(np.sort(control), treatment, place) for place in wanted]
    ordered = np.sort(control)
    not_above = pairs - int(np.searchsorted(ordered, treatment, side="left").sum())
    not_below = int(np.searchsorted(ordered, treatment, side="right").sum())
    p = _rank_p(min(not_above, not_below), m, n)
    unbounded = critical < 1  # so few hosts that no rank is rare enough
    interval = Interval(low=None if unbounded else found[2], high=None if unbounded else found[3], level=level)
    return (found[0] + found[1]) / 2, interval, p


def _critical_rank(m: int, n: int, alpha: float) -> int:
    """Rank of the difference that bounds the interval: R's qwilcox(alpha / 2, m, n)."""
    if max(m, n) <= EXACT_UP_TO:
        cumulative = np.cumsum(_rank_sum_shares(min(m, n), max(m, n)))
        return int(np.searchsorted(cumulative, alpha / 2 * (1 - 1e-12)))
    spread = np.sqrt(m * n * (m + n + 1) / 12)
    return int(np.floor(m * n / 2 + 0.5 - stats.norm.ppf(1 - alpha / 2) * spread))


def _rank_p(smaller: int, m: int, n: int) -> float:
    """Two-sided p of the smaller of both counts of pairs."""
    if max(m, n) <= EXACT_UP_TO:
        return min(1.0, 2 * float(sum(_rank_sum_shares(min(m, n), max(m, n))[: smaller + 1])))
    spread = np.sqrt(m * n * (m + n + 1) / 12)
    return min(1.0, 2 * float(stats.norm.cdf((smaller + 0.5 - m * n / 2) / spread)))


@lru_cache(maxsize=64)
def _rank_sum_shares(m: int, n: int) -> tuple[float, ...]:
    """Distribution of Mann-Whitney's U: coefficients of the Gaussian binomial, over their sum."""
    counts = np.zeros(m * n + 1)
    counts[0] = 1.0
    for step in range(1, m + 1):
        up, down = n + step, step
        raised = counts.copy()
        raised[up:] -= counts[:-up] if up <= m * n else 0.0
        for start in range(down, m * n + 1):  # divide by (1 - q^down)
            raised[start] += raised[start - down]
        counts = raised
    return tuple((counts / counts.sum()).tolist())


def _ranked_difference(control: _Floats, treatment: _Floats, rank: int) -> float:
    """The difference of that rank, by bisection on its value: for arms whose pairs would not fit in memory."""
    low = float(treatment.min() - control[-1])
    high = float(treatment.max() - control[0])
    for _ in range(100):
        middle = (low + high) / 2
        if middle in {low, high}:
            break
        # pairs with treatment - control <= middle
        below = control.size * treatment.size - int(np.searchsorted(control, treatment - middle, side="left").sum())
        low, high = (low, middle) if below >= rank else (middle, high)
    return high


def _estimate(sample: TwoArms, plan: AnalysisPlan, level: float) -> Shift:
    difference, interval, p = hodges_lehmann(*sample.arms(sample.y), level)
    return Shift(difference=difference, interval=interval, p_value=p)


HODGES_LEHMANN = Estimator(
    name=EstimateKind.HODGES_LEHMANN, method="Hodges-Lehmann shift, Mann-Whitney test", estimate=_estimate
)
