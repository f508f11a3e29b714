"""Which hosts an experiment is about: pools, names, and conditions on what a host says of itself. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

_COMPARE: Mapping[str, Callable[[int], bool]] = {
    ">=": lambda order: order >= 0,
    "<=": lambda order: order <= 0,
    "!=": lambda order: order != 0,
    "==": lambda order: order == 0,
    ">": lambda order: order > 0,
    "<": lambda order: order < 0,
}
_CONDITION = re.compile(r"(>=|<=|!=|==|>|<)?\s*([^<>=!\s].*)")
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
        if (size := _as_bytes(text)) is not None:
            return float(size)
        return float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison with a label's value: versions part by part, sizes in bytes, numbers; else as text."""

    operator: str
    value: str

    def holds(self, actual: str) -> bool:
        order = _order(actual, self.value)
        return self.operator == "!=" if order is None else _COMPARE[self.operator](order)

    def __str__(self) -> str:
        return f"{self.operator}{self.value}"


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """Read '>=6.12, <6.20' or 'intel'; ValueError where a part is no comparison."""
    out = []
    for part in text.split(","):
        match = _CONDITION.fullmatch(part.strip())
        if match is None:
            raise ValueError(f"{part.strip()!r} is no comparison")
        condition = Condition(operator=match[1] or "==", value=match[2].strip())
        if condition.operator not in {"==", "!="} and not re.match(r"[0-9]", condition.value):
            raise ValueError(f"{part.strip()!r} compares with what is no number, size or version")
        out.append(condition)
    return tuple(out)


def why_not(
    host: HostInfo,
    *,
    pools: tuple[str, ...],
    hosts: tuple[str, ...],
    exclude: tuple[str, ...],
    where: Mapping[str, tuple[Condition, ...]],
) -> str:
    """Say why a host is left out; '' where it takes part. A label that the host lacks is a reason."""
    if any(fnmatchcase(host.name, pattern) for pattern in exclude):
        return "it is excluded by name"
    if hosts and not any(fnmatchcase(host.name, pattern) for pattern in hosts):
        return "its name is not listed"
    if pools and host.labels.get("pool") not in pools:
        return f"its pool is {host.labels.get('pool', 'not known')}"
    for label, conditions in where.items():
        actual = host.labels.get(label)
        if actual is None:
            return f"its {label} is not known"
        for condition in conditions:
            if not condition.holds(actual):
                return f"its {label} is {actual}, not {condition}"
    return ""


def _order(actual: str, wanted: str) -> int | None:
    """Return -1, 0 or 1: actual below, equal to or above wanted, by what `wanted` looks like; None: no order."""
    if (size := _as_bytes(wanted)) is not None and (have := _as_bytes(actual)) is not None:
        return (have > size) - (have < size)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)*", wanted) and (found := re.match(r"[0-9]+(\.[0-9]+)*", actual)):
        parts = [int(part) for part in wanted.split(".")]
        # 6.19.3 is "6.19" for equality and for "<=": only the parts that were named count.
        here = ([int(part) for part in found[0].split(".")] + [0] * len(parts))[: len(parts)]
        return (here > parts) - (here < parts)
    return 0 if actual == wanted else None


def _as_bytes(text: str) -> int | None:
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s?(?:([KMGT])(?:i?B)?|B)?", text)
    if match is None or ("." in match[1] and not match[2]):
        return None
    return int(float(match[1]) * 2 ** _BYTES[match[2] or ""])
