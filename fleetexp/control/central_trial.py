"""Each query of a spec tried on the last minutes, before anything is touched: which hosts it has something of."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from agents.messages import HostFacts
from fleetexp.central_metrics.client import MOST_STEPS, MetricsClient
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.central_metrics.reading import Stretch, StretchRead, read_stretch, warnings_of
from fleetexp.errors import RunError
from fleetexp.experiment import Experiment
from fleetexp.experiment.central import CentralQuery
from fleetexp.experiment.schedule import host_info

TRIED_SECONDS = 300.0
_MOST_ALONE = 20  # hosts that a query with {host} is tried for
_NAMED = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralTrial:
    """What a query gave. `unmatched`: hosts that no series, or more than one, is of; `strangers`: no host's labels.

    `tried`: of how many hosts it was asked; a query with {host} is tried for the first of them.
    """

    metric: str
    promql: str
    tried: int
    matched: tuple[str, ...]
    unmatched: tuple[str, ...]
    strangers: tuple[str, ...]
    warnings: tuple[str, ...]
    failure: CentralFailure | None
    took_seconds: float
    buckets: str = ""  # of a histogram: how many, and the widest that holds what is wanted, in words
    shared: bool = False  # hosts have the very same values, and these move: they are one number of them all
    native: bool = False  # the answer has native histograms, where numbers are wanted

    @property
    def text(self) -> str:
        """What came of it, in a sentence."""
        if self.failure is not None:
            return f"{self.metric}: no answer ({self.failure.outcome.value}): {self.failure}"
        said = f"{self.metric}: {len(self.matched)} of {self.tried} hosts have values in the last minutes"
        for label, names in (("without", self.unmatched), ("no host of the plan", self.strangers)):
            if names:
                more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
                said += f"; {label}: {', '.join(names[:_NAMED])}{more}"
        if self.shared:
            said += "; ALL HAVE THE VERY SAME VALUES: one number of all hosts is no host's own"
        if self.native:
            said += "; it has native histograms, which are no numbers: add 'quantile', or ask for histogram_quantile"
        told = f"the server warns: {', '.join(self.warnings)}" if self.warnings else ""
        return f"{'; '.join(filter(None, (said, self.buckets, told)))}: {self.promql}"


def try_queries(experiment: Experiment, facts: Sequence[HostFacts]) -> tuple[CentralTrial, ...]:
    """Ask for each query once, over the last minutes; () where the spec names no server."""
    server = experiment.metrics.server
    if server is None:
        return ()
    client = MetricsClient(server)
    try:
        return tuple(_tried(client, query, facts) for query in experiment.central_queries)
    finally:
        client.close()


def _tried(client: MetricsClient, query: CentralQuery, facts: Sequence[HostFacts]) -> CentralTrial:
    last = math.floor((time.time() - query.settle_seconds) / query.step_seconds)
    steps = max(1, min(MOST_STEPS, int(TRIED_SECONDS / query.step_seconds)))
    labels = {one.host: host_info(one).labels for one in facts}
    hosts = tuple(labels)[: None if query.host.by else _MOST_ALONE]
    stretch = Stretch(query=query, first=last - steps + 1, last=last, hosts=hosts)
    read = read_stretch(client, stretch, labels)
    matched = tuple(host for host in hosts if host in read.points and read.points[host].values.size)
    return CentralTrial(
        metric=query.metric,
        promql=read.asked[-1].promql,
        tried=len(hosts),
        matched=matched,
        unmatched=tuple(host for host in hosts if host not in matched),
        strangers=read.strangers,
        warnings=tuple(warnings_of(read)),
        failure=read.failure,
        took_seconds=sum(one.took_seconds for one in read.asked),
        buckets=_buckets(query, read, matched),
        shared=_shared(read, matched),
        native=query.histogram is None
        and any(series.histograms for one in read.asked if one.answer is not None for series in one.answer.series),
    )


def _shared(read: StretchRead, hosts: Sequence[str]) -> bool:
    """Whether several hosts were given the same values at the same instants, and those are not one constant."""
    if len(hosts) < 2 or read.stretch.query.histogram is not None:
        return False
    first, *others = (read.points[host] for host in hosts)
    alike = all(np.array_equal(first.steps, one.steps) and np.array_equal(first.values, one.values) for one in others)
    return alike and np.unique(first.values).size > 2


def _buckets(query: CentralQuery, read: StretchRead, matched: Sequence[str]) -> str:
    """Say how finely the histograms of the hosts answer, by the one that does so worst."""
    found = [(host, one) for host in matched if (one := read.points[host].histogram) is not None]
    if query.histogram is None or not found:
        return ""
    width = {host: float(np.nan_to_num(one.at_most - one.at_least, nan=math.inf).max()) for host, one in found}
    host, worst = max(found, key=lambda item: width[item[0]])
    place = int(np.argmax(np.nan_to_num(worst.at_most - worst.at_least, nan=math.inf)))
    low, high = worst.at_least[place], worst.at_most[place]
    lies = "is exact" if low == high else f"lies between {_end(low)} and {_end(high)}"
    return f"the {query.histogram} {lies} ({worst.buckets} buckets, {host})"


def _end(value: float) -> str:
    return "no end" if math.isnan(value) else f"{value:g}"


def refusals_of(experiment: Experiment, trials: Sequence[CentralTrial]) -> Iterator[RunError]:
    """Yield why a run would have nothing to decide by: its primary metric has no value of any host, or no own one."""
    for trial in trials:
        if trial.metric == experiment.metrics.primary and trial.shared:
            yield RunError(
                f"the primary metric is no host's own: {trial.text}",
                where=f"metrics.sources.{trial.metric}",
                remedy="let the query keep the hosts apart: 'sum by (instance) (...)'",
            )
        if trial.metric == experiment.metrics.primary and not trial.matched:
            remedy = "mend the query, 'by' and the way from label to host; 'fleetexp plan' tries it again"
            yield RunError(
                f"the primary metric has no value: {trial.text}",
                where=f"metrics.sources.{trial.metric}",
                remedy=trial.failure.remedy or remedy if trial.failure is not None else remedy,
            )
