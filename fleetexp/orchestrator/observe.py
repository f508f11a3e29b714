"""Turn a period's readings into observations: one row per metric, read, reported and derived."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from agents.catalogue import DerivedMetric, MetricKind, derive, derived_for, describe, is_known
from analysis.aggregate import Summary, summarise
from analysis.errors import AnalysisError
from fleetexp.store.records import PeriodReadings, Series
from fleetexp.store.store import Store

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def observe(store: Store, period_id: int, counters: frozenset[str] = frozenset()) -> None:
    """Read a period back from the store, summarise it, and store the observations."""
    store.save_observations(period_id, observations(store.period_readings(period_id), counters))


def observations(readings: PeriodReadings, counters: frozenset[str] = frozenset()) -> dict[str, Summary]:
    """Summarise every metric of one period. `counters` are those among the metrics of the user's own.

    A metric whose readings can't be summarised (a counter that fell, a single reading) is left out: missing, never
    zero.
    """
    samples = readings.samples
    out: dict[str, Summary] = {}
    for name, series in samples.items():
        kind = "counter" if is_known(name) and describe(name).kind is MetricKind.COUNTER else "gauge"
        _summarise_into(out, name, series, kind)
    for metric in derived_for(samples):
        if metric.name not in out:
            derived = _levels(metric, samples) if metric.kind is MetricKind.GAUGE else _ratio(metric, samples)
            if derived is not None:
                _summarise_into(out, metric.name, derived, "gauge")
    for name, series in readings.measured.items():
        if name in counters:
            _summarise_into(out, name, series, "counter")
            continue
        # Numbered, not timed: two values may have been reported in one microsecond.
        _summarise_into(out, name, Series(seconds=np.arange(float(series.values.size)), values=series.values), "gauge")
    return out


def _summarise_into(out: dict[str, Summary], name: str, series: Series, kind: str) -> None:
    try:
        out[name] = summarise(series.seconds, series.values, "counter" if kind == "counter" else "gauge")
    except AnalysisError as error:
        log.info("metric %s is left out of this period: %s", name, error)


def _levels(metric: DerivedMetric, samples: Mapping[str, Series]) -> Series | None:
    """A derived gauge: computed in each sample that has all its inputs."""
    rows = list(_rows(metric, samples, _common(metric, samples)))
    if not rows:
        return None
    seconds, values = zip(*rows, strict=True)
    return Series(seconds=np.array(seconds), values=np.array(values))


def _common(metric: DerivedMetric, samples: Mapping[str, Series]) -> Floats:
    """The instants of the samples that have every input."""
    inputs = [samples[name] for name in metric.inputs]
    common = inputs[0].seconds
    for series in inputs[1:]:
        common = np.intersect1d(common, series.seconds)
    return common


def _rows(metric: DerivedMetric, samples: Mapping[str, Series], instants: Floats) -> Iterator[tuple[float, float]]:
    at = {name: dict(zip(samples[name].seconds, samples[name].values, strict=True)) for name in metric.inputs}
    for instant in instants:
        value = derive(metric, {name: float(values[instant]) for name, values in at.items()})
        if value is not None:
            yield float(instant), value


def _ratio(metric: DerivedMetric, samples: Mapping[str, Series]) -> Series | None:
    """A derived counter: one value for the whole period, the ratio of the sums over the same stretch of time."""
    common = _common(metric, samples)
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
