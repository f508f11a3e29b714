"""The inference that a row rests on: a t-test, and where units are few or skewed a randomisation test that must agree.

Both tests have to reject for a claim: the p-value is the larger of the two, the interval holds what either of them
does not refute. So p-value and interval of every row agree, at whatever level they are asked for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.randomisation_intervals import RedrawnTest
from analysis.results import Interval

_Floats = NDArray[np.float64]
MIN_HOSTS = 4  # in each arm, for a claim: 3 + 3 hosts cannot get below p = .10
FEW_UNITS = 20  # in an arm: below, a t-test alone makes no claim
SKEWED = 0.05  # skewness of the mean difference: beyond, a one-sided error at 5 % is off by half a point and more


@dataclass(frozen=True, slots=True, kw_only=True)
class Inference:
    """A contrast and the randomisation test beside it.

    `wanting` says that a randomisation test is needed and could not be made: then nothing is claimed.
    """

    contrast: Contrast
    drawn: RedrawnTest | None = None
    wanting: bool = False

    @property
    def difference(self) -> float:
        return self.contrast.difference

    def p_value(self) -> float | None:
        """Two-sided p of no effect; None where no test can be made."""
        p = self.contrast.p_value()
        if p is None or self.wanting:
            return None
        return p if self.drawn is None else max(p, self.drawn.p_value)

    def interval(self, level: float) -> Interval | None:
        """Every difference that one of the tests does not refute; None where no test can be made."""
        found = None if self.wanting else self.contrast.interval(level)
        return found if found is None or self.drawn is None else self.drawn.interval(found)

    def lift(self) -> float | None:
        """Relative difference; None where the control mean is not positive."""
        return self.contrast.lift() if self.contrast.control > 0 else None

    def lift_interval(self, level: float) -> Interval | None:
        """Every relative difference that one of the tests does not refute.

        None where no test can be made, and where the control mean is not clearly positive at this level: Fieller's
        set is then unbounded, and a relative change has no meaning.
        """
        if self.wanting or self.contrast.control <= 0:
            return None
        fieller = self.contrast.lift_interval(level)
        if fieller is None or not fieller.bounded:
            return None
        return fieller if self.drawn is None else self.drawn.lift_interval(fieller)


def skewness(control: _Floats, treatment: _Floats) -> float:
    """Skewness of the difference of means: how far off a one-sided t-test is (Hall 1992, The Bootstrap, section 2.6).

    Third moments over the squares of the arms' sizes, over the standard error's cube. 0 without any spread.
    """
    rest = [side - side.mean() for side in (control, treatment)]
    variance = sum(float(side @ side) / max(side.size - 1, 1) / side.size for side in rest)
    if not variance > 0:
        return 0.0
    thirds = [float((side**3).mean()) / side.size**2 for side in rest]
    return float((thirds[1] - thirds[0]) / math.sqrt(variance) ** 3)


def is_delicate(control: _Floats, treatment: _Floats) -> bool:
    """Whether a t-test alone is not to be trusted: few units in an arm, or a skewed difference."""
    return min(control.size, treatment.size) < FEW_UNITS or abs(skewness(control, treatment)) > SKEWED


def without_rounding(inference: Inference) -> Inference:
    """Take a mean that is all rounding (an adjusted mean of zeros beside large values) for the 0 that it stands for."""
    contrast = inference.contrast
    floor = 1e-12 * max(abs(contrast.control), abs(contrast.treatment))
    if min(abs(contrast.control), abs(contrast.treatment)) > floor:
        return inference
    clean = replace(
        contrast,
        control=contrast.control if abs(contrast.control) > floor else 0.0,
        treatment=contrast.treatment if abs(contrast.treatment) > floor else 0.0,
    )
    return replace(inference, contrast=clean)
