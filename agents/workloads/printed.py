"""What workloads print: lines that are measurements, and lines that are not."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime
from typing import NoReturn, Protocol

from agents.errors import WorkloadError
from agents.secret_words import masked
from agents.workloads.emit import FAILED, READY, VALUES
from agents.workloads.running import Measured

LINE_BYTES_AT_MOST = 65536
_QUOTED_AT_MOST = 160
_LATEST = 2.0**37  # seconds since 1970: the year 6325, of which there is a date
_NAME = re.compile(r"[a-z][a-z0-9_]{0,99}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_FORMAT = "print 'name value' lines, or one JSON object of finite numbers; names are [a-z][a-z0-9_]*"


class Printed(Protocol):
    """Reads the stdout of a workload, line by line; WorkloadError for a line that is not a measurement."""

    ready: bool  # whether measuring has begun

    def line(self, line: bytes) -> list[Measured]:
        """Return what one line reports."""
        ...

    def end(self) -> list[Measured]:
        """Return what counts only now that the output has ended."""
        ...


def quoted(text: bytes) -> str:
    """Return text of unknown origin so that it can be shown anywhere: escaped, in quotes, cut, known secrets hidden."""
    shown = ascii(masked(text[: 4 * _QUOTED_AT_MOST].decode(errors="backslashreplace")))
    return shown if len(shown) <= _QUOTED_AT_MOST else f"{shown[:_QUOTED_AT_MOST]}... ({len(text):,} bytes)"


class NotRead:
    """A stdout in which no measurements are looked for."""

    ready = True

    def line(self, _line: bytes) -> list[Measured]:
        return []

    def end(self) -> list[Measured]:
        return []


class CommandLines:
    """Lines of a program of the user's: `name value` counts when it is read; of JSON objects, the last one counts."""

    ready = True

    def __init__(self) -> None:
        self._object: list[Measured] = []

    def line(self, line: bytes) -> list[Measured]:
        words = line.split()
        if not words:
            return []
        if words[0].startswith(b"{"):
            now = datetime.now(UTC)
            self._object = [(now, name, value) for name, value in _json_numbers(line).items()]
            return []
        if len(words) != 2:
            _garbage(line)
        name, number = (word.decode(errors="replace") for word in words)
        if not _NAME.fullmatch(name) or not _NUMBER.fullmatch(number) or not math.isfinite(float(number)):
            _garbage(line)
        return [(datetime.now(UTC), name, float(number))]

    def end(self) -> list[Measured]:
        last, self._object = self._object, []
        return last


class OwnLines:
    """Lines of a workload of ours (`agents.workloads.emit`)."""

    def __init__(self) -> None:
        self.ready = False

    def line(self, line: bytes) -> list[Measured]:
        message = _json_object(line)
        if READY in message:
            self.ready = True
            return []
        failed = message.get(FAILED)
        if isinstance(failed, dict):
            raise WorkloadError(*(str(failed.get(part, "")) for part in ("what", "where", "remedy")))
        values, at = message.get(VALUES), message.get("at")
        if not isinstance(values, dict) or not isinstance(at, float) or not 0 <= at < _LATEST:
            _garbage(line)
        taken_at = datetime.fromtimestamp(at, UTC)
        return [(taken_at, name, value) for name, value in _numbers(values, line).items()]

    def end(self) -> list[Measured]:
        return []


def _garbage(line: bytes) -> NoReturn:
    raise WorkloadError(f"a line that is not a measurement: {quoted(line)}", where="stdout", remedy=_FORMAT)


def _json_object(line: bytes) -> dict[str, object]:
    try:
        value = json.loads(line, parse_constant=lambda _: _garbage(line))
    except (ValueError, RecursionError):
        _garbage(line)
    if not isinstance(value, dict):
        _garbage(line)
    return value


def _json_numbers(line: bytes) -> dict[str, float]:
    return _numbers(_json_object(line), line)


def _numbers(values: dict[str, object], line: bytes) -> dict[str, float]:
    out: dict[str, float] = {}
    for name, value in values.items():
        if not _NAME.fullmatch(name) or isinstance(value, bool) or not isinstance(value, int | float):
            _garbage(line)
        try:
            out[name] = float(value)
        except OverflowError:
            _garbage(line)
        if not math.isfinite(out[name]):
            _garbage(line)
    return out
