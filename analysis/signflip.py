"""Randomisation test of a switchback: what the mean contrast would be, had each block drawn the other order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite

EXACT_UP_TO = 20  # blocks: a million sign patterns, 8 MB
DRAWS = 100_000


def sign_flip_p(contrasts: NDArray[np.float64], seed: int, weights: NDArray[np.float64] | None = None) -> float:
    """Two-sided p of `no effect in any block`: the share of sign patterns with a sum at least as far from 0.

    Exact up to 20 blocks, from a seeded draw beyond (the observed pattern counted in, so never 0). `weights` make the
    sum that of an estimate that does not weigh blocks equally. Fisher (1935), The Design of Experiments, section 21.
    """
    if contrasts.size == 0:
        raise NotEnoughData("there is no block", "sign-flip test", "at least one")
    refuse_not_finite("sign-flip test", contrasts)
    steps = contrasts if weights is None else contrasts * weights
    observed = abs(steps.sum())
    near = observed * (1 - 1e-9)  # sums of the same numbers in another order differ in the last digits
    if steps.size <= EXACT_UP_TO:
        sums = steps[:1]  # the mirror image of every pattern has the same distance: half of them is enough
        for step in steps[1:]:
            sums = np.concatenate((sums + step, sums - step))
        return float(np.mean(np.abs(sums) >= near))
    draw = np.random.default_rng(seed)
    signs = draw.integers(0, 2, size=(DRAWS, steps.size), dtype=np.int8) * 2 - 1
    return float((1 + np.count_nonzero(np.abs(signs @ steps) >= near)) / (DRAWS + 1))
