"""Which CPU a host has: the numbers in /proc/cpuinfo by which tables of events are chosen."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agents.sysroot import SysRoot

_FIELDS = re.compile(r"(?m)^(vendor_id|cpu family|model|stepping|CPU implementer|CPU part)[ \t]*: ([A-Za-z0-9]{1,20})$")


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuKind:
    """On x86 vendor, family, model and stepping; on arm64 the implementer as vendor, the part as model, family 0."""

    vendor: str
    family: int
    model: int
    stepping: int

    def __str__(self) -> str:
        family = f" family {self.family}" if self.family else ""
        return f"{self.vendor}{family} model {self.model:#x}"


def find_cpu_kinds(root: SysRoot) -> tuple[CpuKind, ...]:
    """Return the kinds of CPU that the host has, in order; none where the kernel gives no such numbers.

    OSError where /proc/cpuinfo can't be read.
    """
    text = root.read("proc/cpuinfo").decode(errors="replace")
    kinds = (_kind(dict(_FIELDS.findall(part))) for part in re.split(r"(?m)^processor\b", text))
    return tuple(dict.fromkeys(kind for kind in kinds if kind is not None))


def cpu_words(root: SysRoot) -> str:
    """Name the CPU as far as its numbers tell: what a generic event of its caches, or a code, means depends on it."""
    try:
        kinds = find_cpu_kinds(root)
    except OSError:
        kinds = ()
    return " and ".join(map(str, kinds)) or "a CPU without numbers"


def _kind(fields: dict[str, str]) -> CpuKind | None:
    try:
        if "CPU part" in fields:
            return CpuKind(
                vendor=fields["CPU implementer"].lower(), family=0, model=int(fields["CPU part"], 16), stepping=0
            )
        family, model, stepping = (int(fields[name]) for name in ("cpu family", "model", "stepping"))
    except (KeyError, ValueError):
        return None
    return CpuKind(vendor=fields.get("vendor_id", ""), family=family, model=model, stepping=stepping)
