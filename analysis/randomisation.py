"""Randomisation inference over hosts: how far apart chance alone would have put the arms, by the plan's own draw.

Every host's arm is drawn on its own, with the same odds within a stratum. Given how many hosts of a stratum came to
each arm, every way to choose them was equally likely: that is what is replayed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]
EXACT_UP_TO = 20_000
DRAWS = 9_999
CHUNK_CELLS = 4_000_000


def possible_assignments(treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> int:
    """Count the assignments that the draw could have given, with these numbers of each arm in each stratum."""
    return math.prod(
        math.comb(int((strata == name).sum()), int(treated[strata == name].sum())) for name in np.unique(strata)
    )


def randomisation_p(
    y: _Floats, treated: NDArray[np.bool_], strata: NDArray[np.str_], seed: int, draws: int = DRAWS
) -> float:
    """Two-sided p of `no effect on any host`, with Welch's t as the statistic.

    Exact where at most 20,000 assignments are possible, else from seeded draws with the real one counted in: never
    below 1 / (number of assignments), and never 0. Values may be residuals of anything fixed before assignment.
    Fisher (1935); Chung and Romano (2013), Ann. Statist. 41:484-507, on why the statistic is studentised.
    """
    if treated.all() or not treated.any():
        raise NotEnoughData("an arm is empty", "randomisation test", "at least one host in each")
    refuse_not_finite("randomisation test", y)
    observed = float(_t(treated[np.newaxis], y)[0])
    near = abs(observed) * (1 - 1e-9)
    if possible_assignments(treated, strata) <= EXACT_UP_TO:
        every = np.array(list(_every_assignment(treated, strata)))
        return float(np.mean(np.abs(_t(every, y)) >= near))
    draw = np.random.default_rng(seed)
    as_far, left = 0, draws
    while left:
        take = min(left, max(1, CHUNK_CELLS // y.size))
        as_far += int(np.count_nonzero(np.abs(_t(redraw(treated, strata, take, draw), y)) >= near))
        left -= take
    return (1 + as_far) / (draws + 1)


def redraw(treated: NDArray[np.bool_], strata: NDArray[np.str_], draws: int, draw: np.random.Generator) -> _Draws:
    """Draw assignments [draw, host] anew: within each stratum, as many treated as there were."""
    out = np.zeros((draws, treated.size), dtype=bool)
    for name in np.unique(strata):
        here = np.flatnonzero(strata == name)
        chosen = int(treated[here].sum())
        order = draw.random((draws, here.size)).argsort(axis=1)[:, :chosen]
        np.put_along_axis(out, here[order], True, axis=1)
    return out


def _every_assignment(treated: NDArray[np.bool_], strata: NDArray[np.str_]) -> Iterator[_Draws]:
    places = [np.flatnonzero(strata == name) for name in np.unique(strata)]
    for chosen in product(*(combinations(here.tolist(), int(treated[here].sum())) for here in places)):
        mask = np.zeros(treated.size, dtype=bool)
        mask[[place for part in chosen for place in part]] = True
        yield mask


def _t(assignments: _Draws, y: _Floats) -> _Floats:
    """Welch's t of each assignment; arms without spread divide by a spread far below any other."""
    centred = y - y.mean()
    n = assignments.sum(axis=1)
    m = y.size - n
    total, squares = 0.0, float(centred @ centred)
    picked = assignments.astype(np.float64)
    sums, sums2 = picked @ centred, picked @ centred**2
    treatment, control = sums / n, (total - sums) / m
    spread_t = np.maximum(sums2 - n * treatment**2, 0.0) / np.maximum(n - 1, 1) / n
    spread_c = np.maximum(squares - sums2 - m * control**2, 0.0) / np.maximum(m - 1, 1) / m
    floor = 1e-12 * squares / y.size + 1e-300
    t: _Floats = (treatment - control) / np.sqrt(spread_t + spread_c + floor)
    return t
