"""JSON that a file of this host's state holds, taken for what it must be: ValueError, and its name, where it is not.

A file may be torn, old, or made by somebody else: no number is let in that no column takes, no text that no encoding
does, and no instant without its zone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime

_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
_LONGEST_INSTANT = 64  # it is quoted where it is none
_TOO_LARGE = 2**62  # leaves room for what is added to it in 63 bits


def read_json(data: bytes | str) -> object:
    """Return what JSON says; ValueError where it is none, or is nested too deeply to be read."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_object(data: bytes | str) -> Mapping[str, object]:
    """Return the object that JSON says."""
    return as_object(read_json(data), "it")


def as_object(value: object, name: str) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError(f"{name} is not an object")
    return value


def as_text(value: object, name: str, *, at_most: int = 100_000) -> str:
    text = as_any_text(value, name)
    if len(text) > at_most or _UNFIT.search(text):
        raise ValueError(f"{name} is not a text that it could be")
    return text


def as_any_text(value: object, name: str) -> str:
    """Return a text that may hold NUL and half characters: a store replaces them."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return value


def as_whole(value: object, name: str, *, least: int = 0, most: int = _TOO_LARGE) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{name} is not a whole number that it could be")
    return value


def as_number(value: object, name: str) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        try:
            return float(value)
        except OverflowError:
            pass
    raise ValueError(f"{name} is not a number")


def as_instant(value: object, name: str) -> datetime:
    at = datetime.fromisoformat(as_text(value, name, at_most=_LONGEST_INSTANT))
    if at.tzinfo is None:
        raise ValueError(f"{name} is an instant without a zone")
    return at
