"""Effects by group and time, each change against hosts that have none yet: staggered starts bias nothing.

Callaway and Sant'Anna (2021), Difference-in-Differences with Multiple Time Periods, Journal of Econometrics
225:200-230, without covariates. A host's change since the last period before its start is set against the mean change
of the controls over the same periods. Every aggregate is a weighted sum of these contrasts of hosts, and its error
comes from each host's influence on it, all its periods together: errors are clustered by host.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from analysis.contrast import Contrast
from analysis.errors import NotEnoughData
from analysis.retrospective.panel import Panel, refuse_without_both
from analysis.welch import wary_df

_Floats = NDArray[np.float64]
_Bools = NDArray[np.bool_]
_Key = tuple[int, int]  # start, last period before it that was measured


class Controls(StrEnum):
    """Whom hosts are compared with."""

    NEVER = "never"  # hosts that were not changed in any period
    NOT_YET = "not_yet"  # those, and hosts before their own change


@dataclass(frozen=True, slots=True, kw_only=True)
class Functional:
    """An estimate, how each host moves it [host] (its variance is the sum of squares), and what it is made from.

    `level` is what the changed hosts measured (in the same weights), with the influence on that; `n_controls` how many
    there were in the period that had fewest.
    """

    estimate: float
    influence: _Floats
    changed: _Bools  # which hosts were ever changed
    n_changed: int
    n_controls: int
    level: float = 0.0
    level_influence: _Floats | None = None

    @property
    def variance(self) -> float:
        return float(self.influence @ self.influence)

    @property
    def df(self) -> float:
        """Degrees of freedom (`wary_df`) of the parts that changed hosts and others have.

        0 for one changed host: nothing shows how much such hosts differ.
        """
        moved = [part[part != 0] for part in (self.influence[self.changed], self.influence[~self.changed])]
        parts = [part for part in moved if part.size > 1]
        if self.n_changed < 2 or not parts:
            return 0.0
        return wary_df([float(part @ part) for part in parts], [part.size for part in parts])

    def contrast(self) -> Contrast:
        """Return the effect as a contrast of what was measured with what would have been without the change."""
        influence = np.zeros_like(self.influence) if self.level_influence is None else self.level_influence
        without = influence - self.influence
        return Contrast(
            control=self.level - self.estimate,
            treatment=self.level,
            control_variance=float(without @ without),
            treatment_variance=float(influence @ influence),
            covariance=float(without @ influence),
            df=self.df,
            n_control=self.n_controls,
            n_treatment=self.n_changed,
        )

    def p_value(self) -> float | None:
        """Two-sided p of no effect; None without any spread."""
        return self.contrast().p_value()

    @property
    def t(self) -> float:
        """Estimate over its standard error; 0 without any spread."""
        return self.estimate / math.sqrt(self.variance) if self.variance > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HostContrasts:
    """Each changed host's change less the mean change of its controls: `values` [host, period].

    NaN where either is not known, and for hosts that were not changed. `weights` [host] say how much a control counts.
    """

    panel: Panel
    controls: Controls
    values: _Floats
    base: NDArray[np.int64]  # [host] the period that changes are counted from, -1 where there is none
    weights: _Floats

    def aggregate(self, share: _Floats, *, corrected: bool = True) -> Functional:
        """Return the sum of `share` [host, period] times the contrasts, its shares scaled to sum to 1.

        `corrected` scales each host's influence for the mean that was taken from the same hosts (n / (n - 1)); the
        published formulas do without. Raises NotEnoughData where no contrast has a share.
        """
        usable = np.where(np.isfinite(self.values), share, 0.0)
        total = usable.sum()
        if not total > 0:
            raise NotEnoughData("no changed host has values before and after", "panel", "give longer series")
        usable = usable / total
        filled = np.where(usable > 0, self.values, 0.0)
        estimate = float((usable * filled).sum())
        of_host = usable.sum(axis=1)
        used = of_host > 0
        n = int(used.sum())
        scale = math.sqrt(n / (n - 1)) if corrected and n > 1 else 1.0
        influence = scale * ((usable * filled).sum(axis=1) - of_host * estimate)
        measured = (usable * np.where(usable > 0, self.panel.values, 0.0)).sum(axis=1)
        level = float(measured.sum())
        level_influence = scale * (measured - of_host * level)
        fewest = self.panel.hosts
        for key, mask, change in self._cells():
            mine = (self.panel.start == key[0]) & (self.base == key[1])
            weight = usable[mine].sum(axis=0)  # [period]
            if not weight.any():
                continue
            at = np.flatnonzero(weight)
            count = mask[:, at].sum(axis=0)
            counted = np.where(mask[:, at], self.weights[:, np.newaxis], 0.0)
            counted = counted / counted.sum(axis=0)
            centred = np.where(mask[:, at], change[:, at], 0.0)
            centred = np.where(mask[:, at], centred - (counted * centred).sum(axis=0), 0.0)
            grow = np.sqrt(count / np.maximum(count - 1, 1)) if corrected else 1.0
            influence -= (weight[at] * grow * counted * centred).sum(axis=1)
            fewest = min(fewest, int(count.min()))
        return Functional(
            estimate=estimate,
            influence=influence,
            changed=self.panel.changed,
            n_changed=n,
            n_controls=fewest,
            level=level,
            level_influence=level_influence,
        )

    def _cells(self) -> Iterator[tuple[_Key, _Bools, _Floats]]:
        yield from _cells(self.panel, self.base, self.controls)

    def over_groups(self) -> _Floats:
        """Shares that weigh every changed host alike, and each of its periods since the change alike."""
        after = np.isfinite(self.values) & (np.arange(self.panel.periods) >= self.panel.start[:, np.newaxis])
        counts = after.sum(axis=1, keepdims=True)
        return np.where(after, 1 / np.maximum(counts, 1), 0.0)

    def at_event(self, event: int) -> _Floats:
        """Shares that weigh alike every changed host's period that is `event` periods after its start."""
        at = np.arange(self.panel.periods) - self.panel.start[:, np.newaxis] == event
        return np.where(at & self.panel.changed[:, np.newaxis], 1.0, 0.0)

    def in_cell(self, start: int, period: int) -> _Floats:
        """Shares of one group-time effect: hosts changed in `start`, in `period`."""
        share = np.zeros_like(self.values)
        share[self.panel.start == start, period] = 1.0
        return share


def host_contrasts(
    panel: Panel, controls: Controls, weights: _Floats | None = None, *, least: int = 2
) -> HostContrasts:
    """Set each changed host's change against its controls'. `weights` [host] of the controls; None: all alike.

    Periods in which fewer than `least` controls are left bear no contrast. Raises NotEnoughData where no host was
    changed or none is left to compare with.
    """
    refuse_without_both(panel)
    weights = np.ones(panel.hosts) if weights is None else weights
    base = _bases(panel)
    values = np.full_like(panel.values, np.nan)
    most = 0
    for key, mask, change in _cells(panel, base, controls):
        most = max(most, int(mask.sum(axis=0).max()))
        counted = np.where(mask, weights[:, np.newaxis], 0.0)
        sums = np.where(mask.sum(axis=0) >= least, counted.sum(axis=0), 0.0)
        mean = np.divide((counted * np.where(mask, change, 0.0)).sum(axis=0), sums, where=sums > 0, out=sums * np.nan)
        mine = (panel.start == key[0]) & (base == key[1])
        values[mine] = change[mine] - mean
    if 0 < most < least:
        raise NotEnoughData(
            f"{most} hosts were not changed and have values, of at least {least} to compare with",
            "panel",
            "add hosts that were not changed",
        )
    return HostContrasts(panel=panel, controls=controls, values=values, base=base, weights=weights)


def _bases(panel: Panel) -> NDArray[np.int64]:
    """Each changed host's last period before its start that has a value; -1 for none, and for hosts not changed."""
    before = np.isfinite(panel.values) & (np.arange(panel.periods) < panel.start[:, np.newaxis])
    last = np.where(before.any(axis=1), panel.periods - 1 - np.argmax(before[:, ::-1], axis=1), -1)
    return np.where(panel.changed, last, -1)


def _cells(panel: Panel, base: NDArray[np.int64], controls: Controls) -> Iterator[tuple[_Key, _Bools, _Floats]]:
    """For each start and base: who is a control in which period [host, period], and every host's change since."""
    never = ~panel.changed
    known = np.isfinite(panel.values)
    period = np.arange(panel.periods)
    for start, last in sorted({(int(s), int(b)) for s, b in zip(panel.start, base, strict=True) if b >= 0}):
        if controls is Controls.NEVER:
            who = np.broadcast_to(never[:, np.newaxis], known.shape)
        else:  # not changed at the later of the two periods
            who = (panel.start[:, np.newaxis] > np.maximum(period, last)) & (panel.start != start)[:, np.newaxis]
        change = panel.values - panel.values[:, [last]]
        yield (start, last), who & known & known[:, [last]], change
