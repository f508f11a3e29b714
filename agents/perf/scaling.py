"""Scaling of multiplexed counts: what a counter would have read had it been on the PMU all the time.

A count is scaled interval by interval, by time enabled / time running of that interval on that CPU: a long history
must not smooth the present. An interval that the counter hardly saw is not scaled but left open: it is joined to the
next, and until enough has been seen the count is invalid.
"""

from __future__ import annotations

from collections.abc import Mapping

COVERAGE_FLOOR = 0.2
_NEGLIGIBLE = 0.01  # share of the enabled time that may lie on CPUs below the floor

Reading = tuple[int, int, int]  # count, nanoseconds enabled, nanoseconds running; all since the event was opened
_START: Reading = (0, 0, 0)


class ScaledCount:
    """One event over its CPUs: `total` is the scaled count so far, `invalid` says why it may not be used now."""

    __slots__ = ("_floor", "_last", "enabled_seconds", "invalid", "running_seconds", "still", "total")

    def __init__(self, floor: float = COVERAGE_FLOOR) -> None:
        self.total = 0.0
        self.enabled_seconds = 0.0  # of the intervals already counted, summed over CPUs
        self.running_seconds = 0.0
        self.invalid = ""
        self.still: list[int] = []  # CPUs where not even the enabled time has passed since the last reading
        self._floor = floor
        self._last: dict[int, Reading] = {}

    def add(self, readings: Mapping[int, Reading]) -> None:
        """Take the present readings, by CPU. A CPU seen for the first time counts from its event's start."""
        enabled_now = unseen = 0
        self.still.clear()
        for cpu, reading in readings.items():
            last = self._last.get(cpu, _START)
            enabled, running = reading[1] - last[1], reading[2] - last[2]
            enabled_now += enabled
            if enabled == running:  # not multiplexed: the usual case
                if enabled == 0:
                    self.still.append(cpu)
                self.total += reading[0] - last[0]
            elif running < self._floor * enabled:
                unseen += enabled
                continue  # stays open: its baseline is kept
            else:
                self.total += (reading[0] - last[0]) * enabled / running
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
        """Drop a CPU whose event is closed; what it counted stays in the total."""
        self._last.pop(cpu, None)


def emit(
    metric: str,
    count: ScaledCount,
    readings: Mapping[int, Reading],
    out: dict[str, float],
    unavailable: dict[str, str],
    *,
    boundary: bool,
) -> None:
    """Add the readings to a count and its values to a sample: the count only where it is valid, the times always."""
    if not readings:
        unavailable[metric] = "the event is counted on no CPU any more"
        return
    count.add(readings)
    if not count.invalid:
        unavailable.pop(metric, None)
        out[metric] = count.total
    else:
        unavailable[metric] = count.invalid
        if boundary:
            count.start_afresh(readings)
    out[f"{metric}_time_enabled_seconds"] = count.enabled_seconds
    out[f"{metric}_time_running_seconds"] = count.running_seconds
