"""Scaling of multiplexed counts: what a counter would have read had it been on the PMU all the time.

A count is scaled interval by interval, by time enabled / time running of that interval on that CPU: a long history
must not smooth the present. An interval that the counter hardly saw is not scaled but left open: it is joined to the
next, and until enough has been seen the count is invalid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import sub

COVERAGE_FLOOR = 0.2
TURN_SECONDS = 0.1  # by then each had some turns: a CPU changes them every 4 ms (perf_event_mux_interval_ms in sysfs)
_TURN_NANOSECONDS = int(TURN_SECONDS * 1e9)
_NO_TURN = 0.001  # share of the time: the kernel takes some to find out that a group does not fit
_NEGLIGIBLE = 0.01  # share of the enabled time that may lie on CPUs below the floor

# Nanoseconds enabled, nanoseconds running, then a count for each event; all since the events were opened.
Reading = tuple[int, ...]


class ScaledCounts:
    """Events that are counted together, over their CPUs: they share the times, and whether they may be used.

    `totals` are the scaled counts so far, in the order of `metrics`; `invalid` says why they may not be used now.
    """

    __slots__ = (
        "_floor",
        "_last",
        "_names",
        "_start",
        "enabled_seconds",
        "invalid",
        "metrics",
        "never",
        "running_seconds",
        "still",
        "totals",
    )

    def __init__(self, metrics: Sequence[str], floor: float = COVERAGE_FLOOR) -> None:
        self.metrics = tuple(metrics)
        self.totals = [0.0] * len(self.metrics)
        self.enabled_seconds = 0.0  # of the intervals already counted, summed over CPUs
        self.running_seconds = 0.0
        self.invalid = ""
        self.still: list[int] = []  # CPUs where not even the enabled time has passed since the last reading
        self.never: list[int] = []  # CPUs where they have had no turn
        self._floor = floor
        self._names = tuple(
            (metric, f"{metric}_time_enabled_seconds", f"{metric}_time_running_seconds") for metric in self.metrics
        )
        self._start: Reading = (0,) * (2 + len(self.metrics))
        self._last: dict[int, Reading] = {}

    def add(self, readings: Mapping[int, Reading]) -> None:
        """Take the present readings, by CPU. A CPU seen for the first time counts from its events' start."""
        enabled_now = unseen = 0
        self.still, self.never = [], []
        for cpu, reading in readings.items():
            last = self._last.get(cpu, self._start)
            enabled, running, *rises = map(sub, reading, last)
            enabled_now += enabled
            scale: float = 1
            if enabled != running:  # multiplexed
                if running < _NO_TURN * enabled and enabled >= _TURN_NANOSECONDS:
                    self.never.append(cpu)
                if running < self._floor * enabled:
                    unseen += enabled
                    continue  # stays open: its baseline is kept
                scale = enabled / running
            elif enabled == 0:
                self.still.append(cpu)
            self.totals = [total + rise * scale for total, rise in zip(self.totals, rises, strict=True)]
            self.enabled_seconds += enabled * 1e-9
            self.running_seconds += running * 1e-9
            self._last[cpu] = reading
        if unseen > _NEGLIGIBLE * enabled_now:
            share = unseen / enabled_now
            self.invalid = (
                f"the event was on the PMU less than {self._floor:.0%} of the time, on {share:.0%} of CPU time"
            )
        else:
            self.invalid = ""

    def start_afresh(self, readings: Mapping[int, Reading]) -> None:
        """Forget open intervals: a period must not inherit what the one before it did not see."""
        self._last.update(readings)

    def forget(self, cpu: int) -> None:
        """Drop a CPU whose events are closed; what they counted stays in the totals."""
        self._last.pop(cpu, None)

    def only(self, metrics: Sequence[str]) -> ScaledCounts:
        """Return some of these counts, open intervals forgotten."""
        totals = dict(zip(self.metrics, self.totals, strict=True))
        fewer = ScaledCounts(metrics, self._floor)
        fewer.totals = [totals[metric] for metric in metrics]
        fewer.enabled_seconds, fewer.running_seconds = self.enabled_seconds, self.running_seconds
        return fewer

    def collect(
        self, readings: Mapping[int, Reading], out: dict[str, float], unavailable: dict[str, str], *, boundary: bool
    ) -> None:
        """Take the readings and add to a sample: the counts only where they are valid, the times always."""
        if not readings:
            unavailable.update(dict.fromkeys(self.metrics, "the event is counted on no CPU any more"))
            return
        self.add(readings)
        if self.invalid:
            unavailable.update(dict.fromkeys(self.metrics, self.invalid))
            if boundary:
                self.start_afresh(readings)
        for (metric, enabled, running), total in zip(self._names, self.totals, strict=True):
            if not self.invalid:
                unavailable.pop(metric, None)
                out[metric] = total
            out[enabled] = self.enabled_seconds
            out[running] = self.running_seconds
