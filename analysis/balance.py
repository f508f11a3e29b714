"""How unlike two arms are in what hosts were before: the rule by which a draw is accepted or drawn again.

The design draws by it and the inference replays it, so both ask here. Morgan and Rubin (2012), Rerandomization to
improve covariate balance in experiments, Ann. Statist. 40:1263-1282.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.errors import BadPlan
from analysis.plan import BalanceRule

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]


class Balance:
    """Covariates [host, k] of all hosts that are assigned, prepared for one rule."""

    def __init__(self, covariates: _Floats, rule: BalanceRule) -> None:
        if covariates.ndim != 2 or not np.isfinite(covariates).all() or covariates.size == 0:
            raise BadPlan("a host has no number to balance on", "balance", "leave that host or that covariate out")
        centred = covariates - covariates.mean(axis=0)
        scale = centred.std(axis=0, ddof=1) if len(centred) > 1 else np.zeros(centred.shape[1])
        varies = scale > 1e-12 * np.abs(covariates).max(axis=0)
        scaled = centred[:, varies] / scale[varies]
        self._squared = rule.accept is not None
        if rule.accept is not None:
            # Whitened: the squared distance of two means is then Mahalanobis', and columns that follow are dropped.
            left, values, _ = np.linalg.svd(scaled, full_matrices=False)
            rank = int((values > 1e-9 * values.max(initial=0.0)).sum()) if values.size else 0
            scaled = left[:, :rank] * np.sqrt(max(len(centred) - 1, 1))
            self.threshold = float(stats.chi2.ppf(rule.accept, rank)) if rank else 0.0
        elif rule.largest_difference is not None:
            self.threshold = rule.largest_difference
        else:
            raise BadPlan("no rule says which draw is balanced", "balance", "give accept or largest_difference")
        self._columns: _Floats = scaled

    def distances(self, treated: _Draws, among: _Draws) -> _Floats:
        """Distance between treated and control of each draw: `treated` is [draw, host], `among` the hosts of both."""
        columns = self._columns[among]
        picked = treated[:, among].astype(np.float64)
        n = picked.sum(axis=1)
        m = columns.shape[0] - n
        sums = picked @ columns
        with np.errstate(divide="ignore", invalid="ignore"):
            gap = sums / n[:, np.newaxis] - (columns.sum(axis=0) - sums) / m[:, np.newaxis]
            if self._squared:
                found = n * m / (n + m) * np.einsum("ij,ij->i", gap, gap)
            else:
                found = np.abs(gap).max(axis=1, initial=0.0)
        return np.where((n > 0) & (m > 0), found, np.inf)

    def accepts(self, distances: _Floats) -> _Draws:
        # The limit itself is in, whatever rounding the order of the sum leaves.
        accepted: _Draws = distances <= self.threshold * (1 + 1e-9) + 1e-12
        return accepted
