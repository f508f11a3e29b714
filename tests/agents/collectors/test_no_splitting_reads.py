"""Sampling never opens what splits 1 GB pages."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from agents.collectors import Collectors
from agents.facts import survey
from agents.sysroot import FolderRoot, Reader

ROOT = Path(__file__).parents[3]
FORBIDDEN = ("smaps", "smaps_rollup", "numa_maps", "pagemap", "clear_refs", "kpageflags")


class RecordingRoot(FolderRoot):
    """This machine, with a list of every path that was asked for."""

    def __init__(self) -> None:
        super().__init__("/")
        self.asked: list[str] = []

    def read(self, path: str) -> bytes:
        self.asked.append(path)
        return super().read(path)

    def reader(self, path: str) -> Reader:
        self.asked.append(path)
        return super().reader(path)


def _witness() -> None:
    """Print what a whole period asks for and opens: the paths asked of the root, and Python's own record of opens."""
    root, opened = RecordingRoot(), list[str]()
    sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
    survey(root)
    collectors = Collectors(root, watch_sizes_kib=(64,), cgroup="/")
    collectors.boundary()
    for _ in range(5):
        collectors.sample()
        collectors.events()
    collectors.boundary()
    collectors.close()
    json.dump([root.asked, opened], sys.stdout)


def test_nothing_that_splits_big_pages_is_ever_opened() -> None:
    """In a process of its own: an audit hook can't be taken out again, and would slow all later tests."""
    words = [sys.executable, "-m", "tests.agents.collectors.test_no_splitting_reads"]
    asked, opened = json.loads(subprocess.run(words, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    assert "/proc/vmstat" in opened
    assert "proc/vmstat" in asked
    for path in (*opened, *asked):
        assert path.rpartition("/")[2] not in FORBIDDEN, path
        assert not path.startswith(("/proc/kpage", "/sys/kernel/mm/page_idle")), path


if __name__ == "__main__":
    _witness()
