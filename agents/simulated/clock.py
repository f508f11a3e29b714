"""The time of a simulated host: it stands still until somebody moves it, and a sleep moves it at once."""

from __future__ import annotations

from datetime import datetime, timedelta

_UP_AT_START_SECONDS = 86400.0


class HostClock:
    """Virtual time, in seconds since `epoch`. It never goes back; a host that sleeps runs ahead of its fleet."""

    __slots__ = ("_booted", "_epoch", "_seconds")

    def __init__(self, epoch: datetime, seconds: float = 0.0) -> None:
        self._epoch = epoch
        self._seconds = seconds
        self._booted = seconds - _UP_AT_START_SECONDS

    def monotonic(self) -> float:
        return self._seconds

    def boot_seconds(self) -> float:
        return self._seconds - self._booted

    def now(self) -> datetime:
        return self._epoch + timedelta(seconds=self._seconds)

    def sleep(self, seconds: float) -> None:
        self._seconds += max(0.0, seconds)

    def reach(self, seconds: float) -> None:
        """Let time pass up to this instant; one that has passed already changes nothing."""
        self._seconds = max(self._seconds, seconds)

    def boot(self) -> None:
        """Count the time since boot from now on."""
        self._booted = self._seconds
