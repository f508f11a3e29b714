"""Welch's t of many assignments at once: how far apart chance alone would have put the arms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]


def welch_t(assignments: _Draws, y: _Floats) -> _Floats:
    """Welch's t of each assignment [draw, host]; arms without spread divide by a spread far below any other.

    Where a draw leaves an arm empty nothing can be compared: 0, no distance at all.
    """
    centred = y - y.mean()
    n = assignments.sum(axis=1)
    m = y.size - n
    total, squares = 0.0, float(centred @ centred)
    picked = assignments.astype(np.float64)
    sums, sums2 = picked @ centred, picked @ centred**2
    treatment, control = sums / np.maximum(n, 1), (total - sums) / np.maximum(m, 1)
    spread_t = np.maximum(sums2 - n * treatment**2, 0.0) / np.maximum(n - 1, 1) / np.maximum(n, 1)
    spread_c = np.maximum(squares - sums2 - m * control**2, 0.0) / np.maximum(m - 1, 1) / np.maximum(m, 1)
    floor = 1e-12 * squares / y.size + 1e-300
    t: _Floats = np.where((n > 0) & (m > 0), (treatment - control) / np.sqrt(spread_t + spread_c + floor), 0.0)
    return t
