"""Counters added up, or one alone: the sum must fall where one of them does, though its total may go on rising."""

from __future__ import annotations

import math
from collections.abc import Mapping

_STEPS_AT_MOST = 10.0


class SummedCounter:
    """Adds up what each series rose by from one reading to the next, from the first reading of a period on.

    One that is not on a page rose by nothing, and is remembered: exporters leave some out at times. Where all are new
    at once another process counts now: the sum began anew. A new one beside others began at 0 if it stands no higher
    than a few of the largest steps seen so far; else it brings a history along, and counts from here on.
    """

    def __init__(self) -> None:
        self._before: dict[str, float] = {}
        self._created: dict[str, float] = {}
        self._largest_step = 1.0
        self._total: float | None = None

    def add(self, parts: Mapping[str, float], created: Mapping[str, float] | None = None) -> tuple[float, str]:
        """Return the sum, and the series that fell, '' for none. Then the sum falls too, as a counter begun anew.

        `created`: when each began, as far as it is told. One that began later than before has fallen, to 0 at least,
        wherever it stands by now.
        """
        began = created or {}
        total = sum(parts.values()) if self._total is None else self._total
        replaced = self._total is not None and not parts.keys() & self._before.keys()
        fell, fallen_by = next(iter(parts), "") if replaced else "", 0.0
        for series, value in parts.items():
            before = self._before.get(series)
            if self._total is None:
                continue
            if before is None:
                total += value if 0 <= value <= _STEPS_AT_MOST * self._largest_step else 0.0
            elif value < before or began.get(series, 0.0) > self._created.get(series, math.inf):
                fell, fallen_by = fell or series, fallen_by + max(before - value, 0.0)
            else:
                total += value - before
                self._largest_step = max(self._largest_step, value - before)
        if fell and self._total is not None:  # rises of others must not hide it
            total = min(self._total - fallen_by, math.nextafter(self._total, -math.inf))
        self._before.update(parts)
        self._created.update(began)
        self._total = total
        return total, fell
