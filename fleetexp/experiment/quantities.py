"""Durations, sizes, counts and shares as people write them, each to one base unit and back.

duration   '500ms' '10s' '1h30m' '2d'     seconds; whole milliseconds; a bare number is refused
size       '4GiB' '4G' '2048kB'           bytes; G, M and K are powers of 1024, as the kernel's tools have it, and
                                          kB is the kernel's own name for KiB; GB and MB are refused as ambiguous
count      4000000 '4M' '4_000_000'       things; k, M and G are powers of 1000, as in '4M dereferences'
share      '10%' 0.1                      ratio; a bare number above 1 is refused ('150%' says it without doubt)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

from fleetexp.experiment.document import kind_of
from fleetexp.experiment.key import Written
from fleetexp.experiment.problem import ValueRefused

_DURATION_UNITS: Mapping[str, int] = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}  # in ms
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})? *(?:ms|[dhms]) *)+")
_DURATION_PART = re.compile(r"([0-9.]+) *(ms|[dhms])")
MAX_DURATION_SECONDS = 366 * 86_400

_SIZE_UNITS: Mapping[str, int] = {
    "B": 1,
    **dict.fromkeys(("K", "KiB", "kB"), 2**10),
    **dict.fromkeys(("M", "MiB"), 2**20),
    **dict.fromkeys(("G", "GiB"), 2**30),
    **dict.fromkeys(("T", "TiB"), 2**40),
}
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?)\s?([A-Za-z]+)")
_AMBIGUOUS: Mapping[str, str] = {"KB": "KiB", "MB": "MiB", "GB": "GiB", "TB": "TiB"}

_TOO_LARGE = 2**63  # for a column of whole numbers, and for the kernel
_COUNT_UNITS: Mapping[str, int] = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
_COUNT = re.compile(r"([0-9](?:_?[0-9]){0,17}(?:\.[0-9]{1,9})?)([kMG]?)")


def parse_duration(value: object) -> float:
    """Return seconds; ValueRefused unless it is text such as '1h30m' of whole milliseconds and at most a year."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueRefused(f"the duration {value} has no unit", f"write '{value}s', '{value}m' or '{value}h'")
    if isinstance(value, str) and re.fullmatch(r"[0-9]+:[0-9]+(:[0-9]+)?", value):
        raise ValueRefused(f"{value!r} may be hours or minutes", "write '1h30m' or '1m30s'")
    if not isinstance(value, str) or not _DURATION.fullmatch(text := value.strip()):
        raise ValueRefused(f"{kind_of(value)} is not a duration", "write for example '500ms', '10s', '1h30m', '2d'")
    parts = _DURATION_PART.findall(text)
    order = [list(_DURATION_UNITS).index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        raise ValueRefused(f"{value!r} is not a duration", "name each unit once, the largest first: '1h30m'")
    milliseconds = sum(Decimal(number) * _DURATION_UNITS[unit] for number, unit in parts)
    if milliseconds != int(milliseconds):
        raise ValueRefused(f"{value!r} is finer than a millisecond", "write whole milliseconds: '500ms'")
    if milliseconds > MAX_DURATION_SECONDS * 1000:
        raise ValueRefused(f"{value!r} is longer than a year", "write a shorter duration")
    return int(milliseconds) / 1000


def format_duration(seconds: float) -> str:
    """Write seconds so that parse_duration reads the same back: '1h30m', '500ms'."""
    left = round(seconds * 1000)
    out = ""
    for unit, length in _DURATION_UNITS.items():
        number, left = divmod(left, length)
        out += f"{number}{unit}" if number else ""
    return out or "0s"


def lasting(shortest: str, longest: str) -> tuple[AfterValidator, Written]:
    """Make a validator for the bounds of a duration, both included."""
    low, high = parse_duration(shortest), parse_duration(longest)

    def check(seconds: float) -> float:
        if not low <= seconds <= high:
            raise ValueRefused(f"{format_duration(seconds)} is out of bounds", f"write {shortest} to {longest}")
        return seconds

    return AfterValidator(check), Written(limits=f"{shortest} to {longest}")


def parse_size(value: object) -> int:
    """Return bytes; ValueRefused unless it is text with a binary unit."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        raise ValueRefused(f"the size {value} has no unit", f"write '{value}GiB', '{value}MiB' or '{value}B'")
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueRefused(f"{kind_of(value)} is not a size", "write for example '4GiB' or '2048kB'")
    number, unit = match[1], match[2]
    if unit in _AMBIGUOUS:
        what = f"{value!r} may mean powers of 1000 or of 1024"
        raise ValueRefused(what, f"write '{number}{_AMBIGUOUS[unit]}' (powers of 1024)")
    if unit not in _SIZE_UNITS:
        raise ValueRefused(f"{unit!r} is not a unit of size", f"use one of {', '.join(_SIZE_UNITS)}")
    size = Decimal(number) * _SIZE_UNITS[unit]
    if size != int(size):
        raise ValueRefused(f"{value!r} is not a whole number of bytes", "write a whole number of a smaller unit")
    if size >= _TOO_LARGE:
        raise ValueRefused(f"{value!r} is more than any host has", "write a smaller size")
    return int(size)


def format_size(size_bytes: int) -> str:
    """Write bytes so that parse_size reads the same back, in the largest unit that divides them."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def parse_count(value: object) -> int:
    """Return a whole number >= 0; ValueRefused otherwise."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < _TOO_LARGE:
        return value
    match = _COUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueRefused(f"{kind_of(value)} is not a count", "write a whole number, or for example '4M' (4,000,000)")
    count = Decimal(match[1]) * _COUNT_UNITS[match[2]]
    if count != int(count):
        raise ValueRefused(f"{value!r} is not a whole number", "write a whole number")
    if count >= _TOO_LARGE:
        raise ValueRefused(f"{value!r} is a number of more than 63 bits", "write a smaller one")
    return int(count)


def parse_share(value: object) -> float:
    """Return a ratio, 0.1 for '10%'; ValueRefused for a bare number above 1."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if 0 <= value <= 1:
            return float(value)
        raise ValueRefused(
            f"{value} is not a share", f"write '{value}%' if you mean percent" if value > 0 else "write '10%'"
        )
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)\s?%", value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueRefused(f"{kind_of(value)} is not a share", "write for example '10%' or 0.1")
    return float(Decimal(match[1]) / 100)


def format_share(share: float) -> str:
    """Write a ratio so that parse_share reads the same back."""
    return f"{(Decimal(repr(share)) * 100).normalize():f}%"


def _typed(
    parse: Callable[[object], float], write: Callable[[Any], str], written: Written
) -> tuple[BeforeValidator, PlainSerializer, Written]:
    return BeforeValidator(parse), PlainSerializer(write, when_used="json-unless-none"), written


def _places(unit: int) -> str:
    """Return the pattern of what may stand after the whole number, so that it is whole in the smallest unit."""
    digits = len(str(unit)) - 1 if str(unit).strip("0") == "1" else 9  # of any other unit some fractions are whole
    return rf"(\.(?=[0-9])[0-9]{{0,{digits}}}0*)?" if digits else r"(\.0+)?"


def _one_of(units: Mapping[str, int]) -> str:
    return "|".join(f"{_places(size)}{unit}" for unit, size in units.items())


_DURATION_WRITTEN = Written(
    called="duration",
    schema={
        "type": "string",
        "pattern": r"^\s*(?=[0-9])"
        + "".join(rf"([0-9]{{1,9}}{_places(size)} *{unit} *)?" for unit, size in _DURATION_UNITS.items())
        + r"\s*$",
    },
    unit="d, h, m, s, ms",
)
SIZE_WRITTEN = Written(
    called="size",
    schema={
        "type": "string",
        "pattern": rf"^\s*[0-9]{{1,15}}({_one_of({rf' ?{unit}': size for unit, size in _SIZE_UNITS.items()})})\s*$",
    },
    unit="B, KiB, MiB, GiB, TiB",
)
_COUNT_WRITTEN = Written(
    called="count",
    schema={
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": rf"^\s*[0-9](_?[0-9]){{0,17}}({_one_of(_COUNT_UNITS)})\s*$"},
        ]
    },
    unit="things; k, M, G of 1000",
)
_SHARE_WRITTEN = Written(
    called="share",
    schema={
        "anyOf": [
            {"type": "number", "minimum": 0, "maximum": 1},
            {"type": "string", "pattern": r"^\s*[0-9]{1,9}(\.[0-9]{1,9})?\s?%\s*$"},
        ]
    },
    unit="% or a ratio",
)

Duration = Annotated[float, *_typed(parse_duration, format_duration, _DURATION_WRITTEN)]
Size = Annotated[int, *_typed(parse_size, format_size, SIZE_WRITTEN)]
Count = Annotated[int, BeforeValidator(parse_count), _COUNT_WRITTEN]
Share = Annotated[float, *_typed(parse_share, format_share, _SHARE_WRITTEN)]
