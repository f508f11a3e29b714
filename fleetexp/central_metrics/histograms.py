"""What a histogram that a metrics' server keeps rose by, host by host: the query, and what its answer tells."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agents.histograms.buckets import HistogramEstimate, HistogramQuestion, UnusableHistogram, classic_histogram
from fleetexp.central_metrics.answer import CentralSeries, Floats
from fleetexp.experiment.central import HISTOGRAM_PART


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HistogramPoints:
    """What a question of a host's histogram was answered: instants in steps since 1970, rising, and the values.

    `at_least` and `at_most` are the ends of the buckets, NaN where there is none; `buckets` the most that one instant
    has. `ambiguous`: its series have unlike buckets, or are those of two hosts.
    """

    steps: Floats
    values: Floats
    at_least: Floats
    at_most: Floats
    buckets: int
    ambiguous: bool


def histogram_points(
    series: Sequence[CentralSeries], question: HistogramQuestion, step_seconds: float
) -> HistogramPoints:
    """Answer the question at each instant of one host's series; an instant at which nothing was observed has none."""
    found: dict[int, HistogramEstimate] = {}
    most, ambiguous = 0, sum(bool(one.histograms) for one in series) > 1
    for one in series:
        for at, native in one.histograms:
            try:
                found[round(at / step_seconds)] = question.answer(native)
            except UnusableHistogram:
                continue
            most = max(most, len(native.buckets))
    cumulative: defaultdict[int, dict[float, float]] = defaultdict(dict)
    parts: defaultdict[int, set[float]] = defaultdict(set)  # how many series have a bucket: the same of each, or unlike
    for one in series:
        bound = _bound(one.labels.get("le", ""))
        steps = np.round(one.seconds / step_seconds).astype(int).tolist()
        for step, value in zip(steps, one.values.tolist(), strict=True):
            if HISTOGRAM_PART in one.labels:
                parts[step].add(value)
            else:
                ambiguous |= bound in cumulative[step]
                cumulative[step][bound] = value
    for step, buckets in cumulative.items():
        ambiguous |= len(parts[step]) > 1
        try:
            found[step] = question.answer(classic_histogram(buckets))
        except UnusableHistogram:
            continue
        most = max(most, len(buckets))
    rising = sorted(found.items())
    return HistogramPoints(
        steps=np.array([step for step, _ in rising], dtype=np.float64),
        values=np.array([one.value for _, one in rising]),
        at_least=_ends([one.at_least for _, one in rising]),
        at_most=_ends([one.at_most for _, one in rising]),
        buckets=most,
        ambiguous=ambiguous,
    )


def _bound(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _ends(ends: Sequence[float | None]) -> Floats:
    return np.array([math.nan if end is None else end for end in ends], dtype=np.float64)
