"""Readings that the orchestrator has not acknowledged yet: in memory to be sent, on disk to outlive this process.

One file per run. A line is a JSON array; the first line holds the position that the file starts after. What is
acknowledged may be sent again after a crash: the store tells doubles apart by (period_id, sequence).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from agents.errors import JournalError, StateRefused
from agents.json_fields import as_any_text, as_instant, as_number, as_object, as_whole, read_json
from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample
from agents.state_files import StateFolder

log = logging.getLogger(__name__)

REWRITE_BEYOND_BYTES = 1 << 20
_FIELDS = 7  # of a line
_OF_KIND = 2  # of what an event is: its kind, its metric
_LONGEST_LINE = 1 << 20


def encode(reading: Reading) -> str:
    """Return the reading as one JSON line without its line feed."""
    head = [reading.position, reading.period_id, reading.sequence, reading.taken_at.isoformat()]
    match reading:
        case Sample():
            return json.dumps(["s", *head, reading.boottime_seconds, dict(reading.values)])
        case Measurement():
            return json.dumps(["m", *head, reading.metric, reading.value])
        case HostEvent():
            return json.dumps(["e", *head, [reading.kind, reading.metric], reading.detail])


def decode(line: str | bytes) -> Reading:
    """Return the reading in a line; ValueError where the line is torn or is none."""
    fields = read_json(line)
    if not isinstance(fields, list) or len(fields) != _FIELDS:
        raise ValueError(f"it has not {_FIELDS} fields")
    tag, position, period_id, sequence, taken_at, first, second = fields
    head: dict[str, Any] = {
        "position": as_whole(position, "position", least=1),
        "period_id": as_whole(period_id, "period_id"),
        "sequence": as_whole(sequence, "sequence"),
        "taken_at": as_instant(taken_at, "taken_at"),
    }
    if tag == "s":
        values = {
            as_any_text(name, "a metric"): as_number(value, name) for name, value in as_object(second, "it").items()
        }
        return Sample(**head, boottime_seconds=as_number(first, "boottime"), values=values)
    if tag == "m":
        return Measurement(**head, metric=as_any_text(first, "metric"), value=as_number(second, "value"))
    if tag == "e":
        kind, metric = first if isinstance(first, list) and len(first) == _OF_KIND else (first, "")  # as once written
        return HostEvent(
            **head,
            kind=HostEventKind(as_any_text(kind, "kind")),
            metric=as_any_text(metric, "metric"),
            detail=as_any_text(second, "detail"),
        )
    raise ValueError("it is not a kind of reading")


class Spool:
    """An ordered stream with acknowledgement. Safe to use from the sampling thread and the serving one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._folder = StateFolder(path.parent)
        self._lock = threading.Lock()
        self._pending: deque[Reading] = deque()
        self._last = 0
        self._disk_failed = ""
        try:
            self._folder.make()
            ends_torn = self._recover()
            self._file = os.fdopen(
                self._folder.open(path.name, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab", buffering=0
            )
        except OSError as error:
            raise JournalError(
                f"the spool can't be used: {error.strerror or error}",
                where=str(path),
                remedy="make room on the disk of the state folder, and run as a user who may write there",
            ) from error
        if self._file.tell() == 0:
            self._write(json.dumps(self._pending[0].position - 1 if self._pending else self._last))
            for reading in self._pending:
                self._write(encode(reading))
        elif ends_torn:
            self._write("")  # else the next line would be lost with it

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
                with suppress(OSError, JournalError):
                    self._folder.remove(self._path.name)

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

    def _recover(self) -> bool:
        """Read what an earlier process has left; returns whether its last line is torn.

        A file that is none of ours is set aside, what it says of ours is kept.
        """
        try:
            fd = self._folder.open(self._path.name)
        except FileNotFoundError:
            return False
        except StateRefused as error:
            self._set_aside(str(error))
            return False
        except OSError as error:
            self._set_aside(error.strerror or str(error))
            return False
        with os.fdopen(fd, "rb") as file:
            line = file.readline(_LONGEST_LINE)
            try:
                self._last = as_whole(read_json(line or b"0"), "its first line")
            except ValueError:
                self._set_aside("no header")
                return False
            whole = not line or line.endswith(b"\n")
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), start=2):
                whole = line.endswith(b"\n")
                if not whole and len(line) == _LONGEST_LINE:
                    self._set_aside(f"line {number} is longer than any of ours")
                    return False
                if line.strip():
                    self._take(line, number)
            return not whole

    def _take(self, line: bytes, number: int) -> None:
        try:
            reading = decode(line)
            if reading.position <= self._last:
                raise ValueError(f"position {reading.position} comes after {self._last}")
        except ValueError as error:
            log.warning("spool %s line %d is torn and skipped: %s", self._path, number, error)
            return
        self._pending.append(reading)
        self._last = reading.position

    def _set_aside(self, why: str) -> None:
        log.warning("spool %s: %s, set aside", self._path, why)
        self._folder.rename(self._path.name, self._path.with_suffix(".unreadable").name)
