"""Randomisation inference over hosts: how far apart chance alone would have put the arms, by the plan's own draw.

Without a replay, every host's arm is taken as drawn on its own, with the same odds within a stratum: given how many
hosts of a stratum came to each arm, every way to choose them was equally likely.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite
from analysis.replay import EXACT_UP_TO, Replay, WithinStrata

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]
DRAWS = 9_999
CHUNK_CELLS = 4_000_000


def possible_assignments(treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> int:
    """Count the assignments that the draw could have given, with these numbers of each arm in each stratum."""
    return WithinStrata(treated, strata).possible()


def randomisation_p(
    y: _Floats,
    treated: NDArray[np.bool_],
    strata: NDArray[np.str_],
    seed: int,
    draws: int = DRAWS,
    *,
    replay: Replay | None = None,
) -> float:
    """Two-sided p of `no effect on any host`, with Welch's t as the statistic.

    Exact where at most 20,000 assignments are possible, else from seeded draws with the real one counted in: never
    below 1 / (number of assignments), and never 0. Values may be residuals of anything fixed before assignment.
    Fisher (1935); Chung and Romano (2013), Ann. Statist. 41:484-507, on why the statistic is studentised.
    """
    if treated.all() or not treated.any():
        raise NotEnoughData("an arm is empty", "randomisation test", "at least one host in each")
    refuse_not_finite("randomisation test", y)
    mechanism = replay or WithinStrata(treated, strata)
    observed = float(_t(treated[np.newaxis], y)[0])
    near = abs(observed) * (1 - 1e-9)
    possible = mechanism.possible()
    if possible is not None and possible <= EXACT_UP_TO:
        every = np.array(list(mechanism.every()))
        return float(np.mean(np.abs(_t(every, y)) >= near))
    draw = np.random.default_rng(seed)
    as_far, left, made = 0, draws, 0
    while left:
        again = mechanism.redraw(min(left, max(1, CHUNK_CELLS // y.size)), draw)
        as_far += int(np.count_nonzero(np.abs(_t(again, y)) >= near))
        left, made = max(0, left - len(again)), made + len(again)
    return (1 + as_far) / (made + 1)


def redraw(treated: NDArray[np.bool_], strata: NDArray[np.str_], draws: int, draw: np.random.Generator) -> _Draws:
    """Draw assignments [draw, host] anew: within each stratum, as many treated as there were."""
    return WithinStrata(treated, strata).redraw(draws, draw)


def _t(assignments: _Draws, y: _Floats) -> _Floats:
    """Welch's t of each assignment; arms without spread divide by a spread far below any other.

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
