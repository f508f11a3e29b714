"""The sources of a service's own metrics on a simulated host: no address is asked and no command is run."""

from __future__ import annotations

from collections.abc import Sequence

from agents.errors import WorkloadError
from agents.messages import MetricSource, Problem
from agents.simulated.kernel import SimulatedRoot
from agents.sysroot import SysRoot
from agents.workloads import Measured


class SimulatedFeeds:
    """Gives, whenever it is asked, what the host's model says its service would show; counters add that up."""

    def __init__(
        self, sources: Sequence[MetricSource], root: SysRoot, *, host: str, sample_every_seconds: float
    ) -> None:
        if not isinstance(root, SimulatedRoot):
            raise WorkloadError("only a simulated host has simulated sources", where=host, remedy="read them there")
        self.metrics = frozenset(name for source in sources for name in source.names)
        self._read = frozenset(source.metric for source in sources if not source.perf)
        self._root = root
        self._counters = frozenset(source.metric for source in sources if source.counter)
        self._totals = dict.fromkeys(self._counters, 0.0)
        self._asked_at = root.clock.monotonic()
        self._running = False

    def start(self) -> None:
        self._running = True
        self._root.read_elsewhere = self.metrics

    def stop(self) -> None:
        self._running = False

    def measurements(self) -> list[Measured]:
        if not self._running:
            return []
        clock = self._root.clock
        self._root.catch_up()
        seconds, self._asked_at = clock.monotonic() - self._asked_at, clock.monotonic()
        out: list[Measured] = []
        for metric, level in self._root.response_model.measure().items():
            if metric not in self._read:
                continue
            value = level
            if metric in self._counters:
                value = self._totals[metric] = self._totals[metric] + level * seconds
            out.append((clock.now(), metric, value))
        return out

    def lost(self) -> list[tuple[str, str]]:
        return []


def check_simulated_sources(sources: Sequence[MetricSource], root: SysRoot, *, host: str) -> tuple[Problem, ...]:
    """Whatever they are, a simulated service has them."""
    return ()
