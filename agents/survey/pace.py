"""A bound on what looking costs: a share of one CPU on average, and an end."""

from __future__ import annotations

import time

from agents.clock import Clock

_LONGEST_NAP_SECONDS = 1.0


class Pace:
    """Counts the CPU time of its thread from its making on; `rest` sleeps as long as that is ahead of its share."""

    def __init__(self, clock: Clock, *, cpu_share: float, at_most_seconds: float) -> None:
        self._clock = clock
        self._share = cpu_share
        self._limit = at_most_seconds
        self._cpu_began = time.thread_time()
        self._began = clock.monotonic()

    @property
    def cpu_seconds(self) -> float:
        return time.thread_time() - self._cpu_began

    @property
    def wall_seconds(self) -> float:
        return self._clock.monotonic() - self._began

    @property
    def over(self) -> bool:
        return self.wall_seconds >= self._limit

    def rest(self) -> None:
        """Sleep until the share is kept, and no longer than to the end."""
        while (ahead := min(self.cpu_seconds / self._share, self._limit) - self.wall_seconds) > 0:
            self._clock.sleep(min(ahead, _LONGEST_NAP_SECONDS))
