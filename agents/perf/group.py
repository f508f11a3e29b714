"""Events that the kernel counts and reads together: on each CPU one call gives all their counts at one moment.

Software events are always on, and are one group. Hardware events take turns on the CPU's counters, a group at a time:
what is divided by another is in its group, so that both were seen at the same moments. A group that does not fit the
counters is never counted at all (perf_event_open(2)): it has to be made smaller.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping, Sequence

from agents.event_text import TYPE_SOFTWARE
from agents.perf.scaling import COVERAGE_FLOOR, Reading, ScaledCounts
from agents.perf.syscall import PerfEvent, open_event

_SOON = 4  # times as long enabled as counted: there is nothing to wait for


class _RefusedError(Exception):
    """The kernel does not open this event."""

    def __init__(self, event: PerfEvent, error: OSError) -> None:
        super().__init__(str(error))
        self.event = event
        self.error = error


class EventGroup:
    """Events of one group, open on some CPUs, and their scaled counts."""

    __slots__ = ("_reading", "counts", "events", "fds")

    def __init__(self, events: Sequence[PerfEvent], *, floor: float = COVERAGE_FLOOR) -> None:
        self.events = tuple(events)
        self.counts = ScaledCounts([event.name for event in events], floor)
        self.fds: dict[int, tuple[int, ...]] = {}  # by CPU; the first one reads for all
        self._reading = _reading_of(self.events)

    def open_on(self, cpus: Iterable[int], cgroup_fd: int = -1) -> dict[str, OSError]:
        """Start counting on these CPUs too. Return what the kernel refused, by metric.

        An event that is refused on one CPU is left out on all of them: half a count is not a count.
        """
        wanted = sorted({*cpus, *self.fds})
        refused: dict[str, OSError] = {}
        while self.events:
            try:
                for cpu in wanted:
                    if cpu not in self.fds:
                        self._open_on(cpu, cgroup_fd)
            except _RefusedError as refusal:
                refused[refusal.event.name] = refusal.error
                self._leave_out(refusal.event)
            else:
                break
        return refused

    def _open_on(self, cpu: int, cgroup_fd: int) -> None:
        opened: list[int] = []
        for event in self.events:
            try:
                opened.append(open_event(event, cpu=cpu, cgroup_fd=cgroup_fd, leader=opened[0] if opened else -1))
            except OSError as error:
                for fd in opened:
                    os.close(fd)
                raise _RefusedError(event, error) from error
        self.fds[cpu] = tuple(opened)
        # What is read now is where counting starts: a cgroup's event can begin with the age of its context as time.
        if (start := self.read(cpu)) is not None:
            self.counts.start_afresh({cpu: start})

    def _leave_out(self, event: PerfEvent) -> None:
        """Close the group, to go on without an event; what the others have counted so far is kept."""
        self.counts.add({cpu: reading for cpu in self.fds if (reading := self.read(cpu)) is not None})
        self.close()
        self.events = tuple(one for one in self.events if one != event)
        self.counts = self.counts.only([one.name for one in self.events])
        self._reading = _reading_of(self.events)

    def part(self) -> EventGroup:
        """Close the group and return one of its last event; both are to be opened anew, with what they have counted."""
        last = EventGroup(self.events[-1:])
        before = self.counts
        self._leave_out(self.events[-1])
        last.counts = before.only(last.counts.metrics)
        return last

    def read(self, cpu: int) -> Reading | None:
        """Return what the events have counted on a CPU; None where the kernel has given one of them up."""
        try:
            data = os.read(self.fds[cpu][0], self._reading.size)
            return self._reading.unpack(data)[1:]
        except (OSError, struct.error):
            return None

    @property
    def shares_counters(self) -> bool:
        """Whether these are several events of the CPU's counters."""
        return len(self.events) > 1 and self.events[0].kind != TYPE_SOFTWARE

    @property
    def waits(self) -> bool:
        """Whether they are hardly counted on some CPU: they take turns with others, or do not fit its counters."""
        readings = filter(None, map(self.read, self.fds))
        return self.shares_counters and any(reading[1] * _SOON < reading[0] for reading in readings)

    def close_on(self, cpu: int) -> None:
        for fd in self.fds.pop(cpu, ()):
            os.close(fd)
        self.counts.forget(cpu)

    def close(self) -> None:
        for cpu in tuple(self.fds):
            self.close_on(cpu)


def grouped(
    events: Sequence[PerfEvent], divided_by: Mapping[str, str], *, floor: float = COVERAGE_FLOOR
) -> list[EventGroup]:
    """Return the groups to try: the software events, and of the others those that are divided by one another."""
    groups: dict[str, list[PerfEvent]] = {}
    for event in events:
        home = event.name
        while home in divided_by:
            home = divided_by[home]
        groups.setdefault("" if event.kind == TYPE_SOFTWARE else home, []).append(event)
    return [EventGroup(one, floor=floor) for one in groups.values()]


def _reading_of(events: Sequence[PerfEvent]) -> struct.Struct:
    """The number of events, the times enabled and running, and a count for each. `read_format` in perf_event_open(2)"""
    return struct.Struct(f"={3 + len(events)}Q")
