"""The differences inside matched pairs, where arms were drawn so."""

from __future__ import annotations

from analysis.contrast import Contrast
from analysis.estimator import Estimator
from analysis.hosts import TwoArms
from analysis.matched import matched_pairs, pair_contrast
from analysis.plan import AnalysisPlan
from analysis.results import EstimateKind


def _estimate(sample: TwoArms, plan: AnalysisPlan, level: float) -> Contrast | None:
    pairs = matched_pairs(sample, plan)
    return None if pairs is None else pair_contrast(sample.y[pairs.control], sample.y[pairs.treatment])


MATCHED_PAIRS = Estimator(name=EstimateKind.MATCHED_PAIRS, method="paired t on matched pairs", estimate=_estimate)
