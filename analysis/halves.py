"""The later half of what each unit has in time: the one way in which it is cut, whatever the design."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def in_later_half(unit: NDArray[np.intp], order: NDArray[np.number]) -> NDArray[np.bool_]:
    """Whether each value belongs to the later half of its unit's moments; of an odd number the middle one does not.

    `unit` numbers the units from 0, `order` the moments of each: values of one moment are in one half.
    """
    sorted_places = np.lexsort((order, unit))
    units, moments = unit[sorted_places], order[sorted_places]
    new = np.ones(unit.size, dtype=np.bool_)
    new[1:] = (units[1:] != units[:-1]) | (moments[1:] != moments[:-1])
    counts = np.bincount(units[new])
    late = np.empty(unit.size, dtype=np.bool_)
    late[sorted_places] = np.cumsum(new) - 1 - (np.cumsum(counts) - counts)[units] >= (counts[units] + 1) // 2
    return late
