"""Runs inside the guest: a CPU is taken from the kernel and given back under perf events that count on it.

Not a test itself: `test_cpu_hotplug.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agents.perf import PerfCounters
from agents.sysroot import FolderRoot
from tests.touched_pages import on_cpu, touch_pages

SWITCH = Path("/sys/devices/system/cpu/cpu1/online")
PAGES = 2000


def touch_pages_on_cpu_1() -> None:
    with on_cpu(1):
        touch_pages(PAGES)


def main(result: Path) -> None:
    lost: list[str] = []
    counters = PerfCounters(FolderRoot(), lost=lost.append)
    seen: list[dict[str, object]] = []

    def take(what: str) -> None:
        out: dict[str, float] = {}
        counters.collect(out)
        seen.append({"what": what, "faults": out.get("page_faults"), "lost": list(lost)})
        lost.clear()

    take("at first")
    touch_pages_on_cpu_1()
    take("counted")
    SWITCH.write_text("0")
    take("offline")
    SWITCH.write_text("1")
    take("back")
    touch_pages_on_cpu_1()
    take("counted after it was back")
    SWITCH.write_text("0")
    SWITCH.write_text("1")
    take("away and back unseen")
    take("the sample after it")
    touch_pages_on_cpu_1()
    take("counted after it was away unseen")
    result.write_text(json.dumps({"seen": seen, "unavailable": dict(counters.unavailable)}))
    counters.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
