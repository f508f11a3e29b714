"""One finite number out of what a source said."""

from __future__ import annotations

import math
import re

from agents.feeds.unreadable import Unreadable

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_SHOWN = 60


def as_number(value: object) -> float:
    """Return a finite float; Unreadable for anything else, also for NaN, infinity, true and false."""
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{shown(value)} is no number")
    try:
        number = float(value)
    except OverflowError as error:
        raise Unreadable("the number is too large") from error
    if not math.isfinite(number):
        raise Unreadable(f"the value is {number}, which is no measurement")
    return number


def shown(value: object) -> str:
    """Quote something that a source said, cut to a length that fits a line."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
