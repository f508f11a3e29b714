"""How a metric spreads before anything is launched; `analysis.rule_power` says what a rule makes of that."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
