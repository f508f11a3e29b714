"""Runs inside the guest: surveys of a process with 1 GB pages, and the kernel's own counters around each.

    python guest_survey.py RESULT.json

Not a test itself: `test_survey_1g.py` boots a guest, runs this in it and judges what it wrote.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.facts import survey
from agents.messages import HostFacts
from agents.survey.figures import SurveyPages
from agents.survey.survey import survey_pages
from agents.sysroot import FolderRoot
from tests.lab.guest_experiment import counters

BIG = Path("/sys/kernel/mm/transparent_hugepage/hugepages-1048576kB")
GIB = 2**30


def hold_a_gigabyte() -> mmap.mmap:
    """Touch one aligned gigabyte, which the kernel answers with one page."""
    memory = mmap.mmap(-1, 2 * GIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    at = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % GIB
    memory[at] = 1
    return memory


def surveyed(root: FolderRoot, facts: HostFacts) -> dict[str, Any]:
    """One survey of this process, and the counters before and after."""
    before = counters()
    found = survey_pages(root, facts, SurveyPages(pids=(os.getpid(),), cpu_share=1.0))
    return {"before": before, "after": counters(), **asdict(found)}


def main() -> None:
    root = FolderRoot()
    facts = survey(root)
    (BIG / "enabled").write_text("always")
    before = counters()
    memory = hold_a_gigabyte()
    result: dict[str, Any] = {"before": before, "held": counters()}
    result["big"] = surveyed(root, facts)
    (BIG / "enabled").write_text("never")
    result["left"] = surveyed(root, facts)
    before = counters()
    Path("/proc/self/smaps").read_text()
    result["smaps"] = {"before": before, "after": counters()}
    memory.close()
    memory = mmap.mmap(-1, 64 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for page in range(0, 64 << 20, 4096):
        memory[page] = 1
    result["nr_anon"] = int((BIG / "stats/nr_anon").read_text())
    result["none"] = surveyed(root, facts)
    Path(sys.argv[1]).write_text(json.dumps(result, default=str))


if __name__ == "__main__":
    main()
