"""Estimates within strata, combined with declared weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.welch import satterthwaite, welch

_Floats = NDArray[np.float64]


def within_strata(y: _Floats, treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> dict[str, Contrast]:
    """Welch's contrast inside each stratum that has two hosts of each arm."""
    out = {}
    for name in np.unique(strata).tolist():
        here = strata == name
        control, treatment = y[here & ~treated], y[here & treated]
        if min(control.size, treatment.size) >= 2:
            out[str(name)] = welch(control, treatment)
    return out


def combine(parts: Mapping[str, Contrast], weights: Mapping[str, float]) -> Contrast:
    """Combine independent strata: means and variances by weight, df by Satterthwaite over all cells.

    Weights are scaled to sum 1. Raises NotEnoughData without a stratum of positive weight.
    """
    used = [(part, weights.get(name, 0.0)) for name, part in parts.items() if weights.get(name, 0.0) > 0]
    total = sum(weight for _, weight in used)
    if not used:
        raise NotEnoughData("no stratum has both arms and a weight", "strata", "declare weights for the strata")
    if len(used) == 1:
        return used[0][0]
    shares = [weight / total for _, weight in used]
    rows = [part for part, _ in used]
    cells = [share**2 * row.control_variance for share, row in zip(shares, rows, strict=True)]
    cells += [share**2 * row.treatment_variance for share, row in zip(shares, rows, strict=True)]
    sizes = [row.n_control for row in rows] + [row.n_treatment for row in rows]
    return Contrast(
        control=sum(share * row.control for share, row in zip(shares, rows, strict=True)),
        treatment=sum(share * row.treatment for share, row in zip(shares, rows, strict=True)),
        control_variance=sum(cells[: len(rows)]),
        treatment_variance=sum(cells[len(rows) :]),
        df=satterthwaite(cells, [size - 1 for size in sizes]),
        n_control=sum(row.n_control for row in rows),
        n_treatment=sum(row.n_treatment for row in rows),
    )


def host_weights(strata: NDArray[np.str_]) -> dict[str, float]:
    """Weigh every stratum by its hosts."""
    names, counts = np.unique(strata, return_counts=True)
    return {str(name): float(count) for name, count in zip(names.tolist(), counts.tolist(), strict=True)}
