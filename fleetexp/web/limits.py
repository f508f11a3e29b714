"""What one reader, and all readers together, may take of the live view's server."""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

MOST_READERS = 4096  # remembered at once; who has not asked for longest is forgotten first


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of a server. `seconds`: to send a request's head, to wait for a turn, and to take the answer, each."""

    line_bytes: int = 8192
    head_bytes: int = 16384
    connections: int = 64
    connections_of_one: int = 16
    pages_at_once: int = 4
    seconds: float = 10.0
    requests_per_second: float = 20.0
    burst: int = 60


class Connections:
    """Counts those that are open, by address."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._open: Counter[str] = Counter()
        self._lock = threading.Lock()

    def enter(self, address: str, *, shared: bool) -> bool:
        """Count one more, unless that is one too many; `shared`: many readers stand behind the address, a proxy's."""
        with self._lock:
            most = self._limits.connections
            of_one = most if shared else self._limits.connections_of_one
            if self._open.total() >= most or self._open[address] >= of_one:
                return False
            self._open[address] += 1
            return True

    def leave(self, address: str) -> None:
        with self._lock:
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


class Rate:
    """A bucket of requests for each reader, which fills again with time."""

    def __init__(self, limits: Limits, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def allows(self, reader: str) -> bool:
        """Take one request out of the reader's bucket; False where it is empty."""
        with self._lock:
            now = self._clock()
            left, at = self._left.pop(reader, (float(self._limits.burst), now))
            left = min(float(self._limits.burst), left + (now - at) * self._limits.requests_per_second)
            self._left[reader] = (max(0.0, left - 1.0), now)
            while len(self._left) > MOST_READERS:
                self._left.popitem(last=False)
            return left >= 1.0
