"""A success rate with an interval that knows its clusters: requests on one host, or in one period, go alike."""

from __future__ import annotations

from dataclasses import dataclass

from scipy import stats

from analysis.results import Interval

FEWEST_CLUSTERS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSums:
    """What an interval needs of the clusters: sums of what each asked for and was given, of squares and products."""

    clusters: int
    asked: float
    given: float
    asked_squared: float
    given_squared: float
    product: float


def success_interval(sums: ClusterSums, level: float = 0.95) -> Interval | None:
    """Return the interval of given / asked; None with fewer than three clusters.

    The ratio estimator's variance over clusters makes an effective number of independent requests, with the t quantile
    at clusters - 1 df in it, and Clopper and Pearson's interval is taken at that number: Korn and Graubard (1998),
    Survey Methodology 24:193-201. A cluster counts for at most two requests: in few clusters that all went alike, one
    that goes otherwise has not been seen (without this bound 8 clusters cover 77 % at a rate of 0.98 and an
    intraclass correlation of 0.3). Where all or none succeeded, each cluster is one request.
    """
    if sums.clusters < FEWEST_CLUSTERS or sums.asked <= 0:
        return None
    rate = min(1.0, sums.given / sums.asked)
    scatter = sums.given_squared - 2 * rate * sums.product + rate**2 * sums.asked_squared
    variance = sums.clusters / (sums.clusters - 1) * scatter / sums.asked**2
    most = min(2.0 * (sums.clusters - 1), sums.asked)
    requests = float(min(sums.clusters, sums.asked))
    if 0 < rate < 1:
        shrink = (stats.norm.ppf(0.5 + level / 2) / stats.t.ppf(0.5 + level / 2, sums.clusters - 1)) ** 2
        requests = min(most, shrink * rate * (1 - rate) / variance) if variance > 0 else most
    hits, tail = rate * requests, (1 - level) / 2
    return Interval(
        low=float(stats.beta.ppf(tail, hits, requests - hits + 1)) if rate > 0 else 0.0,
        high=float(stats.beta.isf(tail, hits + 1, requests - hits)) if rate < 1 else 1.0,
        level=level,
    )
