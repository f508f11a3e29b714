"""One reading of one place: what it says is asked for once, however many metrics are picked from it."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agents.feeds.command_output import run_command
from agents.feeds.cut import Cut
from agents.feeds.json_document import number_at
from agents.feeds.number import as_number
from agents.feeds.plain_file import read_file
from agents.feeds.prometheus_text import ACCEPT, SeriesValue, series_value
from agents.feeds.unreadable import Unreadable
from agents.feeds.web_page import Page, fetch
from agents.messages import MetricSource, SourceForm
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)

Found = Mapping[str, SeriesValue | Unreadable]  # metric -> its value, or why there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An address, a command or a file, and the sources that pick from it."""

    name: str
    sources: tuple[MetricSource, ...]

    @property
    def first(self) -> MetricSource:
        return self.sources[0]


def places(sources: Sequence[MetricSource], host: str) -> tuple[Place, ...]:
    """Put sources that read the same thing in the same way together. `host` stands for {host} in an address."""
    together: dict[tuple[object, ...], list[MetricSource]] = {}
    for source in sources:
        where = (source.url, source.argv, source.file)
        how = (source.user, source.every_seconds, source.timeout_seconds, source.form is SourceForm.PROMETHEUS)
        together.setdefault((*where, *how), []).append(source)
    return tuple(Place(name=_name(group[0], host), sources=tuple(group)) for group in together.values())


def _name(source: MetricSource, host: str) -> str:
    return source.url.replace("{host}", host) or source.file or shlex.join(source.argv)


def read_place(place: Place, root: SysRoot, cut: Cut) -> Found:
    """Read a place once, within its timeout; never raises."""
    timer = threading.Timer(place.first.timeout_seconds, cut.now)
    timer.daemon = True
    timer.start()
    try:
        page = _ask(place, root, cut)
    except Unreadable as error:
        return dict.fromkeys((source.metric for source in place.sources), error)
    except Exception as error:
        log.exception("%s: reading it failed", place.name)
        return dict.fromkeys((source.metric for source in place.sources), Unreadable(f"a defect: {error!r}"))
    finally:
        timer.cancel()
    return {source.metric: _pick(page, source) for source in place.sources}


def _ask(place: Place, root: SysRoot, cut: Cut) -> Page:
    first = place.first
    if first.url:
        accept = ACCEPT if first.form is SourceForm.PROMETHEUS else "application/json,*/*;q=0.1"
        return fetch(place.name, accept=accept, timeout_seconds=first.timeout_seconds, cut=cut)
    if first.argv:
        said = run_command(first.argv, user=first.user, timeout_seconds=first.timeout_seconds, cut=cut)
        return Page(body=said, content_type="")
    return Page(body=read_file(root, first.file), content_type="")


def _pick(page: Page, source: MetricSource) -> SeriesValue | Unreadable:
    try:
        match source.form:
            case SourceForm.PROMETHEUS:
                return series_value(page.body, page.content_type, source)
            case SourceForm.JSON:
                return SeriesValue(value=number_at(page.body, source.pick), at_seconds=None)
            case SourceForm.NUMBER:
                return SeriesValue(value=as_number(page.body.decode(errors="replace").strip()), at_seconds=None)
    except Unreadable as error:
        return error


def boottime() -> float:
    """CLOCK_BOOTTIME: differences are durations, also across a change of the wall clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
