"""Logging, set up in this one place: to stderr, as lines for people or as JSON objects for machines."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import TextIO

PACKAGES = ("fleetexp", "agents", "analysis")
_LINE = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"


class LogFormat(StrEnum):
    """How a log record is written."""

    TEXT = "text"
    JSON = "json"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: at (UTC), level, logger, message, and the traceback where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def set_up_logging(level: str, log_format: LogFormat = LogFormat.TEXT, stream: TextIO | None = None) -> None:
    """Send our packages' records of `level` and above to `stream` (stderr); other libraries' warnings and errors too.

    Calling it again replaces the earlier set-up. stdout is never written: it belongs to the answer.
    """
    handler = logging.StreamHandler(stream if stream is not None else sys.stderr)
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
