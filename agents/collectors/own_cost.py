"""What watching costs: CPU seconds and memory of the agent's own process."""

from __future__ import annotations

import os
import threading
import time

from agents.collectors.notes import Notes, why
from agents.numbers import whole_number
from agents.sysroot import Reader, SysRoot

_STATM = "proc/self/statm"
METRICS = ("agent_cpu_seconds", "agent_rss_bytes")

_lock = threading.Lock()
_child_seconds = 0.0


def add_child_seconds(seconds: float) -> None:
    """Count the CPU time that a process has used which watching has started, as this process's own."""
    global _child_seconds  # noqa: PLW0603 - as the process's own CPU time, which it is added to
    with _lock:
        _child_seconds += seconds


def child_seconds() -> float:
    """Return the CPU time of all such processes."""
    return _child_seconds


class OwnCost:
    """This process, all its threads, and the commands that it read.

    A process that hosts many modelled hosts can't tell them apart: absent there.
    """

    __slots__ = ("_notes", "_page_bytes", "_reader", "_watching")

    def __init__(self, root: SysRoot, notes: Notes) -> None:
        self._notes = notes
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")
        self._reader: Reader | None = None
        self._watching = root.real
        if not root.real:
            notes.missing(METRICS, "the agent does not run on the host that it reads")
            return
        try:
            self._reader = root.reader(_STATM)
        except OSError as error:
            notes.missing(METRICS[1:], f"/{_STATM}: {why(error)}")

    @property
    def paths(self) -> tuple[str, ...]:
        return (_STATM,) if self._reader is not None else ()

    def collect(self, out: dict[str, float]) -> None:
        if self._watching:
            out["agent_cpu_seconds"] = time.process_time() + child_seconds()
        if self._reader is not None:
            try:
                _, pages, _ = self._reader.read().split(b" ", 2)
                out["agent_rss_bytes"] = float(whole_number(pages) * self._page_bytes)
            except ValueError as error:
                self._notes.doubted(METRICS[1], f"/{_STATM}: {why(error)}")

    def retry(self) -> None:
        """Nothing to open again: a process does not lose itself."""

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None
