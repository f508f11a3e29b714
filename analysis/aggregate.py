"""Readings of one period to one summary per metric: the first and largest reduction of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.errors import BadObservations, NotEnoughData

Kind: TypeAlias = Literal["counter", "gauge"]
_Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """One metric over one period. For a counter every figure is a rate per second; `n` is the number of rates."""

    n: int
    mean: float
    variance: float  # of the readings, n - 1 below; 0 for a single one
    minimum: float
    maximum: float
    p50: float
    p99: float
    rise: float | None = None  # of a counter: last reading minus first, in the metric's own unit; None for a gauge


FIGURES = tuple(field.name for field in fields(Summary))


def summarise(times: ArrayLike, values: ArrayLike, kind: Kind) -> Summary:
    """Summarise the readings of one metric over one period.

    `times` are seconds, strictly rising for a counter; `values` are the readings as they were taken. Raises
    NotEnoughData for no reading (or a single one of a counter), BadObservations for a value that is not finite, and
    for a counter read out of order or that went down (the host rebooted): such a period is invalid, not negative.
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise BadObservations("readings of one metric are a flat list", "values", "give summarise_many a table")
    return summarise_many(times, column[:, np.newaxis], (kind,))[0]


def summarise_many(
    times: ArrayLike, table: ArrayLike, kinds: Sequence[Kind], names: Sequence[str] = ()
) -> list[Summary]:
    """Summarise many metrics read at the same instants: `table` is [instant, metric]; `names` is for the errors.

    A counter's mean is its whole rise over the elapsed time, so that uneven spacing doesn't weigh.
    """
    at = np.asarray(times, dtype=np.float64)
    read = np.asarray(table, dtype=np.float64)
    labels = list(names) or [f"metric {place}" for place in range(len(kinds))]
    _refuse_impossible(at, read, labels, len(kinds))
    summaries: list[Summary | None] = [None] * len(kinds)
    for kind in ("gauge", "counter"):
        places = [place for place, of in enumerate(kinds) if of == kind]
        if not places:
            continue
        chosen = read[:, places]
        if kind == "counter":
            rises: list[float] | list[None] = (chosen[-1] - chosen[0]).tolist()
            chosen, means = _rates(at, chosen, [labels[place] for place in places])
        else:
            rises = [None] * len(places)
            means = chosen.mean(axis=0)
        for place, summary in zip(places, _columns(chosen, means, rises), strict=True):
            summaries[place] = summary
    return [summary for summary in summaries if summary is not None]


def _refuse_impossible(at: _Floats, read: _Floats, labels: Sequence[str], kinds: int) -> None:
    if read.ndim != 2 or read.shape != (at.size, kinds):
        raise BadObservations(
            f"{at.size} instants and {kinds} metrics do not fit a table of shape {read.shape}",
            "readings",
            "one row per instant, one column per metric",
        )
    if at.size == 0:
        raise NotEnoughData("a period without readings has no summary", ", ".join(labels), "sample more often")
    if not np.isfinite(at).all():
        raise BadObservations("an instant is not a finite number", "times", "drop that reading")
    if not (good := np.isfinite(read).all(axis=0)).all():
        raise BadObservations(
            "a reading is not a finite number", labels[int(np.argmin(good))], "leave the metric out as unavailable"
        )


def _rates(at: _Floats, read: _Floats, labels: Sequence[str]) -> tuple[_Floats, _Floats]:
    if at.size < 2:
        raise NotEnoughData("a counter needs two readings", labels[0], "sample more often than the period is long")
    if (np.diff(at) <= 0).any():
        raise BadObservations("the instants do not rise", "times", "sort the readings and drop those taken twice")
    steps = np.diff(read, axis=0)
    if (fell := (steps < 0).any(axis=0)).any():
        raise BadObservations(
            "a counter went down", labels[int(np.argmax(fell))], "mark the period invalid: the host may have rebooted"
        )
    return steps / np.diff(at)[:, np.newaxis], (read[-1] - read[0]) / (at[-1] - at[0])


def _columns(read: _Floats, means: _Floats, rises: Sequence[float | None]) -> list[Summary]:
    found = spread(read)
    return [
        Summary(n=len(read), mean=mean, variance=variance, minimum=low, maximum=high, p50=middle, p99=tail, rise=rise)
        for mean, variance, low, high, middle, tail, rise in zip(
            *(column.tolist() for column in (means, *found)), rises, strict=True
        )
    ]


class ReadingSpread(NamedTuple):
    """Of each column of a table of readings: its variance, extremes, median and 99th percentile."""

    variance: _Floats
    minimum: _Floats
    maximum: _Floats
    p50: _Floats
    p99: _Floats


def spread(read: _Floats) -> ReadingSpread:
    """Return what `Summary` says of each column of `read`, [reading, column], beside its mean."""
    n = len(read)
    variances = read.var(axis=0, ddof=1) if n > 1 else np.zeros(read.shape[1])
    ranked = np.sort(read, axis=0)
    return ReadingSpread(variances, ranked[0], ranked[-1], _quantile(ranked, 0.5), _quantile(ranked, 0.99))


def _quantile(ranked: _Floats, share: float) -> _Floats:
    """Interpolate between the neighbours, definition 7 of Hyndman and Fan (1996), as NumPy does to the last digit."""
    place = share * (len(ranked) - 1)
    below = int(place)
    above, part = min(below + 1, len(ranked) - 1), place - below
    step = ranked[above] - ranked[below]
    found: _Floats = ranked[above] - step * (1 - part) if part >= 0.5 else ranked[below] + step * part
    return found
