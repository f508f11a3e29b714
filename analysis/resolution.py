"""How finely a histogram's buckets tell a metric: what lies in one bucket under both arms tells them not apart.

A quantile of a histogram is known to lie in a bucket; where in it is interpolated, from how many observations came
below and above, and may move without the quantile.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.plan import AnalysisPlan, MetricPlan
from analysis.quantities import scale_for
from analysis.results import Estimate


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """How finely one metric was measured under two arms, in its unit.

    `width`: of the buckets that hold its values, the mean over periods; infinite where one of them has no end. `apart`:
    some unit's values do not all lie in one bucket; else `widest` is the widest of these.
    """

    width: float
    apart: bool
    widest: float

    def words(self, unit: str) -> str:
        """Say how far a value may be off, and whether the arms can be told apart."""
        if self.width == 0:
            said = "known exactly: the bound is a bucket's"
        elif math.isinf(self.width):
            said = "in some periods known only to lie in a bucket without an end"
        else:
            said = f"known to within its bucket, on average {scale_for(unit, (self.width,)).show(self.width)} wide"
        return said if self.apart else f"{said}; under both arms it never left one bucket"


def resolution_of(
    rows: pd.DataFrame, metric: MetricPlan, arms: Sequence[str], *, within_hosts: bool
) -> Resolution | None:
    """Return how finely a metric was measured in periods of these arms; None where it is of no histogram.

    `rows` are observations, the ends of the buckets among them. `within_hosts`: hosts are compared with themselves, and
    each may have a bucket of its own.
    """
    if not metric.at_least:
        return None
    own = rows[(rows["kind"] == "measure") & rows["arm"].isin(arms)]
    ends = own[own["metric"].isin([metric.name, metric.at_least, metric.at_most])]
    table = ends.pivot(index=["host", "arm", "period_id"], columns="metric", values="mean")
    if metric.name not in table or {metric.at_least, metric.at_most}.isdisjoint(table.columns):
        return None  # it was not measured, or on hosts that are made up
    table = table[table[metric.name].notna()].reindex(columns=[metric.at_least, metric.at_most]).reset_index()
    low, high = table[metric.at_least].fillna(-math.inf), table[metric.at_most].fillna(math.inf)
    units = table["host"] if within_hosts else pd.Series("", index=table.index)
    both = table.groupby(units)["arm"].nunique() > 1
    if not both.any():
        return None
    lowest, highest = low.groupby(units).max()[both], high.groupby(units).min()[both]
    together = lowest < highest  # one value would be all of the unit's
    return Resolution(
        width=float(np.mean(high - low)),
        apart=not bool(together.all()),
        widest=float((highest - lowest).max()),
    )


class Resolutions:
    """The resolution of each metric of a plan, for any two arms."""

    def __init__(self, rows: pd.DataFrame, plan: AnalysisPlan, metrics: Mapping[str, MetricPlan]) -> None:
        self._rows, self._plan = rows, plan
        self._metrics = {label: metric for label, metric in metrics.items() if metric.at_least}
        self._found: dict[tuple[str, ...], Resolution | None] = {}

    def of(self, label: str, arms: Sequence[str]) -> Resolution | None:
        """Return how finely a metric, by its label, was measured under these arms; None where it is of no histogram."""
        metric, key = self._metrics.get(label), (label, *arms)
        if metric is None:
            return None
        if key not in self._found:
            within = self._plan.design == "switchback"
            self._found[key] = resolution_of(self._rows, metric, arms, within_hosts=within)
        return self._found[key]

    def told(self, estimate: Estimate) -> Estimate:
        """Return an estimate that says how finely its metric was measured."""
        found = self.of(estimate.metric, (estimate.control, estimate.treatment))
        if found is None:
            return estimate
        return replace(estimate, warnings=(*estimate.warnings, found.words(estimate.unit)))

    def unresolved(self, label: str, arms: Sequence[str]) -> float | None:
        """Return how wide the bucket is that a metric never left under these arms; None where it did, or has none."""
        found = self.of(label, arms)
        return None if found is None or found.apart else found.widest
