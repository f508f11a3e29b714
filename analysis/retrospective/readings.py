"""The same change read otherwise: in ratios, late, at like levels, in the middle. No claim rests on one reading alone.

What is added to all hosts alike or multiplies them alike are two assumptions, and they part where changed hosts stand
higher or lower than the others (Roth and Sant'Anna 2023, When Is Parallel Trends Sensitive to Functional Form?,
Econometrica 91:737-747). Hosts that were chosen because they did badly do better afterwards whatever is done to them:
how much the unchanged ones of such a level moved tells by how much.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.contrast import Contrast
from analysis.halves import in_later_half
from analysis.inference import MIN_HOSTS
from analysis.retrospective.group_time import Functional, HostContrasts, host_contrasts
from analysis.retrospective.verdicts import RowKind

_Floats = NDArray[np.float64]
_TRIMMED = 0.25  # of the hosts on either side
_FEWEST = 8  # hosts on either side of a regression


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One reading of the effect, in the metric's own unit."""

    kind: RowKind
    contrast: Contrast
    method: str
    about: str = ""

    def parts_from(self, difference: float, level: float) -> bool:
        """Whether it leaves out this effect, and does not show one of its sign."""
        found = self.contrast.interval(level)
        if found is None or found.low is None or found.high is None:
            return False
        shows = found.low > 0 if difference > 0 else found.high < 0
        return not shows and not found.low <= difference <= found.high


def readings(contrasts: HostContrasts, main: Functional) -> Iterator[Reading]:
    """Read the effect `main` otherwise, where the data allow it."""
    if (later := _later(contrasts)) is not None:
        yield Reading(
            kind=RowKind.LATER, contrast=later.contrast(), method="the later half of each host's periods since"
        )
    if (ratio := _in_ratios(contrasts, main)) is not None:
        yield Reading(kind=RowKind.RATIOS, contrast=ratio, method="the same of logarithms")
    if (level := _at_level(contrasts, main)) is not None:
        yield Reading(kind=RowKind.LEVEL, contrast=level, method="regression on the level before, of unchanged hosts")
    if (middle := _middle(contrasts, main)) is not None:
        yield Reading(kind=RowKind.MIDDLE, contrast=middle, method="trimmed mean over hosts, after Yuen")


def _later(contrasts: HostContrasts) -> Functional | None:
    """The effect in the later half of each host's periods since; None where one period is all."""
    share = contrasts.over_groups()
    host, period = np.nonzero(share > 0)
    later = in_later_half(host, period)
    late = np.zeros_like(share)
    late[host[later], period[later]] = share[host[later], period[later]]
    late = np.divide(late, late.sum(axis=1, keepdims=True), where=late > 0, out=np.zeros_like(late))
    return contrasts.aggregate(late) if (late.sum(axis=1) > 0).sum() >= MIN_HOSTS else None


def _in_ratios(contrasts: HostContrasts, main: Functional) -> Contrast | None:
    """The effect had hosts moved by like ratios; None where a value is not above 0."""
    panel = contrasts.panel
    if not (panel.values[np.isfinite(panel.values)] > 0).all() or not main.level > 0:
        return None
    logs = host_contrasts(replace(panel, values=np.log(panel.values)), contrasts.controls, least=MIN_HOSTS)
    found = logs.aggregate(logs.over_groups())
    without = main.level * math.exp(-found.estimate)
    return _against(main, main.level - without, without**2 * found.variance, found.df)


def _at_level(contrasts: HostContrasts, main: Functional) -> Contrast | None:
    """The effect less what the changed hosts' level before foretells; None for few, or levels that do not differ.

    The regression is of unchanged hosts without gaps: their mean since, on their mean before.
    """
    panel, share = contrasts.panel, contrasts.over_groups()
    level = panel.values[:, : min(panel.starts)].mean(axis=1)  # NaN with a gap
    others = np.flatnonzero(~panel.changed & np.isfinite(panel.values).all(axis=1))
    used = np.flatnonzero((share.sum(axis=1) > 0) & np.isfinite(level))
    if min(others.size, used.size) < _FEWEST:
        return None
    apart = level[others] - level[others].mean()
    if not (square := float(apart @ apart)) > 0:
        return None
    of_host, influence = np.zeros(used.size), np.zeros(others.size)
    for start in panel.starts:
        mine = panel.start[used] == start
        at = (share[used[mine]] > 0).all(axis=0)
        if not (mine.any() and at.any()):
            return None
        after = panel.values[np.ix_(others, at)].mean(axis=1)
        slope = float(apart @ after) / square
        beyond = level[used[mine]] - level[others].mean()
        of_host[mine] = panel.values[np.ix_(used[mine], at)].mean(axis=1) - after.mean() - slope * beyond
        residual = after - after.mean() - slope * apart
        influence += mine.mean() * (1 / others.size + beyond.mean() * apart / square) * residual
    grow = others.size / (others.size - 2)
    variance = float(of_host.var(ddof=1) / used.size + grow * (influence @ influence))
    return _against(main, float(of_host.mean()), variance, min(others.size - 2, used.size - 1))


def _middle(contrasts: HostContrasts, main: Functional) -> Contrast | None:
    """The effect on the middle half of the changed hosts; None for few. Yuen (1974), Biometrika 61:165-170."""
    share = contrasts.over_groups()
    used = share.sum(axis=1) > 0
    of_host = (share[used] * np.where(share[used] > 0, contrasts.values[used], 0.0)).sum(axis=1)
    cut = int(_TRIMMED * of_host.size)
    left = of_host.size - 2 * cut
    if left < MIN_HOSTS or not main.df > 0:
        return None
    trimmed = np.sort(of_host)
    spread = np.clip(trimmed, trimmed[cut], trimmed[-cut - 1]).var(ddof=1)
    others = main.influence[~main.changed]
    variance = float(spread * (of_host.size - 1) / (left * (left - 1)) + others @ others)
    return _against(main, float(stats.trim_mean(of_host, _TRIMMED)), variance, min(main.df, left - 1))


def _against(main: Functional, difference: float, variance: float, df: float) -> Contrast:
    return Contrast(
        control=main.level - difference,
        treatment=main.level,
        control_variance=variance,
        treatment_variance=0.0,
        df=df,
        n_control=main.n_controls,
        n_treatment=main.n_changed,
    )
