"""Writes to the store, in order, that wait while the database is busy or away.

Writes are gathered over a turn of the runner and made in one transaction. What follows from a write (a request to a
host, an event for the machine) is done only once the transaction is on the disk; where the store refuses it, nothing
has happened, and all of it is tried again later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

from fleetexp.errors import StoreError, StoreFull, StoreLocked, StoreUnreachable

# Worth trying again; every other error of the store is a defect or a broken file, and ends the run.
PASSING = (StoreLocked, StoreFull, StoreUnreachable)
RETRY_SECONDS = 0.5  # a store that is away may keep whoever asks waiting, and no poll goes out meanwhile

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One write. `act` may be made again, so it touches the store alone; `then` is told what it returned."""

    act: Callable[[], Any]
    then: Callable[[Any], None] | None
    alone: bool  # in transactions of its own


class Ledger:
    """A queue of writes. `settle` makes them, together, as far as the store takes them."""

    def __init__(
        self,
        clock: Callable[[], float],
        together: Callable[[], AbstractContextManager[object]] = nullcontext,
    ) -> None:
        self._clock = clock
        self._together = together
        self._waiting: deque[Write] = deque()
        self._refused_since: float | None = None
        self._try_at = 0.0
        self.last_error: StoreError | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def write(self, act: Callable[[], T], then: Callable[[T], None] | None = None, *, alone: bool = False) -> None:
        """Let a write wait for the next `settle`; `alone` for one that takes long and must lock nobody out."""
        self._waiting.append(Write(act=act, then=then, alone=alone))

    def after(self, then: Callable[[], None]) -> None:
        """Do something once everything that waits now is on the disk."""
        self.write(lambda: None, lambda _: then())

    def settle(self, until: float | None = None) -> bool:
        """Make what waits; no more is begun after `until`. Returns whether nothing waits any longer."""
        while self._waiting and self.may_try() and (until is None or self._clock() <= until):
            batch, results = self._batch(), list[Any]()
            try:
                with nullcontext() if batch[0].alone else self._together():
                    for write in batch:
                        results.append(write.act())
                        if until is not None and self._clock() > until:
                            break
            except PASSING as error:
                self.refused(error)
                return False
            for _ in results:
                self._waiting.popleft()
            self._refused_since = None
            for write, result in zip(batch, results, strict=False):
                if write.then is not None:
                    write.then(result)
        return not self._waiting

    def _batch(self) -> list[Write]:
        if self._waiting[0].alone:
            return [self._waiting[0]]
        batch: list[Write] = []
        for write in self._waiting:
            if write.alone:
                break
            batch.append(write)
        return batch

    def may_try(self) -> bool:
        """Whether it is time to ask the store: always, but for a moment after it refused."""
        return self._refused_since is None or self._clock() >= self._try_at

    def refused(self, error: StoreError) -> None:
        """Note that the store is away; said in the log once an outage."""
        self.last_error = error
        self._try_at = self._clock() + RETRY_SECONDS
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

    def flush(self, within_seconds: float, wait: Callable[[float], object]) -> None:
        """Wait for the store to take everything; raise its own error where it does not in time."""
        deadline = self._clock() + within_seconds
        while not self.settle():
            if self._clock() > deadline:
                if self.last_error is not None:
                    raise self.last_error
                return
            wait(RETRY_SECONDS / 2)
