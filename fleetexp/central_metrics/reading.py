"""One stretch of time read for one metric: of all hosts with one request, whatever their number."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from fleetexp.central_metrics.answer import CentralAnswer, CentralSeries, Floats
from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.central_metrics.histograms import HistogramPoints, histogram_points
from fleetexp.domain import CentralOutcome
from fleetexp.experiment.central import CentralQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """What is to be read: instants `first` to `last`, both included, counted in steps since 1970."""

    query: CentralQuery
    first: int
    last: int
    hosts: tuple[str, ...]

    @property
    def seconds(self) -> tuple[float, float]:
        return self.first * self.query.step_seconds, self.last * self.query.step_seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class HostPoints:
    """The finite values of one host: which instants, in steps since 1970, rising, and the values."""

    steps: Floats
    values: Floats
    histogram: HistogramPoints | None = None  # where the values are of one


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedQuery:
    """One request of a reading, as it is stored."""

    promql: str
    asked_at: float  # Unix seconds by the orchestrator's clock
    took_seconds: float
    answer: CentralAnswer | None
    failure: CentralFailure | None

    @property
    def outcome(self) -> CentralOutcome:
        return CentralOutcome.ANSWERED if self.failure is None else self.failure.outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class StretchRead:
    """What came of reading a stretch. `points`: host -> its values; `strangers`: label values that are no host's.

    `ambiguous`: hosts that several series claim: none of them is theirs. Where `failure` is not None nothing counts.
    """

    stretch: Stretch
    asked: tuple[AskedQuery, ...]
    points: Mapping[str, HostPoints] = field(default_factory=dict)
    ambiguous: frozenset[str] = frozenset()
    strangers: tuple[str, ...] = ()

    @property
    def failure(self) -> CentralFailure | None:
        return next((one.failure for one in self.asked if one.failure is not None), None)


def read_stretch(client: MetricsClient, stretch: Stretch, labels: Mapping[str, Mapping[str, str]]) -> StretchRead:
    """Ask for a stretch; never raises CentralFailure. `labels`: every host of the run, with its inventory's labels.

    A query with {host} is asked host by host, any other once.
    """
    query = stretch.query
    asked: list[AskedQuery] = []
    for host in stretch.hosts if not query.host.by else ("",):
        asked.append(_ask(client, stretch, query.asked(host)))
        if asked[-1].failure is not None:
            return StretchRead(stretch=stretch, asked=tuple(asked))
    answers = [one.answer for one in asked if one.answer is not None]
    if query.host.by:
        owned, strangers = by_host(query, answers[0].series, labels)
    else:
        owned = {host: list(answer.series) for host, answer in zip(stretch.hosts, answers, strict=True)}
        strangers = ()
    if query.histogram is not None:
        read = {host: histogram_points(series, query.histogram, query.step_seconds) for host, series in owned.items()}
        return StretchRead(
            stretch=stretch,
            asked=tuple(asked),
            points={
                host: HostPoints(steps=one.steps, values=one.values, histogram=one)
                for host, one in read.items()
                if not one.ambiguous
            },
            ambiguous=frozenset(host for host, one in read.items() if one.ambiguous),
            strangers=strangers,
        )
    return StretchRead(
        stretch=stretch,
        asked=tuple(asked),
        points={host: _points(series[0], query) for host, series in owned.items() if len(series) == 1},
        ambiguous=frozenset(host for host, series in owned.items() if len(series) > 1),
        strangers=strangers,
    )


def _ask(client: MetricsClient, stretch: Stretch, promql: str) -> AskedQuery:
    query, (start, end) = stretch.query, stretch.seconds
    at, began = time.time(), time.monotonic()
    answer, failure = None, None
    try:
        answer = client.query_range(
            promql, start=start, end=end, step_seconds=query.step_seconds, fresh_seconds=query.fresh_seconds
        )
    except CentralFailure as error:
        failure = error
    return AskedQuery(promql=promql, asked_at=at, took_seconds=time.monotonic() - began, answer=answer, failure=failure)


def by_host(
    query: CentralQuery, series: Collection[CentralSeries], labels: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, list[CentralSeries]], tuple[str, ...]]:
    """Return host -> its series, and what the label of the others says."""
    hosts = query.host.hosts(labels)
    owned: dict[str, list[CentralSeries]] = {}
    strangers: dict[str, None] = {}
    for one in series:
        value = one.labels.get(query.host.by, "")
        host = hosts.get(query.host.name(value))
        if host is None:
            strangers[value] = None
        else:
            owned.setdefault(host, []).append(one)
    return owned, tuple(strangers)


def _points(series: CentralSeries, query: CentralQuery) -> HostPoints:
    finite = np.isfinite(series.values)
    return HostPoints(steps=np.round(series.seconds[finite] / query.step_seconds), values=series.values[finite])


def warnings_of(read: StretchRead) -> Iterator[str]:
    """Yield what the server itself says of its answers, each once."""
    yield from dict.fromkeys(
        text for one in read.asked if one.answer is not None for text in (*one.answer.warnings, *one.answer.infos)
    )
