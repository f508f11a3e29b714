"""Logging, set up in this one place: to stderr, as lines for people or as JSON objects for machines."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

PACKAGES = ("fleetexp", "agents", "analysis")
_FIELDS = ("run_id", "host", "event")  # what a caller may give as `extra`
_LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class LogFormat(StrEnum):
    """How a log record is written."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at (UTC), level, logger, message; run_id, host, event, traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry.update({name: value for name in _FIELDS if (value := getattr(record, name, None)) not in {None, ""}})
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


class _Under:
    """The run that this process drives at the moment, for records that don't say."""

    run_id: int | None = None


@contextmanager
def of_run(run_id: int) -> Iterator[None]:
    """Mark what is logged inside, by whichever thread, as belonging to a run."""
    before, _Under.run_id = _Under.run_id, run_id
    try:
        yield
    finally:
        _Under.run_id = before


def _with_run(record: logging.LogRecord) -> bool:
    if _Under.run_id is not None and not hasattr(record, "run_id"):
        record.run_id = _Under.run_id
    return True


def set_up_logging(level: str, log_format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None) -> None:
    """Send our packages' records of `level` and above to `stream` (stderr); other libraries' warnings and errors too.

    Calling it again replaces the earlier set-up. stdout is never written: it belongs to the answer.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
    handler.addFilter(_with_run)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else logging.Formatter(_LINE))
    root = logging.getLogger()
    for old in root.handlers[:]:
        if getattr(old, "fleetexp", False):
            root.removeHandler(old)
    handler.fleetexp = True  # type: ignore[attr-defined]  # what tells our handler from pytest's
    root.addHandler(handler)
    root.setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
    for name in PACKAGES:
        logging.getLogger(name).setLevel(level.upper())
