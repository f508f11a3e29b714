"""What would keep sources from being read on this host, found by reading each once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from agents.messages import MetricSource, Problem, Severity
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.instants import OUTDATED_SECONDS, check_age
from agents.metric_sources.period_histogram import too_coarse
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import places, read_place
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import SysRoot

_AT_ONCE = 16


def check_sources(sources: Sequence[MetricSource], root: SysRoot, *, host: str) -> tuple[Problem, ...]:
    """Return a problem for each source that gives no value: an error where it is needed, else a warning."""
    asked = places(sources, host)
    if not asked:
        return ()
    with ThreadPoolExecutor(min(_AT_ONCE, len(asked)), thread_name_prefix="source") as pool:
        answers = list(pool.map(lambda place: read_place(place, root, Cancellation()), asked))
    return tuple(
        problem
        for place, found in zip(asked, answers, strict=True)
        for source in place.sources
        for problem in _problems(source, found[source.metric], f"{host}, metrics.sources.{source.metric}", place.name)
    )


def _problems(source: MetricSource, one: SeriesValue | Unreadable, where: str, place: str) -> Iterator[Problem]:
    if (answer := _why_not(one)) is not None:
        yield Problem(
            severity=Severity.ERROR if source.needed else Severity.WARNING,
            what=f"{source.metric} can't be read from {place}: {answer.what}",
            where=where,
            remedy=answer.remedy or "start what answers there, or correct the source",
        )
    elif isinstance(one, SeriesValue) and one.buckets and (coarse := too_coarse(source, one)) is not None:
        yield Problem(severity=Severity.WARNING, what=f"{source.metric}: {coarse[0]}", where=where, remedy=coarse[1])


def _why_not(one: SeriesValue | Unreadable) -> Unreadable | None:
    """Return why a period would not take what was read, if it would not."""
    if isinstance(one, Unreadable):
        return one
    if one.at_seconds is not None:
        now = time.time()
        try:
            check_age(
                one.at_seconds,
                oldest_seconds=now - OUTDATED_SECONDS,
                now_seconds=now,
                since=f"more than {OUTDATED_SECONDS:g} s ago",
            )
        except Unreadable as error:
            return error
    return None
