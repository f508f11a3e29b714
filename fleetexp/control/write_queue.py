"""Writes to the store, in order, that wait while the database is busy or away.

Writes are gathered over a turn of the runner and made in one transaction, those of one kind in one statement. What
follows from a write (a request to a host, an event for the machine) is done only once the transaction is on the disk;
where the store refuses it, nothing has happened, and all of it is tried again later.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fleetexp.errors import StoreError, StoreFull, StoreLocked, StoreUnreachable

# Worth trying again; every other error of the store is a defect or a broken file, and ends the run.
PASSING = (StoreLocked, StoreFull, StoreUnreachable)
RETRY_SECONDS = 0.5  # a store that is away may keep whoever asks waiting, and no poll goes out meanwhile

log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind(Generic[T]):
    """A kind of write of which many are made at once. Within a transaction kinds go by `rank`, lowest first.

    `act` may be called again with the same items, so it touches the store alone. It returns something for each item.
    """

    rank: int
    act: Callable[[Sequence[T]], Sequence[Any]]
    at_once: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Write:
    """One item of a kind; `then` is told what became of it."""

    kind: Kind[Any]
    item: Any
    then: Callable[[Any], None] | None


def each(rank: int) -> Kind[Callable[[], Any]]:
    """Return a kind whose items are acts of their own, made one by one."""
    return Kind(rank=rank, act=lambda acts: [act() for act in acts], at_once=1)


FIRST, LAST = each(0), each(100)
ALONE = each(-1)  # for what takes long and must lock nobody out: in transactions of its own, in its place


class WriteQueue:
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

    def add(self, kind: Kind[T], item: T, then: Callable[[Any], None] | None = None) -> None:
        """Let a write wait for the next `settle`."""
        self._waiting.append(Write(kind=kind, item=item, then=then))

    def after(self, then: Callable[[], None]) -> None:
        """Do something once everything that waits now is on the disk."""
        self.add(LAST, lambda: None, lambda _: then())

    def settle(self, until: float | None = None) -> bool:
        """Make what waits; no more is begun after `until`. Returns whether nothing waits any longer."""
        while self._waiting and self.may_try() and (until is None or self._clock() <= until):
            turn = self._turn()
            made: dict[int, Any] = {}  # by identity: what was written, and what came of it
            try:
                with nullcontext() if turn[0].kind is ALONE else self._together():
                    for kind, writes in _batches(turn):
                        found = kind.act([write.item for write in writes])
                        made.update((id(write), result) for write, result in zip(writes, found, strict=True))
                        if until is not None and self._clock() > until:
                            break
            except PASSING as error:
                self.refused(error)
                return False
            for _ in turn:
                self._waiting.popleft()
            self._waiting.extendleft(write for write in reversed(turn) if id(write) not in made)
            self._refused_since = None
            for write in turn:
                if write.then is not None and id(write) in made:
                    write.then(made[id(write)])
        return not self._waiting

    def _turn(self) -> list[Write]:
        """Take the writes that are one transaction: up to the next that stands alone."""
        turn: list[Write] = []
        for write in self._waiting:
            if turn and ALONE in {write.kind, turn[0].kind}:
                break
            turn.append(write)
        return turn

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
        """Note that the store has taken a write made outside the queue."""
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


def _batches(turn: Sequence[Write]) -> Iterator[tuple[Kind[Any], list[Write]]]:
    """Yield the writes of each kind, kinds by rank, not too many at once."""
    by_kind: dict[Kind[Any], list[Write]] = {}
    for write in turn:
        by_kind.setdefault(write.kind, []).append(write)
    for kind in sorted(by_kind, key=lambda kind: kind.rank):
        writes = by_kind[kind]
        for start in range(0, len(writes), kind.at_once):
            yield kind, writes[start : start + kind.at_once]
