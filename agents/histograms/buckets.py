"""Quantiles and shares of a histogram, classic or native, by Prometheus' rules, and how far buckets leave them open.

The rules are those of Prometheus 2.42: https://github.com/prometheus/prometheus/blob/v2.42.0/promql/quantile.go.
Within a bucket values are taken to be spread evenly. From version 3 on Prometheus spreads those of native buckets
evenly over their logarithm: within its bucket the estimate differs, the bucket is the same.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise


class UnusableHistogram(Exception):
    """A histogram that tells nothing: what is wrong, and what to do."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramEstimate:
    """What a histogram tells of a quantile or a share, and between what the true one lies.

    `value` is interpolated. `at_least` and `at_most` are the ends of the bucket, of a share the shares at its ends;
    None where the bucket has no end there, as that up to +Inf. All in the unit of what was observed; shares are of 1.
    """

    value: float
    at_least: float | None
    at_most: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassicHistogram:
    """Counts of observations up to each bound: bounds rise, the last is +Inf, counts never fall."""

    bounds: tuple[float, ...]
    counts: tuple[float, ...]

    @property
    def observations(self) -> float:
        return self.counts[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeBucket:
    """One bucket of a native histogram: its ends, and how many observations it has."""

    lower: float
    upper: float
    count: float


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeHistogram:
    """Buckets that have observations, rising. `observations` may be more than theirs: NaN is in no bucket."""

    buckets: tuple[NativeBucket, ...]
    observations: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramQuestion:
    """What is asked of a histogram: a quantile between 0 and 1, or the share of observations up to a bound."""

    quantile: float | None = None
    share_below: float | None = None

    def answer(self, histogram: ClassicHistogram | NativeHistogram) -> HistogramEstimate:
        """Return what it tells; UnusableHistogram where it tells nothing."""
        if self.quantile is not None:
            return quantile_of(histogram, self.quantile)
        assert self.share_below is not None  # noqa: S101 - the spec has just one of them
        return share_below(histogram, self.share_below)

    def __str__(self) -> str:
        return f"share up to {self.share_below:g}" if self.quantile is None else f"quantile {self.quantile:g}"


def classic_histogram(cumulative: Mapping[float, float]) -> ClassicHistogram:
    """Return a histogram of bound -> observations up to it; UnusableHistogram where it has no +Inf, or nothing else.

    Counts that fall from a bound to the next are raised to the highest before: rates of one histogram that were
    rounded apart.
    """
    bounds = tuple(sorted(cumulative))
    if any(math.isnan(bound) for bound in bounds):
        raise UnusableHistogram("a bucket's bound is not a number", "let 'le' be a number or +Inf")
    if not bounds or bounds[-1] != math.inf:
        raise UnusableHistogram('the histogram has no bucket with le="+Inf"', "keep every bucket, 'le' among 'by'")
    if len(bounds) < 2:
        raise UnusableHistogram('the histogram has no bucket but le="+Inf"', "let it have bounds")
    return ClassicHistogram(bounds=bounds, counts=tuple(accumulate((cumulative[bound] for bound in bounds), max)))


def merged(series: Iterable[Mapping[float, float]]) -> dict[float, float]:
    """Add up histograms, each bound -> observations up to it; UnusableHistogram where their bounds are not the same.

    A bound that one of them lacks has a sum that leaves its observations out, and would move every quantile.
    """
    total: dict[float, float] = {}
    for one in series:
        if total and one.keys() != total.keys():
            apart = sorted(one.keys() ^ total.keys())
            raise UnusableHistogram(
                f'its series have unlike buckets: not all have le="{apart[0]:g}"',
                "choose series with the same buckets by their labels",
            )
        total = {bound: total.get(bound, 0.0) + count for bound, count in one.items()}
    return total


def quantile_of(histogram: ClassicHistogram | NativeHistogram, quantile: float) -> HistogramEstimate:
    """Return a quantile, 0 < `quantile` < 1; UnusableHistogram where nothing was observed.

    In the bucket up to +Inf it is that bucket's lower end, in a first one with an upper end of 0 or less that end.
    """
    _needs_observations(histogram)
    rank = quantile * histogram.observations
    if isinstance(histogram, NativeHistogram):
        return _native_quantile(histogram, rank)
    bounds, counts = histogram.bounds, histogram.counts
    place = bisect_left(counts, rank, 0, len(counts) - 1)
    if place == len(bounds) - 1:
        return HistogramEstimate(value=bounds[-2], at_least=bounds[-2], at_most=None)
    upper = bounds[place]
    if place == 0 and upper <= 0:
        return HistogramEstimate(value=upper, at_least=None, at_most=upper)
    lower, before = (bounds[place - 1], counts[place - 1]) if place else (0.0, 0.0)
    value = lower + (upper - lower) * ((rank - before) / (counts[place] - before))
    return HistogramEstimate(value=value, at_least=lower, at_most=upper)


def _native_quantile(histogram: NativeHistogram, rank: float) -> HistogramEstimate:
    reached = 0.0
    buckets = _with_natural_ends(histogram.buckets)
    bucket = buckets[-1]
    for bucket in buckets:
        reached += bucket.count
        if reached >= rank:
            break
    reached = min(reached, histogram.observations)
    lower, upper = _end(bucket.lower), _end(bucket.upper)
    if reached < rank:  # NaN was observed
        return HistogramEstimate(value=bucket.upper, at_least=upper, at_most=None)
    value = bucket.lower + (bucket.upper - bucket.lower) * ((rank - (reached - bucket.count)) / bucket.count)
    if not math.isfinite(value):
        raise UnusableHistogram("the quantile is in a bucket without end", "let less extreme values be observed")
    return HistogramEstimate(value=value, at_least=lower, at_most=upper)


def share_below(histogram: ClassicHistogram | NativeHistogram, bound: float) -> HistogramEstimate:
    """Return the share of observations up to `bound`, exact where that is a bucket's end; UnusableHistogram if empty.

    What is in a bucket without end is counted as above `bound`.
    """
    _needs_observations(histogram)
    below = 0.0
    for bucket in _disjoint(histogram):
        if bucket.lower >= bound:
            break
        if bucket.upper > bound:
            part = (bound - bucket.lower) / (bucket.upper - bucket.lower) if math.isfinite(bucket.lower) else 0.0
            return _share(histogram, below + bucket.count * part, below, below + bucket.count)
        below += bucket.count
    return _share(histogram, below, below, below)


def _share(histogram: ClassicHistogram | NativeHistogram, value: float, least: float, most: float) -> HistogramEstimate:
    value, least, most = (min(1.0, one / histogram.observations) for one in (value, least, most))
    return HistogramEstimate(value=value, at_least=least, at_most=most)


def _disjoint(histogram: ClassicHistogram | NativeHistogram) -> Sequence[NativeBucket]:
    if isinstance(histogram, NativeHistogram):
        return _with_natural_ends(histogram.buckets)
    first = 0.0 if histogram.bounds[0] > 0 else -math.inf
    ends, counts = (first, *histogram.bounds), (0.0, *histogram.counts)
    return [
        NativeBucket(lower=lower, upper=upper, count=after - before)
        for (lower, upper), (before, after) in zip(pairwise(ends), pairwise(counts), strict=True)
    ]


def _with_natural_ends(buckets: Sequence[NativeBucket]) -> Sequence[NativeBucket]:
    """Let the bucket around zero end at zero, where all other buckets are on one side of it."""
    above, below = any(one.lower >= 0 for one in buckets), any(one.upper <= 0 for one in buckets)
    if above == below:
        return buckets
    return [
        one
        if one.lower >= 0 or one.upper <= 0
        else NativeBucket(lower=0.0 if above else one.lower, upper=one.upper if above else 0.0, count=one.count)
        for one in buckets
    ]


def _end(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _needs_observations(histogram: ClassicHistogram | NativeHistogram) -> None:
    if not histogram.observations > 0:
        raise UnusableHistogram("nothing was observed", "let requests come in, or the period be longer")
