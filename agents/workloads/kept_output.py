"""The output of a workload on disk: its beginning and its end, never more than a bound."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from agents.errors import StateRefused
from agents.state_files import StateFolder

HEAD_BYTES = 512 * 1024
TAIL_BYTES = 64 * 1024


class KeptOutput:
    """Takes everything that a workload prints and keeps the first and the last of it.

    A full disk ends the keeping, not the workload: what could not be written is counted as left out.
    """

    def __init__(self, path: Path) -> None:
        """Open anew a file that only this user can read; OSError or StateRefused where the folder can't be written."""
        self._folder = StateFolder(path.parent)
        self._folder.make()
        self.path = path
        self._fd = self._folder.create(path.name)
        self._room = HEAD_BYTES
        self._tail = bytearray()
        self._left_out = 0

    def write(self, data: bytes) -> None:
        head, rest = data[: self._room], data[self._room :]
        if head:
            try:
                written = os.write(self._fd, head)
            except OSError:
                written, self._room = 0, 0
            self._room -= min(self._room, len(head))
            rest = head[written:] + rest
        self._tail += rest
        if len(self._tail) > 2 * TAIL_BYTES:
            self._cut()

    def close(self) -> None:
        """Write the end behind the beginning, and how much lies between them. Idempotent."""
        if self._fd < 0:
            return
        self._cut()
        between = f"\n[... {self._left_out:,} bytes not kept ...]\n".encode() if self._left_out else b""
        with contextlib.suppress(OSError):
            os.write(self._fd, between + self._tail)
        os.close(self._fd)
        self._fd = -1

    def last_line(self) -> bytes:
        """Return the last line with anything on it, or nothing; for a message, after `close`."""
        with contextlib.suppress(OSError, StateRefused), os.fdopen(self._folder.open(self.path.name), "rb") as file:
            lines = file.read().splitlines()
            return next((line for line in reversed(lines) if line.strip()), b"")
        return b""

    def _cut(self) -> None:
        over = len(self._tail) - TAIL_BYTES
        if over > 0:
            self._left_out += over
            del self._tail[:over]
