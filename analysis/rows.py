"""Raw samples in memory to estimates: one pass over the rows to host means, the rest is small.

For a notebook or a store that hands out samples instead of observations. The pass runs near the speed of reading the
rows, in whichever order they lie in memory, and copies none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.errors import BadObservations, BadPlan, NotEnoughData
from analysis.estimates import estimate
from analysis.headline import Redraws, headline
from analysis.hosts import TwoArms
from analysis.inference import MIN_HOSTS
from analysis.look import Look
from analysis.plan import AnalysisPlan, Estimand, MetricPlan
from analysis.results import Estimate

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostMeans:
    """One row per host, one column per metric; NaN where a host never had the metric. `rows` counts its samples."""

    hosts: NDArray[np.int64]
    rows: NDArray[np.int64]
    means: _Floats


def host_means(hosts: NDArray[np.integer], samples: _Floats) -> HostMeans:
    """Average samples [row, metric] by host; `hosts` gives each row's host number and must be sorted.

    A NaN is a missing sample: its host's mean is that of the others. Raises BadObservations for rows out of order.
    """
    if samples.ndim != 2 or hosts.shape != (len(samples),) or len(samples) == 0:
        raise BadObservations("rows and hosts do not fit", "samples", "one host number per row, and at least one row")
    if (hosts[1:] < hosts[:-1]).any():
        raise BadObservations("rows are not sorted by host", "samples", "sort once; the pass relies on it")
    starts = np.concatenate(([0], np.flatnonzero(hosts[1:] != hosts[:-1]) + 1))
    ends = np.append(starts[1:], len(samples))
    means = _sums(samples, starts, ends) / (ends - starts)[:, np.newaxis]
    for place in np.flatnonzero(~np.isfinite(means).all(axis=1)).tolist():
        own = samples[starts[place] : ends[place]]
        known = np.isfinite(own)
        counts = known.sum(axis=0)
        total = np.where(known, own, 0.0).sum(axis=0)
        means[place] = np.where(counts > 0, total / np.maximum(counts, 1), np.nan)
    return HostMeans(hosts=hosts[starts].astype(np.int64), rows=ends - starts, means=means)


def _sums(samples: _Floats, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> _Floats:
    """Sum each host's rows: column by column where columns lie together, else host by host.

    `reduceat` along the rows of row-ordered samples is 20 times slower than reading them: it adds one row at a time.
    """
    if samples.flags.f_contiguous:
        return np.add.reduceat(samples, starts, axis=0)
    out = np.empty((starts.size, samples.shape[1]))
    ones = np.ones(int((ends - starts).max()))
    for place, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        np.dot(ones[: end - start], samples[start:end], out=out[place])
    return out


def compare_rows(
    hosts: NDArray[np.integer],
    samples: _Floats,
    metrics: Sequence[MetricPlan],
    arms: Mapping[int, str],
    *,
    control: str,
    treatment: str,
    level: float = 0.95,
) -> tuple[Estimate, ...]:
    """Compare two arms on every column of `samples`; `arms` maps host numbers to arms, `metrics` names the columns.

    Where hosts are few or skewed a randomisation test must agree, every host's arm drawn alike. Raises BadPlan where
    columns and metrics differ in number or `arms` and the two names do not fit, NotEnoughData below 4 + 4 hosts.
    """
    if samples.ndim != 2 or samples.shape[1] != len(metrics):
        raise BadPlan("the metrics are not the columns", "compare_rows", "one metric per column")
    table = host_means(hosts, samples)
    own = np.array([arms.get(host, "") for host in table.hosts.tolist()])
    sizes = int((own == control).sum()), int((own == treatment).sum())
    if min(sizes) < MIN_HOSTS:
        raise NotEnoughData(
            f"{sizes[0]} and {sizes[1]} hosts",
            f"compare_rows, arms {control!r} and {treatment!r}",
            f"a claim needs {MIN_HOSTS} in each: name every host's arm in `arms`, or measure more",
        )
    redraws = Redraws(plan=AnalysisPlan(design="parallel", control=control, arms=(control, treatment), metrics=()))
    look, out = Look(level=level), []
    for metric, column in zip(metrics, table.means.T, strict=True):
        known = np.isfinite(column) & ((own == control) | (own == treatment))
        y = column[known]
        sample = TwoArms(
            control=control,
            treatment=treatment,
            hosts=table.hosts[known].astype(np.str_),
            treated=own[known] == treatment,
            strata=np.full(y.size, "all", dtype=np.str_),
            y=y,
            before=np.full(y.size, np.nan),
            numerator=y,
            denominator=np.ones(y.size),
        )
        few = min(sample.sizes) < MIN_HOSTS
        plain = replace(metric, denominator=None, estimand=Estimand.MEAN_OVER_HOSTS)
        if min(sample.sizes) < 2:
            raise NotEnoughData(
                f"{sample.sizes[0]} and {sample.sizes[1]} hosts have {metric.name!r}", "compare_rows", "leave it out"
            )
        found = headline(sample, plain, redraws)
        out.append(
            estimate(
                found.inference,
                metric,
                look,
                treatment=treatment,
                control=control,
                estimand=plain.estimand,
                method=found.method,
                withhold_p=few,
            )
        )
    return tuple(out)
