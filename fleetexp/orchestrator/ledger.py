"""Writes to the store, in order, that wait while the database is busy or away."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from fleetexp.errors import StoreError, StoreFull, StoreLocked, StoreUnreachable

# Worth trying again; every other error of the store is a defect or a broken file, and ends the run.
PASSING = (StoreLocked, StoreFull, StoreUnreachable)

log = logging.getLogger(__name__)


class Ledger:
    """A queue of writes. Each is tried at once, and again on every `settle`, until the store takes it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._waiting: deque[Callable[[], None]] = deque()
        self._refused_since: float | None = None
        self.last_error: StoreError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def write(self, act: Callable[[], None]) -> None:
        """Write now, or behind those that already wait."""
        self._waiting.append(act)
        self.settle()

    def settle(self) -> None:
        """Try what waits, in order; stop at the first that the store refuses."""
        while self._waiting:
            try:
                self._waiting[0]()
            except PASSING as error:
                self.refused(error)
                return
            self._waiting.popleft()
            self._refused_since = None

    def refused(self, error: StoreError) -> None:
        """Note that the store is away; said in the log once an outage."""
        self.last_error = error
        if self._refused_since is None:
            log.warning("the store refuses a write: %s", error)
            self._refused_since = self._clock()

    def outage_seconds(self) -> float:
        """For how long the store has been refusing, 0 while it does not."""
        return 0.0 if self._refused_since is None else self._clock() - self._refused_since

    def taken(self) -> None:
        """Note that the store has taken a write made outside the ledger."""
        if not self._waiting:
            self._refused_since = None

    def flush(self, within_seconds: float) -> None:
        """Wait for the store to take everything; raise its own error where it does not in time."""
        deadline = self._clock() + within_seconds
        while self._waiting:
            self.settle()
            if self._waiting and self._clock() > deadline:
                self._waiting[0]()
                self._waiting.popleft()
            elif self._waiting:
                time.sleep(0.25)
