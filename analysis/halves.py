"""The later half of what each unit has in time: the one way in which it is cut, whatever the design."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def in_later_half(unit: NDArray[np.intp], order: NDArray[np.number]) -> NDArray[np.bool_]:
    """Whether each value belongs to the later half of its unit's by `order`; of an odd number the middle one does not.

    `unit` numbers the units from 0.
    """
    counts = np.bincount(unit)
    sorted_places = np.lexsort((order, unit))
    rank = np.empty(unit.size, dtype=np.intp)
    rank[sorted_places] = np.arange(unit.size) - (np.cumsum(counts) - counts)[unit[sorted_places]]
    late: NDArray[np.bool_] = rank >= (counts[unit] + 1) // 2
    return late
