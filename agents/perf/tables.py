"""The event tables of this package: what a kind of CPU is asked to count for each metric. The data is in `tables/`.

A file holds CPUs whose encodings are the same. Each names its source: the tables of perf in a Linux release, or of the
CPU's maker. `terms` are perf's own; the kernel's description of the PMU says where each goes.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from agents.perf.cpu_kind import CpuKind

_FOLDER = Path(__file__).parent / "tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableEvent:
    """One event by its maker's name. `counts` says what it counts where the metric's meaning, or its name, does not.

    Events of two CPUs with the same `counts`, else the same name, are taken for the same thing.
    """

    event: str
    terms: str  # as perf writes them: event=0x08,umask=0x0e
    table: str  # the file in the CPU's `source` that has it
    counts: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableCpu:
    """A CPU of a table: its numbers, first and last of each range, and where its events are written down."""

    name: str
    models: Sequence[tuple[int, int]]
    source: str
    family: int = 0
    steppings: Sequence[int] = (0, 255)
    libpfm4: str = ""  # its name in libpfm4, where Debian's knows it

    def is_kind(self, kind: CpuKind) -> bool:
        return (
            kind.family == self.family
            and self.steppings[0] <= kind.stepping <= self.steppings[1]
            and any(first <= kind.model <= last for first, last in self.models)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EventTable:
    """Events by metric, of CPUs of one vendor, for a PMU whose name matches one of `pmus`."""

    vendor: str
    pmus: tuple[str, ...]
    cpus: tuple[TableCpu, ...]
    events: Mapping[str, TableEvent]

    def has_pmu(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.pmus)


@functools.cache
def event_tables() -> tuple[EventTable, ...]:
    """Read every table, by name of its file."""
    return tuple(_table(tomllib.loads(path.read_text())) for path in sorted(_FOLDER.glob("*.toml")))


def find_table(kind: CpuKind) -> tuple[EventTable, TableCpu] | None:
    """Return the table of a kind of CPU and the CPU in it; None where no table has it."""
    for table in event_tables():
        for cpu in table.cpus:
            if table.vendor == kind.vendor and cpu.is_kind(kind):
                return table, cpu
    return None


def _table(found: dict[str, Any]) -> EventTable:
    return EventTable(
        vendor=found["vendor"],
        pmus=tuple(found["pmus"]),
        cpus=tuple(TableCpu(**cpu) for cpu in found["cpu"]),
        events={metric: TableEvent(**event) for metric, event in found["events"].items()},
    )
