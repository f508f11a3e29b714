"""Compare every encoding of agents/perf/tables with the tables that it was taken from: Linux's, and Arm's own.

Linux: Debian's linux-source-6.12 unpacked, or a clone at v6.12; Arm: github.com/ARM-software/data
python -m tests.agents.perf.kernel_tables LINUX ARM-SOFTWARE-DATA
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from agents.perf.tables import TableEvent, event_tables

_ARM_NAMES = ("recommended.json", "common-and-microarch.json")  # codes of what a core's table names only


def main(linux: Path, arm: Path) -> int:
    """Print how many events of each CPU are the same there, and each that is not. Returns how many are not."""
    different = 0
    for table in event_tables():
        for cpu in table.cpus:
            origin, _, folder = cpu.source.partition(": ")
            root = linux if origin.startswith("linux") else arm
            wrong = [metric for metric, event in table.events.items() if not _same(event, root / folder, root)]
            print(f"{cpu.name}: {len(table.events) - len(wrong)} of {len(table.events)}", *wrong)  # noqa: T201
            different += len(wrong)
    return different


def _same(event: TableEvent, folder: Path, root: Path) -> bool:
    terms = {name: int(value, 0) for name, value in (term.split("=") for term in event.terms.split(","))}
    return _fields(event, folder, root) == terms


def _fields(event: TableEvent, folder: Path, root: Path) -> dict[str, int]:
    found = _entry(json.loads((folder / event.table).read_text()), event.event)
    if "code" in found:  # Arm's own
        return {"event": found["code"]}
    if "ArchStdEvent" in found:
        arm64 = root / "tools/perf/pmu-events/arch/arm64"
        found = _entry([row for name in _ARM_NAMES for row in json.loads((arm64 / name).read_text())], event.event)
    keys = {"event": "EventCode", "umask": "UMask", "cmask": "CounterMask"}
    return {term: int(found[key], 0) for term, key in keys.items() if key in found}


def _entry(document: Any, name: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    rows = document["events"] if isinstance(document, dict) else document
    keys = ("EventName", "ArchStdEvent", "name")
    return next((row for row in rows if name in [row.get(key) for key in keys]), {})


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])) != 0)
