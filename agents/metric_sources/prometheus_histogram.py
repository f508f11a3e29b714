"""The buckets of a histogram on a Prometheus or OpenMetrics page, of every series that the source chooses."""

from __future__ import annotations

import math
from itertools import pairwise

from agents.messages import MetricSource
from agents.metric_sources.exposition import Exposition, ExpositionSample, broken, lines_about, sample_of
from agents.metric_sources.prometheus_text import SeriesValue, chosen_series, created_at, key_of, number_of
from agents.metric_sources.unreadable import Unreadable

_AT_A_SERVER = "ask the metrics' server, which has it: 'promql: {name}, quantile: ..., by: instance'"


def histogram_buckets(page: Exposition, source: MetricSource) -> SeriesValue:
    """Return the cumulative buckets as they stand on the page; Unreadable where it has none, or no classic ones."""
    name = source.pick
    if _is_native(page, name):
        what = f"{name} is a native histogram, whose buckets no library that we know reads from a page"
        raise Unreadable(what, _AT_A_SERVER.format(name=name))
    chosen = chosen_series(page, f"{name}_bucket", source.labels)
    if chosen.counter is False:
        what = f"the page says that {name} is a gauge histogram: its buckets do not count what happened in a period"
        raise Unreadable(what, "name a histogram")
    buckets: dict[str, list[tuple[float, float]]] = {}
    for sample in chosen.samples.values():
        series = key_of({label: value for label, value in sample.labels.items() if label != "le"})
        count = number_of(page, sample)
        buckets.setdefault(series, []).append((_bound(page, sample), count))
    for series, found in buckets.items():
        found.sort()
        if found[-1][0] != math.inf:
            raise Unreadable(f'{name}{series} has no bucket with le="+Inf"', "let every bucket be on the page")
        if any(before[1] > after[1] for before, after in pairwise(found)):
            raise Unreadable(f"the buckets of {name}{series} fall as their bounds rise", "correct the exporter")
    if all(len(found) == 1 for found in buckets.values()):
        what = f'{name} has no bucket but le="+Inf": so a native histogram is written as text'
        raise Unreadable(what, f"let it have classic buckets too, or {_AT_A_SERVER.format(name=name)}")
    return SeriesValue(
        value=sum(found[-1][1] for found in buckets.values()),
        at_seconds=chosen.instant,
        written_as=1.0 if page.openmetrics else 1000.0,
        created=created_at(page, name, buckets),
        buckets=buckets,
    )


def _is_native(page: Exposition, name: str) -> bool:
    samples = (sample_of(page, line) for line in lines_about(page, name) if not line.word and line.name == name)
    return any(sample.value.startswith("{") for sample in samples)


def _bound(page: Exposition, sample: ExpositionSample) -> float:
    try:
        bound = float(sample.labels["le"])
    except (KeyError, ValueError):
        bound = math.nan
    if math.isnan(bound):
        raise broken(page, sample.line, f"{sample.name} has no bound that is a number in 'le'")
    return bound
