"""Series that are not what they are taken for: their unit changes in mid-data, or they are totals and not levels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.errors import BadObservations

_Floats = NDArray[np.float64]
UNITS = (1e3, 1024.0, 1e6, 1024.0**2, 1e9, 1024.0**3)  # what prefixes multiply by
_NEAR = 0.04  # in log10: 9 % to either side
_STEP = 2.5  # in log10: smaller steps change no prefix
_PERCENT, _PERCENT_STEP = 100.0, 1.5  # of shares, which have no prefix
_FEWEST_HOSTS, _FEWEST_RISES = 2, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitJump:
    """From `period` on, the `hosts` measure `factor` times what they did, which is what a prefix of a unit does."""

    hosts: tuple[int, ...]
    period: int
    factor: float


def unit_jump(values: _Floats) -> UnitJump | None:
    """Return a jump of the series [host, period], NaN where there is none, by a factor between units.

    Two hosts must jump in the same period: one may do so by chance.
    """
    periods = values.shape[1]
    known = np.isfinite(values) & (values > 0)
    if periods < 2 or not known.any():
        return None
    last = np.maximum.accumulate(np.where(known, np.arange(periods), 0), axis=1)
    filled = np.where(known, values, 1.0)
    logs = np.log10(np.take_along_axis(filled, last, axis=1))
    steps = np.abs(np.diff(logs, axis=1))
    steps[~np.take_along_axis(known, last, axis=1)[:, :-1]] = 0.0  # nothing was read before
    percents = bool(filled[known].max() <= _PERCENT)
    found: dict[int, list[tuple[int, float]]] = {}
    for host in np.flatnonzero(steps.max(axis=1) > _PERCENT_STEP).tolist():
        period = int(steps[host].argmax()) + 1
        parts = [filled[host, part][known[host, part]] for part in (slice(period), slice(period, periods))]
        factor = float(np.median(parts[1]) / np.median(parts[0]))
        units = UNITS if steps[host, period - 1] > _STEP else ()
        units = (*units, _PERCENT) if percents and _share_and_percent(*parts) else units
        if any(abs(abs(np.log10(factor)) - np.log10(unit)) < _NEAR for unit in units):
            found.setdefault(period, []).append((host, factor))
    period, jumped = max(found.items(), key=lambda item: len(item[1]), default=(0, []))
    if len(jumped) < _FEWEST_HOSTS:
        return None
    return UnitJump(
        hosts=tuple(host for host, _ in jumped),
        period=period,
        factor=float(np.median([factor for _, factor in jumped])),
    )


def _share_and_percent(before: _Floats, after: _Floats) -> bool:
    """Whether one part holds shares, of 1 at most, and the other greater ones."""
    low, high = sorted((before, after), key=lambda part: float(np.median(part)))
    return bool(low.max() <= 1 < np.median(high))


def refuse_unit_jump(metric: str, values: _Floats, hosts: Sequence[str], periods: Sequence[str], where: str) -> None:
    """Raise BadObservations where the series [host, period] change their unit: no effect can be read off them."""
    if (jump := unit_jump(values)) is None:
        return
    factor = f"{jump.factor:,.4g} times" if jump.factor > 1 else f"1/{1 / jump.factor:,.4g} of"
    raise BadObservations(
        f"{metric} is {factor} what it was from period {periods[jump.period]} on, on {len(jump.hosts)} hosts "
        f"({hosts[jump.hosts[0]]} among them): its unit changes there",
        where,
        "convert it to one unit",
    )


def only_rises(values: _Floats) -> bool:
    """Whether every series [host, period] rises from each period to the next, as totals of counters do."""
    if values.shape[1] <= _FEWEST_RISES:
        return False
    steps = np.diff(values, axis=1)
    known = np.isfinite(steps)
    return bool((known.sum(axis=1) >= _FEWEST_RISES).all() and (steps[known] > 0).all())


def rising_warnings(by_metric: Iterable[tuple[str, _Floats]]) -> Iterator[str]:
    """Say of which metrics every series [host, period] only rises."""
    for metric, values in by_metric:
        if only_rises(values):
            yield f"{metric} rises in every period on every host: if it is a counter, bring its rate"


def unmeasured_warnings(began: NDArray[np.int64], ended: NDArray[np.int64]) -> Iterator[str]:
    """Say of how much time there is no period, of any host: `began` and `ended` [period] are in the order of time."""
    gaps = began[1:] - ended[:-1]
    if (missing := gaps[gaps > 0]).size:
        share = missing.sum() / (ended[-1] - began[0])
        yield f"for {share:.0%} of the time there is no value of any host: that time is in no period"
