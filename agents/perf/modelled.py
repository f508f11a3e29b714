"""Events of a host that is not this machine: its model writes them as files `perf/<event>` under its root.

One line for each CPU: 'cpu count nanoseconds_enabled nanoseconds_running', as perf_event_open would answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from agents.catalogue.table import COUNTED_ALWAYS
from agents.perf.scaling import COVERAGE_FLOOR, Reading, ScaledCounts
from agents.sysroot import SysRoot


class ModelledCounters:
    """The same counts, scaling and reasons as `PerfCounters`, over files."""

    def __init__(
        self,
        root: SysRoot,
        names: Sequence[str] = COUNTED_ALWAYS,
        *,
        prefix: str = "",
        floor: float = COVERAGE_FLOOR,
    ) -> None:
        offered = set(root.names("perf"))
        self.unavailable: dict[str, str] = {
            prefix + name: "perf events are counted on the machine's own root only, and this one models none"
            for name in names
            if prefix + name not in offered
        }
        self._root = root
        self._counts = {
            prefix + name: ScaledCounts([prefix + name], floor) for name in names if prefix + name in offered
        }

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
