"""Matched pairs: the difference inside each pair is what the coin decided, so its spread is the one that counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.assignment_method import find_method
from analysis.contrast import Contrast
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatchedPairs:
    """The pairs of which both hosts report: places of control and treatment in the sample; how many do not."""

    control: NDArray[np.intp]
    treatment: NDArray[np.intp]
    broken: int

    def differences(self, values: _Floats) -> _Floats:
        """Treatment minus control in each pair."""
        out: _Floats = values[self.treatment] - values[self.control]
        return out


def matched_pairs(sample: TwoArms, plan: AnalysisPlan) -> MatchedPairs | None:
    """Find the pairs of a sample; None where the plan has none, or fewer than two are whole."""
    pair_of = {unit.host: unit.pair for unit in plan.units}
    if not find_method(plan.method).paired:
        return None
    members: dict[str, dict[bool, int]] = {}
    for place, host in enumerate(sample.hosts.tolist()):
        if pair := pair_of.get(str(host), ""):
            members.setdefault(pair, {})[bool(sample.treated[place])] = place
    whole = [sides for _, sides in sorted(members.items()) if len(sides) == 2]
    if len(whole) < 2:
        return None
    return MatchedPairs(
        control=np.array([sides[False] for sides in whole], dtype=np.intp),
        treatment=np.array([sides[True] for sides in whole], dtype=np.intp),
        broken=len(members) - len(whole),
    )


def pair_contrast(control: _Floats, treatment: _Floats) -> Contrast:
    """Compare the two sides of pairs: paired t, the lift with the sides' covariance.

    Imai (2008), Statist. Med. 27:4857-4873: the variance of the mean difference is estimated from the differences.
    """
    n = control.size
    spread = np.cov(control, treatment) / n
    return Contrast(
        control=float(control.mean()),
        treatment=float(treatment.mean()),
        control_variance=float(spread[0, 0]),
        treatment_variance=float(spread[1, 1]),
        covariance=float(spread[0, 1]),
        df=n - 1.0,
        n_control=n,
        n_treatment=n,
    )
