"""Sampling never opens what splits 1 GB pages."""

from __future__ import annotations

import sys

from agents.collectors import Collectors
from agents.facts import survey
from agents.sysroot import FolderRoot, Reader

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


_opened: list[str] = []
_listening = False


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if _listening and event == "open":
        _opened.append(str(arguments[0]))


sys.addaudithook(_listen)


def test_nothing_that_splits_big_pages_is_ever_opened() -> None:
    """A whole period, by two witnesses: the root that is asked, and Python's own record of every open."""
    global _listening  # noqa: PLW0603  an audit hook can't be taken out again, only told to be quiet
    root = RecordingRoot()
    _opened.clear()
    _listening = True
    try:
        survey(root)
        collectors = Collectors(root, watch_sizes_kib=(64,), cgroup="/")
        collectors.boundary()
        for _ in range(5):
            collectors.sample()
            collectors.events()
        collectors.boundary()
        collectors.close()
    finally:
        _listening = False
    assert "/proc/vmstat" in _opened
    assert "proc/vmstat" in root.asked
    for path in (*_opened, *root.asked):
        assert path.rpartition("/")[2] not in FORBIDDEN, path
        assert not path.startswith(("/proc/kpage", "/sys/kernel/mm/page_idle")), path
