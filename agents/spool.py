"""Readings that the orchestrator has not acknowledged yet: in memory to be sent, on disk to outlive this process.

One file per run. A line is a JSON array; the first line holds the position that the file starts after. What is
acknowledged may be sent again after a crash: the store tells doubles apart by (period_id, sequence).
"""

from __future__ import annotations

import json
import logging
import threading
from collections import deque
from collections.abc import Callable
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample

log = logging.getLogger(__name__)

REWRITE_BEYOND_BYTES = 1 << 20


def encode(reading: Reading) -> str:
    """Return the reading as one JSON line without its line feed."""
    head = [reading.position, reading.period_id, reading.sequence, reading.taken_at.isoformat()]
    match reading:
        case Sample():
            return json.dumps(["s", *head, reading.boottime_seconds, dict(reading.values)])
        case Measurement():
            return json.dumps(["m", *head, reading.metric, reading.value])
        case HostEvent():
            return json.dumps(["e", *head, reading.kind, reading.detail])


def decode(line: str) -> Reading:
    """Return the reading in a line; ValueError where the line is torn or is none."""
    fields: list[Any] = json.loads(line)
    tag, position, period_id, sequence, taken_at, first, second = fields
    head: dict[str, Any] = {
        "position": position,
        "period_id": period_id,
        "sequence": sequence,
        "taken_at": datetime.fromisoformat(taken_at),
    }
    if tag == "s":
        return Sample(**head, boottime_seconds=first, values=second)
    if tag == "m":
        return Measurement(**head, metric=first, value=second)
    if tag == "e":
        return HostEvent(**head, kind=HostEventKind(first), detail=second)
    raise ValueError(f"unknown tag {tag!r}")


class Spool:
    """An ordered stream with acknowledgement. Safe to use from the sampling thread and the serving one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._pending: deque[Reading] = deque()
        self._last = 0
        self._disk_failed = ""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._recover()
        self._file = path.open("ab", buffering=0)
        if self._file.tell() == 0:
            self._write(json.dumps(self._last))

    @property
    def last_position(self) -> int:
        """Position of the newest reading, 0 before the first."""
        return self._last

    @property
    def disk_failed(self) -> str:
        """Why readings are no longer written to disk ('' while they are). They are still kept in memory and sent."""
        return self._disk_failed

    def append(self, make: Callable[[int], Reading]) -> None:
        """Number the next reading and keep it: `make` is called with its position."""
        with self._lock:
            reading = make(self._last + 1)
            self._last += 1
            self._pending.append(reading)
            self._write(encode(reading))

    def acknowledge(self, position: int) -> None:
        """Forget what is stored: every reading up to and including `position`."""
        with self._lock:
            while self._pending and self._pending[0].position <= position:
                self._pending.popleft()
            if not self._pending and not self._file.closed and self._file.tell() > REWRITE_BEYOND_BYTES:
                self._file.truncate(0)
                self._write(json.dumps(self._last))

    def pending(self, at_most: int) -> tuple[tuple[Reading, ...], bool]:
        """Return the oldest unacknowledged readings, and whether there are more."""
        with self._lock:
            return tuple(islice(self._pending, at_most)), len(self._pending) > at_most

    def close(self) -> None:
        """Close the file, and remove it where nothing is left to send."""
        with self._lock:
            self._file.close()
            if not self._pending:
                self._path.unlink(missing_ok=True)

    def _write(self, line: str) -> None:
        data = f"{line}\n".encode()
        if self._disk_failed:
            data = b"\n" + data  # end the line that was torn
        try:
            if self._file.write(data) != len(data):
                raise OSError("short write, the disk is full")
            self._disk_failed = ""
        except OSError as error:  # a full disk must not stop the measurement: memory still has it
            if not self._disk_failed:
                log.warning("spool %s: %s", self._path, error)
            self._disk_failed = str(error)

    def _recover(self) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        try:
            self._last = int(json.loads(lines[0])) if lines else 0
        except (ValueError, TypeError):
            log.warning("spool %s: no header, set aside", self._path)
            self._path.replace(self._path.with_suffix(".unreadable"))
            return
        for number, line in enumerate(lines[1:], start=2):
            if not line:
                continue
            try:
                reading = decode(line)
            except (ValueError, TypeError):
                log.warning("spool %s line %d is torn and skipped", self._path, number)
                continue
            self._pending.append(reading)
            self._last = max(self._last, reading.position)
