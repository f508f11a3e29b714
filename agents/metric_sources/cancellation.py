"""Ending a reading from outside: at its deadline, or because the period that wanted it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Act = Callable[[], None]


class Cancellation:
    """One reading that may be cut off. `done` says that it was: whatever it has read by then is not to be believed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._act: Act | None = None
        self.done = False

    def now(self) -> None:
        """Cut the reading off; once it is over this does nothing."""
        with self._lock:
            self.done = True
            if self._act is not None:
                self._act()

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Cut off what happens inside if it takes longer."""
        timer = threading.Timer(seconds, self.now)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    @contextmanager
    def by(self, act: Act) -> Iterator[None]:
        """Say how to cut off what happens inside; at once where it was cut off before."""
        with self._lock:
            self._act = act
            if self.done:
                act()
        try:
            yield
        finally:
            with self._lock:
                self._act = None
