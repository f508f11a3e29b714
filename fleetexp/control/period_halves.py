"""Each measured period of a parallel run cut at its middle: what a metric was in the earlier half, and in the later.

A host of such a run is measured in one long period. Cut, it has two halves, so that an effect that fades is seen, and
harm that grows. All metrics that are looked at so are cut in one reading of the store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from agents.catalogue import find_derived
from analysis.plan import AnalysisPlan
from analysis.results import HALVES
from fleetexp.control.observations import observations
from fleetexp.domain import Design, PeriodKind
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

_AT_A_TIME = 100  # periods whose readings are in memory


def with_halves(
    rows: DataFrame,
    plan: AnalysisPlan,
    periods: DataFrame,
    *,
    store: Store,
    counters: frozenset[str],
    until: datetime | None = None,
) -> DataFrame:
    """Add to observations of a parallel design what the primary was in each half of its measured periods.

    Beside it what every metric was that a guardrail with a margin watches. The columns are `earlier_half` and
    `later_half`, in the metric's unit: the statistic that its effect is of, made by `observations` from the readings up
    to the middle of the period and from those after it (and not after `until`). NaN for all else, and where a half has
    no such figure: readings were dropped, or a counter has only one.
    """
    from analysis.halves import cut_in_halves  # noqa: PLC0415 - pandas takes half a second

    if plan.design != Design.PARALLEL or not (cut := cut_in_halves(plan)):
        return rows
    below = [metric.denominator for metric in cut if metric.denominator is not None]
    figures = dict.fromkeys(below, "mean") | {metric.name: metric.statistic for metric in cut}
    asked = (rows["kind"] == PeriodKind.MEASURE.value) & rows["metric"].isin(figures)
    own = rows[asked]
    places = dict(zip(zip(own["period_id"], own["metric"], strict=True), np.flatnonzero(asked).tolist(), strict=True))
    table = np.full((len(rows), len(HALVES)), np.nan)
    whole = periods[periods["period_id"].isin(own["period_id"]) & (periods["seconds"] > 0)]
    middles = {
        int(period_id): (started + timedelta(seconds=seconds / 2)).to_pydatetime()
        for period_id, started, seconds in zip(whole["period_id"], whole["started_at"], whole["seconds"], strict=True)
    }
    ids, read = [*middles], [*_read(figures)]
    for first in range(0, len(ids), _AT_A_TIME):
        for readings in store.many_period_readings(ids[first : first + _AT_A_TIME], read):
            middle = middles[readings.period_id]
            halves = readings.between(until=middle), readings.between(middle, until)
            earlier, later = (observations(half, counters) for half in halves)
            for metric in figures.keys() & earlier.keys() & later.keys():
                if (place := places.get((readings.period_id, metric))) is not None:
                    found = (getattr(half[metric], figures[metric]) for half in (earlier, later))
                    table[place] = [np.nan if figure is None else figure for figure in found]
    return rows.assign(**{kind.value: table[:, place] for place, kind in enumerate(HALVES)})


def _read(metrics: Iterable[str]) -> Iterator[str]:
    """Name what must be read for these metrics: themselves, and what they are derived from."""
    for metric in metrics:
        yield metric
        if (derived := find_derived(metric)) is not None:
            yield from derived.inputs
            yield from (name for name, _ in derived.where_read)
