"""Welch's comparison of the hosts' means, adjusted for nothing."""

from __future__ import annotations

from analysis.contrast import Contrast
from analysis.estimator import Estimator
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan
from analysis.results import EstimateKind
from analysis.welch import welch


def _estimate(sample: TwoArms, plan: AnalysisPlan, level: float) -> Contrast:
    return welch(*sample.arms(sample.y))


UNADJUSTED = Estimator(name=EstimateKind.UNADJUSTED, method="Welch t, unadjusted", estimate=_estimate)
