"""How far could hosts that were changed have drifted apart from the others without the change?

Rambachan and Roth (2023), A More Credible Approach to Parallel Trends, Review of Economic Studies 90:2555-2591,
section 2.4.1: from one period to the next after the change, at most M times as far as the furthest step before it.
Periods are gathered into blocks as long as there are periods after the change, or as the time before allows.

The interval is the union, over which step was the furthest and which way it went, of intervals whose two ends are
normal: each holds its ends with the confidence asked for, so the union does. It needs no optimiser and is wider than
the paper's conditional sets: by a tenth on their Medicaid example.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import t_quantile
from analysis.errors import NotEnoughData
from analysis.results import Interval
from analysis.retrospective.event_study import EventStudy

_Floats = NDArray[np.float64]
MAGNITUDES = (0.5, 1.0, 1.5, 2.0)
_GREATEST, _STEP = 10.0, 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """The effect asked for and each step before the change, as values with one covariance [effect, *steps].

    `reach` is how far off the effect is where every step after the change goes one unit the same way.
    """

    values: _Floats
    covariance: _Floats
    reach: float
    df: float
    block: int = 1  # periods that make a step

    def interval(self, magnitude: float, level: float) -> Interval:
        """Every effect that steps up to `magnitude` times the furthest before would allow."""
        quantile = t_quantile(level, self.df)
        low, high = math.inf, -math.inf
        for step in range(1, self.values.size):
            for way in (1.0, -1.0):
                parts = np.zeros(self.values.size)
                parts[0] = 1.0
                parts[step] = way * self.reach * magnitude
                error = quantile * math.sqrt(max(0.0, float(parts @ self.covariance @ parts)))
                end = float(parts @ self.values)
                low, high = min(low, end - error), max(high, end + error)
        return Interval(low=low, high=high, level=level)

    def breakdown(self, level: float) -> float:
        """The greatest magnitude at which the interval still leaves out 0; 0 where none does, at most 10."""
        for magnitude in np.arange(0.0, _GREATEST + _STEP / 2, _STEP):
            found = self.interval(float(magnitude), level)
            if found.low is not None and found.high is not None and found.low <= 0 <= found.high:
                return max(0.0, float(magnitude) - _STEP)
        return _GREATEST


def steps_of(values: _Floats, covariance: _Floats, before: int, weights: Sequence[float], df: float) -> Steps:
    """Turn event-study effects (`before` of them before the base, which is left out) into effect and steps.

    `weights` make the effect out of those after the change.
    """
    count = values.size
    rows = np.zeros((1 + before, count))
    rows[0, before:] = weights
    for place in range(before):  # the step to the next time, the last to the base, which is 0
        rows[1 + place, place] = -1.0
        if place + 1 < before:
            rows[1 + place, place + 1] = 1.0
    reach = float(np.abs(np.cumsum(np.asarray(weights)[::-1])).sum())
    return Steps(values=rows @ values, covariance=rows @ covariance @ rows.T, reach=reach, df=df)


def steps_before(study: EventStudy) -> Steps:
    """Gather an event study into blocks. Raises NotEnoughData where there are no two blocks before the change."""
    length = 1 + max((-1 - event for event in study.before), default=0)  # periods before, the base among them
    after = len(study.after)
    block = min(after, length // 2)
    if block < 1:
        raise NotEnoughData(
            "too few periods before and after the change that enough hosts have",
            "relative magnitudes",
            "give longer series",
        )
    blocks = length // block
    means = [study.combined({-place * block - 1 - at: 1 / block for at in range(block)}) for place in range(blocks)]
    whole = study.combined(dict.fromkeys(study.after, 1 / after))
    steps = [((later, 1.0), (earlier, -1.0)) for later, earlier in pairwise(means)]
    made = [((whole, 1.0), (means[0], -1.0)), *steps]
    values = np.array([sum(part * one.estimate for one, part in row) for row in made])
    influence = np.array([sum(part * one.influence for one, part in row) for row in made])
    reach = sum(1 + event // block for event in study.after) / after
    df = min(one.df for one in (whole, *means[1:]))
    if not df > 0:
        raise NotEnoughData("hosts do not differ in how they moved", "relative magnitudes", "nothing tells chance")
    return Steps(values=values, covariance=influence @ influence.T, reach=reach, df=df, block=block)
