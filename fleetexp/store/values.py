"""Values as both databases keep them, and the kinds there are; whoever only asks starts without SQLAlchemy."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

Row: TypeAlias = tuple[Any, ...]  # values in the order of their columns


class ColumnKind(StrEnum):
    """What a column holds, the same on every database and in every file that is written from it."""

    WHOLE = "whole number"
    REAL = "number"
    TEXT = "text"
    INSTANT = "instant"
    FLAG = "flag"
    DOCUMENT = "document"


def instant_text(at: datetime) -> str:
    """Write an instant as SQLite keeps it: UTC, microseconds, 'Z'; texts sort as the instants do.

    ValueError for an instant without a time zone: it could be any hour of the day.
    """
    if at.tzinfo is None:
        raise ValueError(f"{at.isoformat()} has no time zone; fleetexp stores aware instants only")
    text = at.isoformat(timespec="microseconds")
    if not text.endswith("+00:00"):
        text = at.astimezone(UTC).isoformat(timespec="microseconds")
    return text[:-6] + "Z"


def clean_text(text: str) -> str:
    """Replace what no database takes in text: NUL, and halves of surrogate pairs out of undecodable bytes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")


def document_text(value: object) -> str:
    """Write a document as both databases keep it: PostgreSQL's JSON is text too, and views show it as it is."""
    return json.dumps(value, separators=(",", ":"))
