"""How finely the buckets of histograms told a run's metrics, for the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis.plan import AnalysisPlan
from analysis.report.content import BucketRow

if TYPE_CHECKING:
    from pandas import DataFrame, Series


def bucket_rows(plan: AnalysisPlan, measured: DataFrame) -> Iterator[BucketRow]:
    """Yield a row for each metric of a histogram and arm, from the observations of measured periods."""
    for metric in plan.metrics:
        if not metric.at_least:
            continue
        ends = measured[measured["metric"].isin([metric.name, metric.at_least, metric.at_most])]
        table = ends.pivot(index=["arm", "period_id"], columns="metric", values="mean")
        names = [metric.name, metric.at_least, metric.at_most]
        table = table.reindex(columns=names).dropna(subset=metric.name).reset_index()
        if table[names[1:]].isna().all(axis=None):  # not measured, or on hosts that are made up
            continue
        for arm in plan.arms:
            own = table[table["arm"] == arm]
            if own.empty:
                continue
            low, high = own[metric.at_least], own[metric.at_most]
            yield BucketRow(
                metric=metric.name,
                unit=metric.unit,
                arm=arm,
                periods=len(own),
                without_end=int((low.isna() | high.isna()).sum()),
                low=_unless_missing(low, float(low.min())),
                high=_unless_missing(high, float(high.max())),
                width=_unless_missing(high - low, float((high - low).mean())),
            )


def _unless_missing(values: Series[float], found: float) -> float | None:
    return None if values.isna().any() else found
