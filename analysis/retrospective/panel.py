"""One metric as a matrix of hosts and periods, with the period from which each host was changed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.errors import BadObservations, NotEnoughData

_Floats = NDArray[np.float64]
_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]
LARGEST = 1e70  # degrees of freedom are quotients of fourth powers


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Values [host, period] of one metric, NaN where there is none; periods stand in the order of time.

    `start` [host] is the first period in which the host was changed, counted from 0; the number of periods says that
    it was not changed in any of them. A host that was changed in the first one has nothing before, and no place here.
    `settled` [host], where it is given, is the first period that counts after the start: between them no value is due.
    """

    values: _Floats
    start: _Ints
    settled: _Ints | None = None

    def __post_init__(self) -> None:
        hosts, periods = self.values.shape
        if self.start.shape != (hosts,):
            raise BadObservations("starts and hosts differ in number", "panel", "give one start a host")
        if hosts and not (self.start.min() >= 1 and self.start.max() <= periods):
            raise BadObservations(
                "a host was changed before the first period, or long after the last",
                "panel, start",
                "leave out hosts that have nothing before their change",
            )
        if (np.abs(self.values) > LARGEST).any():
            raise BadObservations(f"a value is beyond {LARGEST:g}", "panel", "give NaN where there is none")

    @property
    def hosts(self) -> int:
        return int(self.values.shape[0])

    @property
    def periods(self) -> int:
        return int(self.values.shape[1])

    @property
    def changed(self) -> _Bools:
        """Which hosts were changed within the periods [host]."""
        return self.start < self.periods

    @property
    def starts(self) -> tuple[int, ...]:
        """The periods in which hosts were changed, in order."""
        return tuple(int(start) for start in np.unique(self.start[self.changed]))

    @property
    def settling(self) -> _Bools:
        """Where no value is due, between a host's change and the first period that counts [host, period]."""
        period = np.arange(self.periods)
        settled = self.start if self.settled is None else self.settled
        return (period >= self.start[:, np.newaxis]) & (period < settled[:, np.newaxis])

    def of(self, hosts: _Bools | _Ints) -> Panel:
        """Return the panel of these hosts."""
        settled = None if self.settled is None else self.settled[hosts]
        return replace(self, values=self.values[hosts], start=self.start[hosts], settled=settled)

    def until(self, period: int) -> Panel:
        """Return the panel of the periods before this one: hosts changed later count as not changed."""
        return replace(self, values=self.values[:, :period], start=np.minimum(self.start, period))


def refuse_without_both(panel: Panel) -> None:
    """Raise NotEnoughData where no host was changed, or nothing is left to compare with."""
    if not panel.changed.any():
        raise NotEnoughData("no host was changed within the periods", "panel", "give hosts that were, and when")
    if panel.changed.all() and len(panel.starts) < 2:
        raise NotEnoughData(
            "every host was changed at the same time: there is nothing to compare with",
            "panel",
            "add hosts that were not changed, or were later",
        )
