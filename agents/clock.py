"""The time of a host: the machine's own, or that of a simulation."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the time is on a host, and a way to let some of it pass."""

    def monotonic(self) -> float: ...

    def boot_seconds(self) -> float:
        """Return the time since boot in seconds, suspend included (CLOCK_BOOTTIME)."""
        ...

    def now(self) -> datetime:
        """Return the wall clock, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The clock of the machine that this process runs on."""

    __slots__ = ()

    def monotonic(self) -> float:
        return time.monotonic()

    def boot_seconds(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> datetime:
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
