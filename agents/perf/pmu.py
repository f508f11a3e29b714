"""How the kernel describes a PMU in /sys/bus/event_source/devices, and what it makes of an event's terms.

https://www.kernel.org/doc/Documentation/ABI/testing/sysfs-bus-event_source-devices-format
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from agents.numbers import whole_number
from agents.sysroot import SysRoot

DEVICES = "sys/bus/event_source/devices"
_CONFIG_BITS, _KIND_BITS = 64, 32  # of struct perf_event_attr
_NOT_THERE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)


class Code(NamedTuple):
    """Type and configs of struct perf_event_attr."""

    kind: int
    config: int = 0
    config1: int = 0
    config2: int = 0


class Absence(str):
    """Why an event can't be asked for; `brief` leaves out where that was seen."""

    __slots__ = ("brief",)
    brief: str


class AbsentError(Exception):
    """An event can't be asked for here; the message says why, and `where` that was seen."""

    def __init__(self, brief: str, where: str = "") -> None:
        self.why = Absence(f"{brief} ({where})" if where else brief)
        self.why.brief = brief
        super().__init__(self.why)


def split_terms(text: str) -> Iterator[tuple[str, int]]:
    """Give the terms of 'event=0x08,umask=0x10,edge'; ValueError where a value is not a number."""
    for term in text.split(","):
        name, equals, value = term.partition("=")
        yield name, int(value, 0) if equals else 1


def read_terms(root: SysRoot, pmu: str, event: str) -> tuple[tuple[str, int], ...]:
    """Return the terms of an event that the kernel itself names; AbsentError where they make no sense."""
    path = f"{DEVICES}/{pmu}/events/{event}"
    try:
        return tuple(split_terms(root.read(path).decode().strip()))
    except ValueError as error:
        raise AbsentError(f"the PMU {pmu} has no fixed code for {event}", f"/{path}") from error


def encode(root: SysRoot, pmu: str, terms: Iterable[tuple[str, int]]) -> Code:
    """Return what the kernel is asked with for the terms of an event, each placed as <PMU>/format says.

    AbsentError where the kernel's own description does not have them or makes no sense; OSError where it could not be
    read.
    """
    configs = {"config": 0, "config1": 0, "config2": 0}
    given: set[str] = set()
    for name, value in terms:
        if name in given:
            raise AbsentError(f"{name} is given twice for the PMU {pmu}, once by a name of its events")
        given.add(name)
        if name in configs:
            configs[name] |= value
            continue
        path = f"{DEVICES}/{pmu}/format/{name}"
        try:
            place, _, ranges = root.read(path).decode().strip().partition(":")
            configs[place] |= _scatter(value, ranges)
        except (*_NOT_THERE, ValueError, KeyError) as error:
            raise AbsentError(f"PMU {pmu} does not take {name}={value:#x}", f"/{path}") from error
    try:
        kind = whole_number(root.read(f"{DEVICES}/{pmu}/type"))
        if kind >= 1 << _KIND_BITS:
            raise ValueError(f"no type of a PMU: {kind}")
    except (*_NOT_THERE, ValueError) as error:
        raise AbsentError(f"PMU {pmu} has no number", f"/{DEVICES}/{pmu}/type") from error
    return Code(kind, **configs)


def _scatter(number: int, ranges: str) -> int:
    """Place the low bits of a number into the bit ranges '0-7,32-35', lowest first; ValueError where it is too wide."""
    placed = 0
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if not 0 <= low <= high < _CONFIG_BITS:
            raise ValueError(f"no bits of a config: {part[:40]!r}")
        width = high - low + 1
        placed |= (number & ((1 << width) - 1)) << low
        number >>= width
    if number:
        raise ValueError(f"value does not fit the bits {ranges}")
    return placed
