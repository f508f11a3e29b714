"""Randomisation tests that can be turned into intervals: every effect that drawing the arms again does not refute.

A parallel design draws the arms of hosts again, a switchback the order of its blocks. The null is sharp: a constant
added to (a shift), or a factor on (a scale), what each unit would have read under control. Both are linear in one
parameter, so that the sums of every draw are made once, and each further effect costs a line of arithmetic.
Fisher (1935), The Design of Experiments; Rosenbaum (2002), Observational Studies, section 2.6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.errors import NotEnoughData
from analysis.results import Interval
from analysis.validation import refuse_not_finite

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]
BISECTIONS = 26  # an end is known to a part in 10^7 of the first step that went too far
FARTHEST_RATIO = 30.0  # of treatment to control, as a logarithm
FLIPS_EXACT_UP_TO = 16  # units: 32,768 sign patterns, mirror images left out
FLIPS = 19_999
CHUNK_CELLS = 4_000_000

# The shares of draws in which the statistic is at least, and at most, what was observed; at an effect.
_Shares = Callable[[float], tuple[float, float]]


class RedrawnTest(Protocol):
    """A randomisation test of one effect. Both sides are judged alone: each end of an interval is a one-sided bound."""

    @property
    def p_value(self) -> float:
        """Two-sided p of no effect on any unit: twice the smaller side."""
        ...

    def interval(self, within: Interval) -> Interval:
        """`within`, and every shift beyond it that is not refuted at its level."""
        ...

    def lift_interval(self, within: Interval) -> Interval | None:
        """The same for relative effects; None where a factor makes no sense (values around 0)."""
        ...


@dataclass(frozen=True, kw_only=True)
class HostDraws:
    """The arms of hosts drawn again; the statistic is Welch's t of sum(top) / sum(bottom), or of means (bottom 1).

    `draws` is [draw, host], True for the treatment; `counted_in` says that the real assignment is not among them and
    counts once more (Monte Carlo). `basis` [host, k] are orthonormal centred columns fixed before the assignment, of
    which the values are cleaned (with a bottom of ones only).
    """

    top: _Floats
    bottom: _Floats
    treated: _Draws
    draws: _Draws
    counted_in: bool
    basis: _Floats

    def __post_init__(self) -> None:
        if self.treated.all() or not self.treated.any():
            raise NotEnoughData("an arm is empty", "randomisation test", "at least one host in each")
        refuse_not_finite("randomisation test", self.top, self.bottom)

    @cached_property
    def p_value(self) -> float:
        return _two_sided(self._shift(0.0))

    def interval(self, within: Interval) -> Interval:
        low, high = (
            None if end is None else self._end(self._shift, end, side, within.level, step=self._spread)
            for side, end in ((-1, within.low), (1, within.high))
        )
        return Interval(low=low, high=high, level=within.level)

    def lift_interval(self, within: Interval) -> Interval | None:
        control, treatment = self._means
        if control <= 0 or treatment < 0 or within.low is None or within.high is None:
            return None

        def at(log_ratio: float) -> tuple[float, float]:
            return self._scale(math.exp(-log_ratio))

        low: float | None = None
        if within.low > -1:
            start = math.log1p(within.low)
            low = self._end(at, start, -1, within.level, step=0.05, farthest=FARTHEST_RATIO)
        if within.high <= -1:  # nothing is left of it: no factor is any smaller
            return Interval(low=min(within.low, -1.0), high=within.high, level=within.level)
        high = self._end(at, math.log1p(within.high), 1, within.level, step=0.05, farthest=FARTHEST_RATIO)
        return Interval(
            low=min(within.low, -1.0) if low is None else math.expm1(low),
            high=None if high is None else math.expm1(high),
            level=within.level,
        )

    def _end(
        self, shares: _Shares, start: float, side: int, level: float, *, step: float, farthest: float = math.inf
    ) -> float | None:
        smallest = 1 / (len(self.draws) + self.counted_in)
        farthest = min(farthest, abs(start) + 1e12 * step)
        return _end(shares, start, side, level, step=step, smallest=smallest, farthest=farthest)

    @cached_property
    def _means(self) -> tuple[float, float]:
        z = self.treated
        return (
            float(self.top[~z].sum() / self.bottom[~z].sum()),
            float(self.top[z].sum() / self.bottom[z].sum()),
        )

    @cached_property
    def _spread(self) -> float:
        return float(self.top.std() / self.bottom.mean() / math.sqrt(self.top.size)) or 1.0

    @cached_property
    def _shift(self) -> _Shares:
        return self._family(self.top, -self.bottom * self.treated)

    @cached_property
    def _scale(self) -> _Shares:
        return self._family(self.top * ~self.treated, self.top * self.treated)

    def _family(self, fixed: _Floats, moving: _Floats) -> _Shares:
        """Shares of draws on either side, for values `fixed + s * moving`."""
        u, v, b = self._cleaned(fixed), self._cleaned(moving), self.bottom
        if (b == 1).all():
            return self._of_means(u, v)
        columns = np.column_stack((u, v, u * u, u * v, v * v, b, u * b, v * b, b * b))
        totals = columns.sum(axis=0)
        sums = np.concatenate([part @ columns for part in self._picked()])
        n = np.concatenate([part.sum(axis=1) for part in self._picked()])
        observed = self.treated.astype(np.float64)[np.newaxis]
        own_sums, own_n = observed @ columns, observed.sum(axis=1)
        hosts = float(self.top.size)

        def shares(s: float) -> tuple[float, float]:
            t = _studentised(sums, n, totals, hosts, s)
            own = float(_studentised(own_sums, own_n, totals, hosts, s)[0])
            slack = 1e-9 * (1 + abs(own))
            more, less = float(np.count_nonzero(t >= own - slack)), float(np.count_nonzero(t <= own + slack))
            extra = 1.0 if self.counted_in else 0.0
            return (more + extra) / (t.size + extra), (less + extra) / (t.size + extra)

        return shares

    def _of_means(self, u: _Floats, v: _Floats) -> _Shares:
        """The same where the bottom is 1: Welch's t of means."""
        columns = np.column_stack((u, v, u * u, u * v, v * v))
        totals = columns.sum(axis=0)
        observed = self.treated.astype(np.float64)[np.newaxis]
        sums = np.ascontiguousarray(np.concatenate([part @ columns for part in (observed, *self._picked())]).T)
        n = np.concatenate([part.sum(axis=1) for part in (observed, *self._picked())])
        m = self.top.size - n
        empty = (n == 0) | (m == 0)
        n, m = np.maximum(n, 1), np.maximum(m, 1)
        extra = 1.0 if self.counted_in else 0.0

        def shares(s: float) -> tuple[float, float]:
            top = sums[0] + s * sums[1]
            squares = sums[2] + (2 * s) * sums[3] + (s * s) * sums[4]
            rest = totals[0] + s * totals[1] - top
            whole = float(totals[2] + 2 * s * totals[3] + s * s * totals[4])
            treated, control = top / n, rest / m
            spread = np.maximum(squares - top * treated, 0.0) / (np.maximum(n - 1, 1) * n)
            spread += np.maximum(whole - squares - rest * control, 0.0) / (np.maximum(m - 1, 1) * m)
            t = np.where(empty, 0.0, (treated - control) / np.sqrt(spread + 1e-12 * whole / self.top.size**2 + 1e-300))
            own, drawn = float(t[0]), t[1:]
            slack = 1e-9 * (1 + abs(own))
            more, less = float(np.count_nonzero(drawn >= own - slack)), float(np.count_nonzero(drawn <= own + slack))
            return (more + extra) / (drawn.size + extra), (less + extra) / (drawn.size + extra)

        return shares

    def _picked(self) -> list[_Floats]:
        rows = max(1, CHUNK_CELLS // self.top.size)
        return [self.draws[start : start + rows].astype(np.float64) for start in range(0, len(self.draws), rows)]

    def _cleaned(self, values: _Floats) -> _Floats:
        if self.basis.shape[1] == 0:
            return values
        centred = values - values.mean()
        cleaned: _Floats = centred - self.basis @ (self.basis.T @ centred)
        return cleaned


def _studentised(sums: _Floats, n: _Floats, totals: _Floats, hosts: float, s: float) -> _Floats:
    """Welch's t of the ratios of both arms, of each draw, at parameter s. An arm that is empty: 0, no distance."""
    m = hosts - n
    ratios, variances = [], []
    for part, count in ((sums, n), (totals - sums, m)):
        top = part[:, 0] + s * part[:, 1]
        squares = part[:, 2] + 2 * s * part[:, 3] + s * s * part[:, 4]
        bottom = part[:, 5]
        crossed = part[:, 6] + s * part[:, 7]
        ratio = np.divide(top, bottom, out=np.zeros_like(top), where=bottom > 0)
        rest = np.maximum(squares - 2 * ratio * crossed + ratio**2 * part[:, 8], 0.0)
        mean = np.divide(bottom, count, out=np.ones_like(bottom), where=(count > 0) & (bottom > 0))
        ratios.append(ratio)
        variances.append(rest / np.maximum(count - 1, 1) / np.maximum(count, 1) / mean**2)
    whole = totals[2] + 2 * s * totals[3] + s * s * totals[4]
    floor = 1e-12 * abs(whole) / hosts / max(totals[5] / hosts, 1e-300) ** 2 / hosts + 1e-300
    t: _Floats = np.where((n > 0) & (m > 0), (ratios[0] - ratios[1]) / np.sqrt(variances[0] + variances[1] + floor), 0)
    return t


@dataclass(frozen=True, kw_only=True)
class FlippedOrders:
    """The order of each block drawn again: the sign of its contrast. The statistic is the weighted sum of contrasts.

    For each sign pattern the effects that it does not refute are an interval around the estimate, so that the ends
    are order statistics: exact up to 16 units, from a seeded draw beyond.
    """

    control: _Floats
    treatment: _Floats
    weights: _Floats
    seed: int

    def __post_init__(self) -> None:
        if self.control.size == 0:
            raise NotEnoughData("there is no block", "sign-flip test", "at least one")
        refuse_not_finite("sign-flip test", self.control, self.treatment)

    @cached_property
    def p_value(self) -> float:
        steps = (self.treatment - self.control) * self.weights
        observed = abs(float(steps.sum()))
        near = observed * (1 - 1e-9)
        return self._share(np.abs(self._signs @ steps) >= near)

    def interval(self, within: Interval) -> Interval:
        lows, highs = self._ends((self.treatment - self.control) * self.weights, -self.weights)
        return self._wider(within, lows, highs)

    def lift_interval(self, within: Interval) -> Interval | None:
        if not ((self.control >= 0).all() and self.control.any()):
            return None
        # 0 = sum of w (T - (1 + lift) C): the lift is what moves.
        lows, highs = self._ends((self.treatment - self.control) * self.weights, -self.control * self.weights)
        return self._wider(within, lows, highs)

    def _wider(self, within: Interval, lows: _Floats, highs: _Floats) -> Interval:
        low, high = self._quantile(lows, within.level), _minus(self._quantile(-highs, within.level))
        return Interval(
            low=None if low is None or within.low is None else min(low, within.low),
            high=None if high is None or within.high is None else max(high, within.high),
            level=within.level,
        )

    @cached_property
    def _signs(self) -> _Floats:
        """Sign patterns, the first unit's fixed where all are listed: a mirror image is as far from 0."""
        units = self.control.size
        if units <= FLIPS_EXACT_UP_TO:
            codes = np.arange(2 ** (units - 1))[:, np.newaxis]
            listed: _Floats = 1.0 - 2.0 * ((codes >> np.arange(units)) & 1).astype(np.float64)
            return listed
        draw = np.random.default_rng(self.seed)
        drawn: _Floats = draw.integers(0, 2, size=(FLIPS, units), dtype=np.int8).astype(np.float64) * 2.0 - 1.0
        return drawn

    @property
    def _extra(self) -> float:
        return 0.0 if self.control.size <= FLIPS_EXACT_UP_TO else 1.0

    def _share(self, as_far: NDArray[np.bool_]) -> float:
        return float((np.count_nonzero(as_far) + self._extra) / (as_far.size + self._extra))

    def _ends(self, fixed: _Floats, moving: _Floats) -> tuple[_Floats, _Floats]:
        """The effects between which a pattern is at least as far from 0 as the real one: |U + s V| >= |U0 + s V0|."""
        u, v = self._signs @ fixed, self._signs @ moving
        u0, v0 = float(fixed.sum()), float(moving.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            first, second = (u0 - u) / (v - v0), -(u0 + u) / (v + v0)
        same = np.abs(v - v0) <= 1e-12 * abs(v0)
        mirror = np.abs(v + v0) <= 1e-12 * abs(v0)
        low = np.where(same | mirror, -np.inf, np.fmin(first, second))
        high = np.where(same | mirror, np.inf, np.fmax(first, second))
        dust = 1e-9 * abs(u0 / v0) if v0 else 0.0  # as far as the real one is not nearer: ties are ties
        return np.where(np.abs(low) <= dust, 0.0, low), np.where(np.abs(high) <= dust, 0.0, high)

    def _quantile(self, lows: _Floats, level: float) -> float | None:
        """The smallest effect with a share of patterns of at least 1 - level whose interval begins at or below it."""
        total = lows.size + self._extra
        needed = math.ceil((1 - level) * total - self._extra - 1e-9)
        if needed <= np.count_nonzero(np.isneginf(lows)):
            return None
        return float(np.partition(lows, needed - 1)[needed - 1])


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def _two_sided(shares: tuple[float, float]) -> float:
    return min(1.0, 2 * min(shares))


def _end(
    shares: _Shares, start: float, side: int, level: float, *, step: float, smallest: float, farthest: float
) -> float | None:
    """The last effect on one side of `start` that is not refuted, or `start` itself; None: there is no last one.

    0 is on the side that its own test says. `step` is the first one out, `smallest` the smallest share that there is,
    `farthest` where the search gives up.
    """
    limit = (1 - level) / 2
    if smallest >= limit:
        return None

    def refuted(effect: float) -> bool:
        return shares(effect)[0 if side < 0 else 1] < limit

    inside, outside = start, None
    if side * start < 0:  # 0 is on this side
        inside, outside = (start, 0.0) if refuted(0.0) else (0.0, None)
    if inside == start and refuted(start):
        return start
    while outside is None:
        candidate = inside + side * step
        if abs(candidate) > farthest:
            return None
        inside, outside = (inside, candidate) if refuted(candidate) else (candidate, None)
        step *= 2
    for _ in range(BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (inside, middle) if refuted(middle) else (middle, outside)
    return inside
