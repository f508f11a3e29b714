"""What makes a period's readings come in time: a thread of their own, or whoever drives a simulation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol, TypeAlias


class SamplingTimer(Protocol):
    """Calls an act every so many seconds, from `start` until `stop`; one call at a time, none after `stop`."""

    def start(self) -> None: ...

    def stop(self) -> None:
        """Return once no call is under way any more. Harmless where it was never started."""
        ...


TimerMaker: TypeAlias = Callable[[float, Callable[[], None], str], SamplingTimer]  # (every seconds, act, name)


class ThreadTimer:
    """A thread that keeps the interval; it ends where the act raises."""

    def __init__(self, every_seconds: float, act: Callable[[], None], name: str) -> None:
        self._every = every_seconds
        self._act = act
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        timer = time.monotonic() + self._every
        while not self._stop.wait(max(0.0, timer - time.monotonic())):
            self._act()
            timer += self._every
            late = time.monotonic() - timer
            if late > self._every:  # ticks that have passed are dropped, not made up for in a burst
                timer += (late // self._every) * self._every
