"""What would keep sources from being read on this host, found by reading each once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from agents.feeds.cut import Cut
from agents.feeds.reading import places, read_place
from agents.feeds.unreadable import Unreadable
from agents.messages import MetricSource, Problem, Severity
from agents.sysroot import SysRoot

_AT_ONCE = 16


def check_sources(sources: Sequence[MetricSource], root: SysRoot, *, host: str) -> tuple[Problem, ...]:
    """Return a problem for each source that gives no value: an error where it is needed, else a warning."""
    asked = places(sources, host)
    if not asked:
        return ()
    with ThreadPoolExecutor(min(_AT_ONCE, len(asked)), thread_name_prefix="source") as pool:
        answers = list(pool.map(lambda place: read_place(place, root, Cut()), asked))
    return tuple(
        Problem(
            severity=Severity.ERROR if source.needed else Severity.WARNING,
            what=f"{source.metric} can't be read from {place.name}: {answer.what}",
            where=f"{host}, metrics.sources.{source.metric}",
            remedy=answer.remedy or "start what answers there, or correct the source",
        )
        for place, found in zip(asked, answers, strict=True)
        for source in place.sources
        if isinstance(answer := found[source.metric], Unreadable)
    )
