"""Which hosts an experiment is about: pools, names, and conditions on what a host says of itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

_COMPARE: Mapping[str, Callable[[int], bool]] = {
    ">=": lambda order: order >= 0,
    "<=": lambda order: order <= 0,
    "!=": lambda order: order != 0,
    "==": lambda order: order == 0,
    ">": lambda order: order > 0,
    "<": lambda order: order < 0,
}
_CONDITION = re.compile(r"(>=|<=|!=|==|>|<)?\s*([^<>=!\s].*)")
_VERSION = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18}){0,20}")
_KERNEL = re.compile(rf"({_VERSION.pattern})(?:-rc([0-9]{{1,9}}))?(.*)")
_BYTES: Mapping[str, int] = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class HostInfo:
    """What the design needs to know of a host: its name, labels such as pool, sku, kernel, memory, and metrics.

    `measures` are values of an earlier run, by metric: what an assignment may be balanced on.
    """

    name: str
    labels: Mapping[str, str]
    measures: Mapping[str, float] = field(default_factory=dict)

    def number(self, name: str) -> float | None:
        """Return a measure or a label that is a number (sizes in bytes); None where it is neither."""
        if name in self.measures:
            return self.measures[name]
        text = self.labels.get(name, "")
        if (size := size_in_bytes(text)) is not None:
            return float(size)
        return float(text) if re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,18})?", text) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison with a label's value.

    Equality is that of the text: 6226R is no 6226. An order is one of numbers, sizes or versions, and where one side
    is something else there is none. Two labels are more than text: `kernel`, of which only the parts count that the
    condition names (6.19.3 is a 6.19), and `memory`, which is a size however it is written.
    """

    label: str
    operator: str
    value: str

    def holds(self, actual: str) -> bool:
        order = self._order(actual)
        return self.operator == "!=" if order is None else _COMPARE[self.operator](order)

    def _order(self, actual: str) -> int | None:
        """Return -1, 0 or 1: actual below, equal to or above the value; None: neither."""
        if self.label == "kernel":
            return _kernel_order(actual, self.value)
        if self.operator in {"==", "!="} and self.label != "memory":
            return 0 if actual == self.value else None
        return _quantity_order(actual, self.value)

    def __str__(self) -> str:
        return f"{self.operator}{self.value}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Why a host is left out: the condition of the spec that it does not meet, and how."""

    condition: str
    reason: str


def parse_conditions(text: str, label: str = "") -> tuple[Condition, ...]:
    """Read '>=6.12, <6.20' or 'intel', said of a label; ValueError where a part is not a comparison."""
    out = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is not a comparison")
        condition = Condition(label=label, operator=match[1] or "==", value=match[2].strip())
        ordered = condition.operator not in {"==", "!="}
        known = _KERNEL if label in {"", "kernel"} else _VERSION
        if ordered and size_in_bytes(condition.value) is None and not known.fullmatch(condition.value):
            raise ValueError(f"{part.strip()!r} compares with what is not a number, size or version")
        out.append(condition)
    return tuple(out)


def why_not(
    host: HostInfo,
    *,
    pools: tuple[str, ...],
    hosts: tuple[str, ...],
    exclude: tuple[str, ...],
    where: Mapping[str, tuple[Condition, ...]],
) -> LeftOut | None:
    """Return the first condition that leaves a host out, None where it takes part. A label that it lacks is one."""
    if any(fnmatchcase(host.name, pattern) for pattern in exclude):
        return LeftOut(condition="exclude", reason="it is excluded by name")
    if hosts and not any(fnmatchcase(host.name, pattern) for pattern in hosts):
        return LeftOut(condition="hosts", reason="its name is not listed")
    if pools and host.labels.get("pool") not in pools:
        return LeftOut(condition="pools", reason=f"its pool is {host.labels.get('pool', 'not known')}")
    for label, conditions in where.items():
        actual = host.labels.get(label)
        for condition in conditions:
            if actual is None or not condition.holds(actual):
                reason = "not known" if actual is None else f"{actual}, not {condition}"
                return LeftOut(condition=f"where {label} {condition}", reason=f"its {label} is {reason}")
    return None


def _quantity_order(actual: str, wanted: str) -> int | None:
    """Order two sizes or numbers, or two versions part by part; None where they are not both the same kind."""
    if (size := size_in_bytes(wanted)) is not None and (have := size_in_bytes(actual)) is not None:
        return _sign(have, size)
    if _VERSION.fullmatch(wanted) and _VERSION.fullmatch(actual):
        return _sign(_numbers(actual), _numbers(wanted))
    return None


def _kernel_order(actual: str, wanted: str) -> int | None:
    """Order two kernels as distributions number them, by the parts that are named.

    The version, then whether it is a release candidate, then what the distribution adds: 5.15.0-101-generic is above
    5.15.0-91, 4.18.0-553.5.1.el8_10 above 4.18.0-553.el8_10, 6.19-rc2 below 6.19.3 and a 6.19. Words have no order.
    """
    here, named = _KERNEL.fullmatch(actual), _KERNEL.fullmatch(wanted)
    if here is None or named is None:
        return 0 if actual == wanted else None
    numbers = _numbers(named[1])
    have = (_numbers(here[1]) + [0] * len(numbers))[: len(numbers) if not (named[2] or named[3]) else None]
    width = max(len(have), len(numbers))
    order = _sign(have + [0] * (width - len(have)), numbers + [0] * (width - len(numbers)))
    if order or not (named[2] or named[3]):
        return order
    final = 10**9  # what is not a candidate comes after all of them
    if order := _sign(int(here[2] or final), int(named[2] or final)):
        return order
    parts = _parts(here[3])
    for place, part in enumerate(_parts(named[3])):
        if place >= len(parts):
            return -1
        if parts[place] != part:
            # As rpm has it: a number is above a word.
            both = isinstance(part, int), isinstance(parts[place], int)
            return _sign(parts[place], part) if all(both) else None if not any(both) else 1 if both[1] else -1
    return 0


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _parts(suffix: str) -> list[int | str]:
    """Return the numbers and words of what a distribution adds: '-553.el8_10' is 553, el, 8, 10."""
    return [int(part) if part.isdecimal() else part for part in re.findall(r"[0-9]{1,18}|[A-Za-z]+", suffix)]


def _sign(left: Any, right: Any) -> int:  # noqa: ANN401 - two of whatever has an order
    return int(left > right) - int(left < right)


def size_in_bytes(text: str) -> int | None:
    """Return the bytes that '200GiB', '0.25 TiB' or a whole number says, None where it is not a size."""
    match = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)\s?(?:([KMGT])(?:i?B)?|B)?", text)
    if match is None or ("." in match[1] and not match[2]):
        return None
    return int(float(match[1]) * 2 ** _BYTES[match[2] or ""])
