"""One reading of one place: what it says is asked for once, however many metrics are picked from it."""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agents.collectors.notes import why
from agents.messages import MetricSource
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.command_output import run_command
from agents.metric_sources.instants import check_instant
from agents.metric_sources.page import SourcePage
from agents.metric_sources.parser import READERS
from agents.metric_sources.picking import Found
from agents.metric_sources.place_kind import place_kinds
from agents.metric_sources.prometheus_text import ACCEPT, SeriesValue
from agents.metric_sources.unreadable import Unreadable
from agents.metric_sources.web_page import fetch
from agents.registry import Group, refused
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReading:
    """An address, a command, or a place of a registered kind, and the sources that pick from it."""

    name: str
    sources: tuple[MetricSource, ...]

    @property
    def first(self) -> MetricSource:
        return self.sources[0]


def places(sources: Sequence[MetricSource], host: str) -> tuple[SourceReading, ...]:
    """Put sources that read the same thing in the same way together. `host` stands for {host} in an address."""
    together: dict[tuple[object, ...], list[MetricSource]] = {}
    for source in (one for one in sources if not one.perf):  # those are counted with the samples
        where = (source.url, source.argv, source.place, source.at)
        how = (source.user, source.every_seconds, source.timeout_seconds, source.form.exposition)
        together.setdefault((*where, *how), []).append(source)
    return tuple(SourceReading(name=_name(group[0], host), sources=tuple(group)) for group in together.values())


def _name(source: MetricSource, host: str) -> str:
    return source.url.replace("{host}", host) or source.at or shlex.join(source.argv)


def read_place(place: SourceReading, root: SysRoot, cut: Cancellation) -> Found:
    """Read a place once, within its timeout; never raises."""
    try:
        found = _read(place, root, cut)
    except Unreadable as error:
        return dict.fromkeys((source.metric for source in place.sources), error)
    except Exception as error:
        log.exception("%s: reading it failed", place.name)
        return dict.fromkeys((source.metric for source in place.sources), Unreadable(f"a defect: {error!r}"))
    return found


def _read(place: SourceReading, root: SysRoot, cut: Cancellation) -> Found:
    began = boottime()
    with cut.after(place.first.timeout_seconds):
        page = _ask(place, root, cut)
    took = boottime() - began
    found = READERS.pick(page, place.sources, seconds=place.first.timeout_seconds - took, cut=cut)
    return {metric: _asked_at(one, began + took / 2) for metric, one in found.items()}


def _ask(place: SourceReading, root: SysRoot, cut: Cancellation) -> SourcePage:
    first = place.first
    if first.url:
        accept = ACCEPT if first.form.exposition else "application/json,*/*;q=0.1"
        return fetch(place.name, accept=accept, timeout_seconds=first.timeout_seconds, cut=cut)
    if first.argv:
        said = run_command(first.argv, user=first.user, timeout_seconds=first.timeout_seconds, cut=cut)
        return SourcePage(body=said, whole=True)
    kind = place_kinds().get(first.place)
    if kind is None:
        raise Unreadable(f"this host knows no place {first.place!r}", refused(Group.SOURCES, first.place))
    try:
        return SourcePage(body=kind.read(first.at, root, first.timeout_seconds, cut))
    except (OSError, ValueError) as error:
        raise Unreadable(why(error)) from error


def _asked_at(one: SeriesValue | Unreadable, boottime_seconds: float) -> SeriesValue | Unreadable:
    """Date a value; Unreadable where the page itself gives it an instant that can't be."""
    if isinstance(one, Unreadable):
        return one
    try:
        if one.at_seconds is not None:
            check_instant(one.at_seconds, now_seconds=time.time(), written_as=one.written_as)
    except Unreadable as error:
        return error
    return replace(one, asked_boottime=boottime_seconds)


def boottime() -> float:
    """CLOCK_BOOTTIME: differences are durations, also across a change of the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
