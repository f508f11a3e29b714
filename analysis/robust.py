"""What the result would be were it not for heavy tails: Hodges-Lehmann, a winsorised mean, a bootstrap."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.results import Interval
from analysis.validation import refuse_not_finite
from analysis.welch import welch

_Floats = NDArray[np.float64]
EXACT_UP_TO = 49  # hosts an arm, as in R's wilcox.test
ALL_PAIRS_UP_TO = 4_000_000
TAIL = 0.025  # winsorised on each side
BOOTSTRAP_FROM = 20
BOOTSTRAP_UP_TO = 5_000
RESAMPLES = 2_000


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


def winsorised(control: _Floats, treatment: _Floats, reference: _Floats) -> Contrast:
    """Welch's contrast after values beyond the 2.5 % tails of `reference` (pooled pre-period) are pulled in."""
    if reference.size == 0:
        raise NotEnoughData("no value to take the tails from", "winsorised mean", "give a pre-period")
    refuse_not_finite("winsorised mean", control, treatment, reference)
    low, high = np.quantile(reference, (TAIL, 1 - TAIL))
    return welch(np.clip(control, low, high), np.clip(treatment, low, high))


def bca(control: _Floats, treatment: _Floats, level: float, seed: int) -> Interval | None:
    """Bias-corrected bootstrap interval of the difference; None below 20 hosts an arm, where it under-covers.

    Efron (1987), J. Am. Stat. Assoc. 82:171-185.
    """
    if min(control.size, treatment.size) < BOOTSTRAP_FROM or control.size + treatment.size > BOOTSTRAP_UP_TO:
        return None
    refuse_not_finite("bootstrap", control, treatment)
    if not control.std() + treatment.std() > 0:
        return None
    found = stats.bootstrap(
        (treatment, control),
        lambda t, c, axis: t.mean(axis=axis) - c.mean(axis=axis),
        n_resamples=RESAMPLES,
        batch=200,
        vectorized=True,
        confidence_level=level,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    if not (np.isfinite(found.low) and np.isfinite(found.high)):
        return None
    return Interval(low=float(found.low), high=float(found.high), level=level)


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
