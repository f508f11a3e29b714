"""How a metric spreads before anything is launched; `analysis.rule_power` says what a rule makes of that."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.finite import refuse_not_finite

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """What pre-period data say of a metric: its mean, its host-to-host SD, and how well a pre-period foretells it.

    `values` are those that were measured, without what strata and arms differ by; () where they are not known.
    """

    mean: float
    sd: float
    correlation: float | None  # between two windows of the same hosts
    hosts: int
    values: tuple[float, ...] = ()

    @property
    def adjusted_sd(self) -> float:
        return self.sd if self.correlation is None else self.sd * math.sqrt(max(0.0, 1 - self.correlation**2))


def spread_of(later: _Floats, earlier: _Floats | None = None) -> Spread:
    """Measure the spread of hosts over a window, and how well an earlier window of the same hosts foretells it."""
    refuse_not_finite("power", later, *([] if earlier is None else [earlier]))
    if later.size < 3:
        raise NotEnoughData(f"{later.size} hosts give no spread", "power", "measure at least three hosts")
    correlation = None
    if earlier is not None and later.std() > 0 and earlier.std() > 0:
        correlation = float(np.clip(np.corrcoef(later, earlier)[0, 1], -1.0, 1.0))
    return Spread(mean=float(later.mean()), sd=float(later.std(ddof=1)), correlation=correlation, hosts=later.size)
