"""Events of a host that is not this machine: its model writes them as files `perf/<event>` under its root.

One line for each CPU: 'cpu count nanoseconds_enabled nanoseconds_running', as perf_event_open would answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from agents.catalogue.table import COUNTED_ALWAYS
from agents.perf.own_events import find_own_events
from agents.perf.pmu import DEVICES
from agents.perf.scaling import COVERAGE_FLOOR, Reading, ScaledCounts
from agents.sysroot import SysRoot


class ModelledCounters:
    """The same counts, scaling and reasons as `PerfCounters`, over files."""

    def __init__(
        self,
        root: SysRoot,
        names: Sequence[str] = COUNTED_ALWAYS,
        *,
        own: Mapping[str, str] = MappingProxyType({}),
        prefix: str = "",
        floor: float = COVERAGE_FLOOR,
    ) -> None:
        self.apart: tuple[str, ...] = ()  # a model has counters for all
        offered = set(root.names("perf"))
        metrics = [*(prefix + name for name in names), *own]
        self.unavailable: dict[str, str] = {
            metric: "perf events are counted on the machine's own root only, and this one models none"
            for metric in metrics
            if metric not in offered
        }
        if root.names(DEVICES):  # where a PMU is shown, it says what it takes
            self.unavailable |= find_own_events(root, own)[1]
        self._root = root
        self._counts = {metric: ScaledCounts([metric], floor) for metric in metrics if metric not in self.unavailable}

    def collect(self, out: dict[str, float], *, boundary: bool = False) -> None:
        """Add each event's scaled count, and the times it was wanted and counted, to `out`."""
        for metric, count in self._counts.items():
            try:
                readings = self._read(metric)
            except (OSError, ValueError) as error:
                self.unavailable[metric] = f"/perf/{metric}: {error}"
                continue
            count.collect(readings, out, self.unavailable, boundary=boundary)

    def _read(self, metric: str) -> dict[int, Reading]:
        found: dict[int, Reading] = {}
        for line in self._root.read(f"perf/{metric}").splitlines():
            cpu, count, enabled, running = (int(word) for word in line.split())
            found[cpu] = (enabled, running, count)
        return found

    def close(self) -> None:
        self._counts.clear()
