"""The output of a workload on disk: its beginning and its end, never more than a bound."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

HEAD_BYTES = 512 * 1024
TAIL_BYTES = 64 * 1024


class KeptOutput:
    """Takes everything that a workload prints and keeps the first and the last of it.

    A full disk ends the keeping, not the workload: what could not be written is counted as left out.
    """

    def __init__(self, path: Path) -> None:
        """Open anew a file that only this user can read; OSError where the folder can't be written."""
        path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        self.path = path
        self._fd = os.open(path, flags, 0o600)
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
        with contextlib.suppress(OSError):
            lines = self.path.read_bytes().splitlines()
            return next((line for line in reversed(lines) if line.strip()), b"")
        return b""

    def _cut(self) -> None:
        over = len(self._tail) - TAIL_BYTES
        if over > 0:
            self._left_out += over
            del self._tail[:over]
