"""All sources of one period."""

from __future__ import annotations

from collections.abc import Sequence

from agents.messages import MetricSource
from agents.metric_sources.reading import places
from agents.metric_sources.source_reader import Measured, SourceReader
from agents.sysroot import SysRoot


class PeriodSources:
    """A thread for each place that is read. None of them ever holds up who asks for what they have."""

    def __init__(
        self, sources: Sequence[MetricSource], root: SysRoot, *, host: str, sample_every_seconds: float
    ) -> None:
        self.metrics = frozenset(name for source in sources for name in source.names)
        self._metric_sources = [
            SourceReader(place, root, every_seconds=place.first.every_seconds or sample_every_seconds)
            for place in places(sources, host)
        ]
        self._lost: list[tuple[str, str]] = []

    def start(self) -> None:
        """Read everything for the first time, and go on."""
        for source_reader in self._metric_sources:
            source_reader.start()

    def stop(self) -> None:
        """Take nothing any more; what was read before can still be fetched."""
        for source_reader in self._metric_sources:
            source_reader.stop()

    def measurements(self) -> list[Measured]:
        """Return the values that were read since the last call, each with its instant."""
        out: list[Measured] = []
        for source_reader in self._metric_sources:
            measured, lost = source_reader.take()
            out += measured
            self._lost += lost
        return out

    def lost(self) -> list[tuple[str, str]]:
        """Return the outages that the last call of `measurements` saw beginning, each a metric and a sentence."""
        lost, self._lost = self._lost, []
        return lost
