"""A collector of a user's package, held to what it declared: what it does wrong costs its own metrics alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from agents.catalogue.table import CATALOGUE
from agents.collectors.collector import Collector
from agents.collectors.notes import Notes
from agents.collectors.sources import Source
from agents.numbers import IMPLAUSIBLE
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)


class FencedCollector:
    """Takes of a collector the metrics that are its own in the catalogue, where they can be true."""

    def __init__(self, collector: Collector, root: SysRoot, notes: Notes) -> None:
        own = (metric for metric in collector.metrics if CATALOGUE.get(metric.name) == replace(metric, column=False))
        self._names = tuple(metric.name for metric in own)
        self._notes = notes
        self._sources: Sequence[Source] = ()
        self._attempt(lambda: self._open(collector, root))

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(path for source in self._sources for path in source.paths)

    def collect(self, out: dict[str, float]) -> None:
        seen: dict[str, float] = {}
        if not self._attempt(lambda: self._each(lambda source: source.collect(seen))):
            return
        own = {name: float(seen[name]) for name in self._names if isinstance(seen.get(name), int | float)}
        for name, value in own.items():
            if 0 <= value < IMPLAUSIBLE:
                out[name] = value
            else:
                self._notes.doubted(name, f"its collector says {value}")

    def retry(self) -> None:
        self._attempt(lambda: self._each(lambda source: source.retry()))

    def close(self) -> None:
        self._attempt(lambda: self._each(lambda source: source.close()))

    def _open(self, collector: Collector, root: SysRoot) -> None:
        self._sources = collector.open(root, self._notes)

    def _each(self, do: Callable[[Source], None]) -> None:
        for source in self._sources:
            do(source)

    def _attempt(self, do: Callable[[], None]) -> bool:
        try:
            do()
            return True
        except Exception as error:
            log.exception("the collector of %s failed", ", ".join(self._names))
            for name in self._names:
                self._notes.doubted(name, f"its collector has a defect: {error!r}")
            return False
