"""Turn a period's readings into observations: one row per metric, read, reported and derived."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from agents.catalogue import DerivedMetric, MetricKind, derive, derived_for, describe, is_known
from agents.catalogue.derived import Terms
from analysis.aggregate import Kind, Summary, summarise, summarise_many
from analysis.errors import AnalysisError
from fleetexp.store.records import PeriodReadings, Series
from fleetexp.store.store import Store

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
AWAY_SHARE = 0.2  # of a period, as of a histogram's, and of the instants that a metrics' server is asked for


def observe(
    store: Store,
    period_ids: Sequence[int],
    counters: frozenset[str] = frozenset(),
    *,
    elsewhere: frozenset[str] = frozenset(),
    apart: Mapping[str, float] | None = None,
) -> None:
    """Read periods back from the store, summarise them, and store the observations.

    What is read `elsewhere` than on the hosts is left out: the period has it whole only later. `apart`: as of
    `mostly_read`.
    """
    found = (mostly_read(one, counters, apart or {}) for one in store.many_period_readings(period_ids))
    summaries = {one.period_id: observations(one, counters) for one in found}
    store.save_many_observations(
        {
            period_id: {metric: one for metric, one in of_period.items() if metric not in elsewhere}
            for period_id, of_period in summaries.items()
        }
    )


def mostly_read(readings: PeriodReadings, counters: frozenset[str], apart: Mapping[str, float]) -> PeriodReadings:
    """Leave out of a period what was away at a stretch for more than a fifth of it: its mean would be of another time.

    `apart`: source of the user's own -> seconds between two readings, at most, while it answers. A counter goes on
    counting while nobody reads it: of one only what lies before the first reading and after the last is unread.
    """
    ticks = [one.seconds[[0, -1]] for one in readings.samples.values() if one.seconds.size]
    if readings.began is None or not ticks:
        return readings
    taken_at, boottime = readings.began
    first, last = (taken_at.timestamp() - boottime + float(end) for end in (np.min(ticks), np.max(ticks)))
    away = set()
    for name in apart.keys() & readings.measured.keys():
        gaps = np.diff([first, *readings.measured[name].seconds, last]).clip(min=0.0)
        usual = 2 * float(np.median(gaps[1:-1])) if gaps.size > 2 else 0.0  # it may give instants of its own
        unread = gaps[0] + gaps[-1] if name in counters else gaps.max()
        if unread > max(apart[name], usual, AWAY_SHARE * (last - first)):
            away.add(name)
    return replace(readings, measured={name: one for name, one in readings.measured.items() if name not in away})


def observations(readings: PeriodReadings, counters: frozenset[str] = frozenset()) -> dict[str, Summary]:
    """Summarise every metric of one period. `counters` are those among the metrics of the user's own.

    A metric whose readings can't be summarised (a counter that fell, a single reading) is left out: missing, never
    zero.
    """
    samples = readings.samples
    chosen: dict[str, tuple[Series, Kind]] = {}
    for name, series in samples.items():
        counter = describe(name).kind is MetricKind.COUNTER if is_known(name) else name in counters
        chosen[name] = series, "counter" if counter else "gauge"
    for metric in derived_for(samples):
        if metric.name not in samples:
            derived = _levels(metric, samples) if metric.kind is MetricKind.GAUGE else _ratio(metric, samples)
            if derived is not None:
                chosen[metric.name] = derived, "gauge"
    for name, series in readings.measured.items():
        if name in chosen:  # kept before names had owners: the host's own stands
            continue
        if name in counters:
            chosen[name] = series, "counter"
            continue
        # Numbered, not timed: two values may have been reported in one microsecond.
        chosen[name] = Series(seconds=np.arange(float(series.values.size)), values=series.values), "gauge"
    return _summarised(chosen)


def _summarised(chosen: Mapping[str, tuple[Series, Kind]]) -> dict[str, Summary]:
    """Summarise those that were read at the same instants in one go: a host's metrics are, all but a few."""
    alike: dict[tuple[bytes, str], list[str]] = {}
    for name, (series, kind) in chosen.items():
        alike.setdefault((series.seconds.tobytes(), kind), []).append(name)
    out: dict[str, Summary] = {}
    for names in alike.values():
        first, kind = chosen[names[0]]
        table = np.column_stack([chosen[name][0].values for name in names])
        try:
            found = summarise_many(first.seconds, table, (kind,) * len(names), names)
        except AnalysisError:  # one of them is no good: each for itself
            for name in names:
                _summarise_into(out, name, *chosen[name])
        else:
            out.update(zip(names, found, strict=True))
    return {name: out[name] for name in chosen if name in out}


def _summarise_into(out: dict[str, Summary], name: str, series: Series, kind: Kind) -> None:
    try:
        out[name] = summarise(series.seconds, series.values, kind)
    except AnalysisError as error:
        log.info("metric %s is left out of this period: %s", name, error)


def _levels(metric: DerivedMetric, samples: Mapping[str, Series]) -> Series | None:
    """A derived gauge: computed in each sample that has all its inputs, as `derive` does it for one."""
    terms = metric.over(samples)
    common = _common([name for name, _ in (*terms, *metric.denominator)], samples)
    top = _weighed(terms, samples, common)
    if metric.denominator:
        bottom = _weighed(metric.denominator, samples, common)
        common, top, bottom = (part[bottom != 0] for part in (common, top, bottom))
        top = top / bottom
    return Series(seconds=common, values=top * metric.scale) if common.size else None


def _weighed(terms: Terms, samples: Mapping[str, Series], instants: Floats) -> Floats:
    total = np.zeros(instants.size)
    for name, weight in terms:
        series = samples[name]
        total += series.values[np.searchsorted(series.seconds, instants)] * weight
    return total


def _common(names: Sequence[str], samples: Mapping[str, Series]) -> Floats:
    """The instants of the samples that have every input."""
    inputs = [samples[name] for name in names]
    common = inputs[0].seconds
    for series in inputs[1:]:
        if series.seconds.size != common.size or (series.seconds != common).any():
            common = np.intersect1d(common, series.seconds)
    return common


def _ratio(metric: DerivedMetric, samples: Mapping[str, Series]) -> Series | None:
    """A derived counter: one value for the whole period, the ratio of the sums over the same stretch of time."""
    common = _common(metric.inputs, samples)
    risen: dict[str, float] = {}
    for name in metric.inputs:
        series = samples[name]
        if common.size < 2 or (np.diff(series.values) < 0).any():
            return None
        first, last = np.searchsorted(series.seconds, common[[0, -1]])
        risen[name] = float(series.values[last] - series.values[first])
    value = derive(metric, risen)
    if value is None:
        return None
    return Series(seconds=common[-1:], values=np.array([value]))
