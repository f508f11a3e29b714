"""What the buckets of a histogram rose by over a period, from one reading to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping

from agents.histograms.buckets import UnusableHistogram, merged

Buckets = Mapping[float, float]  # upper bound -> observations up to it since the exporter began


class HistogramIncrease:
    """Adds up what each series rose by since the first reading in which it was.

    A series that is not in a reading rose by nothing. One whose counts fall has begun anew, and what it counted before
    that is lost: the histogram has no increase any more.
    """

    def __init__(self) -> None:
        self._first: dict[str, Buckets] = {}
        self._last: dict[str, Buckets] = {}
        self._created: dict[str, float] = {}
        self._lost: UnusableHistogram | None = None

    def add(self, series: Mapping[str, Buckets], created: Mapping[str, float] | None = None) -> None:
        """Take a reading, its series each by what it is known by; UnusableHistogram, once, where one began anew.

        `created`: when each began, as far as it is told: one that began later than before has begun anew, wherever its
        counts stand by now.
        """
        if self._lost is not None:
            return
        began = created or {}
        for name, buckets in series.items():
            before = self._last.get(name, buckets)
            if buckets.keys() != before.keys():
                self._lost = UnusableHistogram(
                    f"the buckets of {name} have changed", "let no deployment fall into a measured period"
                )
            elif began.get(name, 0.0) > self._created.get(name, math.inf) or any(
                buckets[bound] < count for bound, count in before.items()
            ):
                self._lost = UnusableHistogram(f"{name} began anew", "let no restart fall into a measured period")
            self._first.setdefault(name, buckets)
            self._last[name] = buckets
        self._created.update(began)
        if self._lost is not None:
            raise self._lost

    def total(self) -> dict[float, float]:
        """Return the increase of all series together; UnusableHistogram where one began anew, or bounds differ."""
        if self._lost is not None:
            raise self._lost
        return merged(
            {bound: count - self._first[name][bound] for bound, count in buckets.items()}
            for name, buckets in self._last.items()
        )
