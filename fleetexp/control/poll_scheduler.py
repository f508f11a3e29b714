"""When each host is polled next: one poll under way a host, and no look at all hosts to find those that are due."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from agents.messages import Poll

POLLS_PER_SECOND = 500.0  # what one driver sends and takes in beside its other work
LONGEST_SECONDS = 2.0  # between two polls of a host, where there are few
LONGEST_VIRTUAL_SECONDS = 600.0  # where waiting takes no time


def poll_every_seconds(
    *, lease_seconds: float, sample_every_seconds: float, hosts: int, longest: float = LONGEST_SECONDS
) -> float:
    """Choose the time between two polls of a host: a lease sees four, and many hosts are asked less often."""
    wanted = min(max(sample_every_seconds / 2, 0.2), longest)
    return min(lease_seconds / 4, max(wanted, hosts / POLLS_PER_SECOND))


class PollScheduler:
    """The hosts that are polled: those that are claimed."""

    def __init__(self) -> None:
        self._at: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._under_way: dict[str, Poll] = {}
        self._sent_at: dict[str, float] = {}  # of those under way, in the order of sending

    def __contains__(self, host: str) -> bool:
        return host in self._at

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._at))

    def plan(self, host: str, at: float) -> None:
        """Poll the host at this instant, or as soon as the poll under way is answered and planned anew."""
        self._at[host] = at
        heapq.heappush(self._heap, (at, host))

    def drop(self, host: str) -> None:
        """Poll the host no more."""
        self._at.pop(host, None)

    def lose(self, host: str) -> None:
        """Forget the host, and the poll under way."""
        self.drop(host)
        self.answered(host)

    def due(self, now: float) -> Iterator[str]:
        """Yield the hosts to be polled now; the caller says of each that it is `sent`."""
        while (head := self._head()) is not None and head[0] <= now:
            heapq.heappop(self._heap)
            yield head[1]

    def next_at(self) -> float:
        """Return when the next host is due, infinite where none is."""
        head = self._head()
        return float("inf") if head is None else head[0]

    def _head(self) -> tuple[float, str] | None:
        while self._heap:
            at, host = self._heap[0]
            if self._at.get(host) == at and host not in self._under_way:
                return at, host
            heapq.heappop(self._heap)  # planned otherwise since, or answered before long and planned then
        return None

    def sent(self, host: str, poll: Poll, at: float) -> None:
        self.answered(host)
        self._under_way[host] = poll
        self._sent_at[host] = at

    def answered(self, host: str) -> None:
        self._under_way.pop(host, None)
        self._sent_at.pop(host, None)

    def oldest_seconds(self, now: float) -> float:
        """Return how long the poll that waits longest has been under way, 0 where none is."""
        return now - next(iter(self._sent_at.values()), now)

    def under_way(self, host: str) -> Poll | None:
        return self._under_way.get(host)
