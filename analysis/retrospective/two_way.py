"""Host and period effects in one regression, errors clustered by host: right where all were changed at one time.

With staggered starts its weights may be negative and its estimate biased (Goodman-Bacon 2021, Journal of Econometrics
225:254-277): then it is shown beside the estimate that counts, never in its place.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.retrospective.panel import Panel

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_SETTLED, _MOST_ROUNDS = 1e-12, 10_000


def clustered_covariance(x: _Floats, residual: _Floats, cluster: _Ints, *, columns: int | None = None) -> _Floats:
    """Covariance of least-squares coefficients, errors in one cluster correlated in any way.

    `x` [row, column]; scaled by G / (G - 1) x (N - 1) / (N - K), `columns` is K where `x` does not show them all.
    Liang and Zeger (1986), Biometrika 73:13-22; Cameron and Miller (2015), Journal of Human Resources 50:317-372.
    """
    rows, shown = x.shape
    bread = np.linalg.inv(x.T @ x)
    names, place = np.unique(cluster, return_inverse=True)
    scores = np.zeros((names.size, shown))
    np.add.at(scores, place, x * residual[:, np.newaxis])
    scale = names.size / (names.size - 1) * (rows - 1) / (rows - (columns or shown))
    covariance: _Floats = scale * bread @ scores.T @ scores @ bread
    return covariance


def two_way(panel: Panel) -> tuple[float, float]:
    """Return the coefficient of 'changed by now' and its standard error, host and period effects taken out.

    Host effects lie within clusters and use up no degrees of freedom. Raises NotEnoughData where nothing varies.
    """
    known = np.isfinite(panel.values)
    by_now = (np.arange(panel.periods) >= panel.start[:, np.newaxis]).astype(np.float64)
    y, x = (_without_effects(np.where(known, one, 0.0), known) for one in (panel.values, by_now))
    spread = float((x * x).sum())
    if spread < _SETTLED:
        raise NotEnoughData("host and period effects explain who was changed", "two-way regression", "add hosts")
    slope = float((x * y).sum()) / spread
    host = np.broadcast_to(np.arange(panel.hosts)[:, np.newaxis], known.shape)
    covariance = clustered_covariance(
        x[known][:, np.newaxis], (y - slope * x)[known], host[known], columns=1 + panel.periods
    )
    return slope, float(np.sqrt(covariance[0, 0]))


def _without_effects(values: _Floats, known: NDArray[np.bool_]) -> _Floats:
    """Take out host and period means by turns until nothing is left of them."""
    out = values.copy()
    counts = [np.maximum(known.sum(axis=axis, keepdims=True), 1) for axis in (1, 0)]
    largest = np.abs(values).max(initial=0.0) or 1.0
    for _ in range(_MOST_ROUNDS):
        moved = 0.0
        for axis, count in zip((1, 0), counts, strict=True):
            mean = out.sum(axis=axis, keepdims=True) / count
            out = np.where(known, out - mean, 0.0)
            moved = max(moved, float(np.abs(mean).max(initial=0.0)))
        if moved < _SETTLED * largest:
            break
    return out
