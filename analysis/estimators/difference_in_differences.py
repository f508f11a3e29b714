"""Each host's change since its pre-period, compared by arm."""

from __future__ import annotations

import numpy as np

from analysis.estimator import Estimator, Shift
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan
from analysis.results import EstimateKind
from analysis.welch import welch


def _estimate(sample: TwoArms, plan: AnalysisPlan, level: float) -> Shift | None:
    if not np.isfinite(sample.before).all():
        return None
    gained = welch(*sample.arms(sample.y - sample.before))
    return Shift(
        difference=gained.difference,
        interval=gained.interval(level),
        p_value=gained.p_value(),
        standard_error=gained.standard_error,
        df=gained.df,
    )


DIFFERENCE_IN_DIFFERENCES = Estimator(
    name=EstimateKind.DIFFERENCE_IN_DIFFERENCES, method="difference in differences", estimate=_estimate
)
