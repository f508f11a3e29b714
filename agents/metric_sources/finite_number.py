"""One finite number out of what a source said."""

from __future__ import annotations

import math
import re

from agents.metric_sources.unreadable import Unreadable

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_DIGITS_AT_MOST = 2000
_SHOWN = 60
_REMEDY = "let a decimal number be written there, or read another place"


def as_number(value: object) -> float:
    """Return a finite float; Unreadable for anything else, also for NaN, infinity, true and false."""
    if isinstance(value, str) and len(value) <= _DIGITS_AT_MOST and _NUMBER.fullmatch(value.strip()):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"{shown(value)} is not a number", _REMEDY)
    try:
        number = float(value)
    except OverflowError as error:
        raise Unreadable("the number is too large", _REMEDY) from error
    if not math.isfinite(number):
        raise Unreadable(f"the value is {number}, which is not a measurement", _REMEDY)
    return number


def shown(value: object) -> str:
    """Quote something that a source said, cut to a length that fits a line."""
    if isinstance(value, str):
        value = value[: _SHOWN + 1]
    text = repr(value) if not isinstance(value, list | dict) else f"a {type(value).__name__} of {len(value)}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
