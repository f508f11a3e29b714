"""Welch's comparison after the tails were pulled in: what the effect would be were it not for a few hosts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.estimator import Estimator
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan
from analysis.results import EstimateKind
from analysis.validation import refuse_not_finite
from analysis.welch import welch

_Floats = NDArray[np.float64]
TAIL = 0.025  # winsorised on each side


def winsorised(control: _Floats, treatment: _Floats, reference: _Floats) -> Contrast:
    """Welch's contrast after values beyond the 2.5 % tails of `reference` (pooled pre-period) are pulled in."""
    if reference.size == 0:
        raise NotEnoughData("no value to take the tails from", "winsorised mean", "give a pre-period")
    refuse_not_finite("winsorised mean", control, treatment, reference)
    low, high = np.quantile(reference, (TAIL, 1 - TAIL))
    return welch(np.clip(control, low, high), np.clip(treatment, low, high))


def _estimate(sample: TwoArms, plan: AnalysisPlan, level: float) -> Contrast:
    known = np.isfinite(sample.before)
    return winsorised(*sample.arms(sample.y), sample.before[known] if known.any() else sample.y)


WINSORISED = Estimator(name=EstimateKind.WINSORISED, method="Welch t, winsorised at 2.5 % a side", estimate=_estimate)
