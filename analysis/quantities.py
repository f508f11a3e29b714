"""Numbers as people read them: 134 ms, 68 GiB, 26 %, with one scale for the cells of a row."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

MINUS = "\N{MINUS SIGN}"
TIMES = "\N{MULTIPLICATION SIGN}"
DASH = "\N{EN DASH}"  # an empty cell

_LONGEST_SUFFIX = 12  # letters of a unit that fit beside a number in a cell

_SECONDS = {
    "seconds": 1.0, "second": 1.0, "s": 1.0,
    "milliseconds": 1e-3, "ms": 1e-3,
    "microseconds": 1e-6, "us": 1e-6, "µs": 1e-6,
    "nanoseconds": 1e-9, "ns": 1e-9,
}  # fmt: skip
_BYTES = {"bytes": 1.0, "byte": 1.0, "B": 1.0, "kB": 1024.0, "KiB": 1024.0, "MiB": 1024.0**2, "GiB": 1024.0**3}
_SHARES = {"ratio": 100.0, "share": 100.0, "fraction": 100.0, "percent": 1.0, "%": 1.0}
_BARE = {"", "1", "count", "number", "dimensionless"}

# Smallest magnitude (in the base unit) at which a step is used, its size in the base unit, its name.
_TIME_STEPS = (
    (2 * 86400.0, 86400.0, "d"), (7200.0, 3600.0, "h"), (600.0, 60.0, "min"), (1.0, 1.0, "s"),
    (1e-3, 1e-3, "ms"), (1e-6, 1e-6, "µs"), (0.0, 1e-9, "ns"),
)  # fmt: skip
_BYTE_STEPS = (
    (1024.0**4, 1024.0**4, "TiB"), (1024.0**3, 1024.0**3, "GiB"), (1024.0**2, 1024.0**2, "MiB"),
    (1024.0, 1024.0, "KiB"), (0.0, 1.0, "B"),
)  # fmt: skip


# For a rate below 1 a second: seconds in the period it is shown for, how that is spelled, and beside a number.
_RATES = ((1.0, "second", "s"), (60.0, "host and minute", "min"), (3600.0, "host and hour", "h"),
          (86400.0, "host and day", "d"))  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How a unit is shown: the value times `factor`, then `suffix`; `difference_suffix` where two were subtracted.

    A unit too long to stand beside every number is `spelled` once instead, and the suffixes are empty.
    """

    factor: float
    suffix: str
    difference_suffix: str
    spelled: str = ""

    def show(self, value: float) -> str:
        return number(value * self.factor) + self.suffix

    def show_difference(self, value: float) -> str:
        return signed(number(value * self.factor)) + self.difference_suffix


def is_duration(unit: str) -> bool:
    """Whether the unit is one of time."""
    return unit in _SECONDS


def scale_for(unit: str, values: Iterable[float | None]) -> Scale:
    """Choose the one scale in which all `values` (in `unit`; None is skipped) read well: that of the largest.

    A rate of less than one a second is shown per minute, hour or day; every rate is that of one host.
    """
    counted = unit.removesuffix(" per second")
    per_second = counted != unit
    base, slash, per = (counted, "/", "s") if per_second else unit.partition("/")
    base, tail = base.strip(), f"/{per.strip()}" if slash else ""
    largest = max((abs(value) for value in values if value is not None), default=0.0)
    for table, steps in ((_SECONDS, _TIME_STEPS), (_BYTES, _BYTE_STEPS)):
        if base in table:
            size = largest * table[base]
            _, step, name = next(
                (row for row in steps if size >= 0.9995 * row[0] and size > 0), (0.0, 1.0, steps[-1][2])
            )
            if size == 0:
                step, name = table[base], next((row[2] for row in steps if row[1] == table[base]), base)
            return Scale(factor=table[base] / step, suffix=f" {name}{tail}", difference_suffix=f" {name}{tail}")
    if base in _SHARES:
        difference = " percentage points" if not tail else f" %{tail}"
        return Scale(factor=_SHARES[base], suffix=f" %{tail}", difference_suffix=difference)
    factor = 1.0
    if tail == "/s":
        rate = next((row for row in _RATES if largest * row[0] >= 0.9995), _RATES[-1] if largest else _RATES[0])
        factor, spelled, short = rate
        unit, tail = (f"{base} per {spelled}", f"/{short}") if per_second else (f"{base}/{short}", f"/{short}")
    if per_second or len(unit) > _LONGEST_SUFFIX:
        return Scale(factor=factor, suffix="", difference_suffix="", spelled=unit)
    name = "" if base in _BARE else f" {base}"
    return Scale(factor=factor, suffix=name + tail, difference_suffix=name + tail)


def quantity(value: float | None, unit: str) -> str:
    """Show one value with its unit, or 'unavailable' for None."""
    if value is None:
        return "unavailable"
    scale = scale_for(unit, (value,))
    return scale.show(value) + (f" {scale.spelled}" if scale.spelled else "")


def number(value: float) -> str:
    """Show about three significant digits, whole numbers whole, thousands set apart by commas."""
    size = abs(float(f"{value:.3g}"))  # as it will be rounded: 0.99998 has as many decimals as 1
    if size == 0:
        return "0"
    if size >= 1e9 or size < 1e-4:
        mantissa, _, exponent = f"{value:.2e}".partition("e")
        return f"{_sign(mantissa)} {TIMES} 10^{_sign(str(int(exponent)))}"
    if float(f"{value:.12g}").is_integer() or size >= 1000:  # 0.2 - 0.188 is 12 ms too
        return _sign(f"{value:,.0f}")
    decimals = max(0, 2 - math.floor(math.log10(size)))
    return _sign(f"{value:.{decimals}f}")


def counted(count: float, noun: str) -> str:
    """Show a count with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def tick(value: float) -> str:
    """Show a number on an axis, where matplotlib has chosen round ones, in few letters: 0.6, 1,200, 40k, 1.4M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            step = 1000.0 if letter == "k" else size
            return _sign(f"{round(value / step, 9):,g}{letter}")
    return _sign(f"{round(value, 12):,g}".replace("e-0", "e-"))


def signed(text: str) -> str:
    """Put a plus before a number shown by `number` that is neither negative nor 0."""
    return text if text == "0" or text.startswith(MINUS) else f"+{text}"


def decimals_for(numbers: Iterable[float], half_width: float | None) -> int:
    """Choose the decimals of an estimate and its interval: to the first digit of the half-width, below 10 one at least.

    No value that is not 0 may read as 0: an interval that reaches past 0 must be seen to do so.
    """
    values = [abs(value) for value in numbers if abs(value) > 1e-9]  # what is left of rounding is 0
    decimals = 1 if half_width is None or half_width <= 0 else min(4, max(0, -math.floor(math.log10(half_width))))
    if half_width is None and values and max(values) >= 10:
        decimals = 0
    if values and max(values) < 10:  # 5.8 % [+3.1 %, +8.4 %]
        decimals = max(1, decimals)
    while decimals < 4 and any(round(value, decimals) == 0 for value in values):
        decimals += 1
    return decimals


def percentage(value: float, decimals: int, *, sign: bool = True) -> str:
    """Show a share as a percentage: 0.059 is '+5.9 %'."""
    return f"{fixed(value * 100, decimals, sign=sign)} %"


def fixed(value: float, decimals: int, *, sign: bool = True) -> str:
    """Show a number to so many decimals, with its sign unless it reads as 0."""
    text = f"{value:,.{decimals}f}"
    if float(text.replace(",", "")) == 0:
        return f"{0:.{decimals}f}"
    text = _sign(text)
    return signed(text) if sign else text


def _sign(text: str) -> str:
    return text.replace("-", MINUS)
