"""What an estimator is: a further way to ask what a treatment did, a row beside the headline, never the result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from analysis.contrast import Contrast
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan
from analysis.registry import installed, ours
from analysis.results import EstimateKind, Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """A difference with an interval or test of its own, which the errors of two means don't give.

    None: not known. `means`: of control and treatment, where they are not the headline's.
    """

    difference: float
    interval: Interval | None
    p_value: float | None = None
    standard_error: float | None = None
    df: float | None = None
    means: tuple[float, float] | None = None


# Given the hosts of two arms, the plan and the confidence level of intervals; None where the data don't allow it.
Estimation: TypeAlias = Callable[[TwoArms, AnalysisPlan, float], Contrast | Shift | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """A way to estimate the effect on the primary metric of a parallel design, declared at the top of its module.

    `method`: how the report names it. Of a ratio of the whole fleet nothing is asked.
    """

    name: str
    method: str
    estimate: Estimation

    @property
    def kind(self) -> EstimateKind:
        """What its rows are stored as."""
        return self.name if isinstance(self.name, EstimateKind) else EstimateKind.SENSITIVITY


@cache
def estimators() -> Mapping[str, Estimator]:
    """Return every estimator by its name; fleetexp's own keep theirs."""
    own = ours("estimators", Estimator)
    return own | installed("estimators", Estimator) | own
