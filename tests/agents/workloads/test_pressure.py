"""Holding memory: so much of it and no more, in pieces, and none of it where the host needs it."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from agents.errors import WorkloadError
from agents.messages import WorkloadState
from agents.sysroot import FolderRoot
from agents.workloads.kinds import pressure
from agents.workloads.kinds.pressure import HeldMemory, MemoryPressure, fill, give_way

Runs: TypeAlias = Any  # conftest.py
MIB = 2**20


class Host(FolderRoot):
    """A host with so much memory available, of which this process takes what `memory` holds."""

    def __init__(self, folder: Path, available_bytes: int, memory: HeldMemory) -> None:
        super().__init__(folder)
        self.others_bytes = 0
        self._available, self._memory = available_bytes, memory

    def read(self, path: str) -> bytes:
        left = max(0, self._available - self.others_bytes - self._memory.held_bytes)
        return f"MemTotal: {self._available // 1024} kB\nMemAvailable: {left // 1024} kB\n".encode()


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


def resident_runs(piece: mmap.mmap) -> list[bool]:
    """Whether each 64 KiB of a piece are there: mincore(2), which needs no look into smaps."""
    pages = np.zeros(len(piece) // mmap.PAGESIZE, dtype=np.uint8)
    start = np.frombuffer(piece, dtype=np.uint8).ctypes.data
    size = ctypes.c_size_t(len(piece))
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), size, ctypes.c_void_p(pages.ctypes.data)) == 0
    return [bool(page) for page in pages[:: 65536 // mmap.PAGESIZE]]


def test_the_share_that_was_asked_for_is_held_and_a_part_of_it_given_back_singly(tmp_path: Path) -> None:
    memory = HeldMemory()
    host = Host(tmp_path, 400 * MIB, memory)
    before = resident_bytes()
    kept = fill(memory, MemoryPressure(fill_percent=60, thin_percent=25), host)
    assert kept == 64 * MIB
    assert memory.held_bytes == 240 * MIB * 3 // 4
    assert resident_bytes() - before == pytest.approx(memory.held_bytes, abs=8 * MIB)
    piece = memory.pieces[0]
    assert resident_runs(piece)[:8] == [True, True, True, False, True, True, True, False]
    while memory.pieces:
        memory.drop()
    assert memory.held_bytes == 0
    assert resident_bytes() - before < 8 * MIB


def test_filling_ends_early_where_the_host_would_be_left_with_too_little(tmp_path: Path) -> None:
    memory = HeldMemory()
    host = Host(tmp_path, 200 * MIB, memory)
    fill(memory, MemoryPressure(fill_percent=90, thin_percent=0), host)
    assert 80 * MIB <= memory.held_bytes <= 112 * MIB  # not 180: 64 MiB stay with the host, and two pieces of slack
    while memory.pieces:
        memory.drop()


def test_memory_goes_back_piece_by_piece_when_others_need_it(tmp_path: Path) -> None:
    memory = HeldMemory()
    host = Host(tmp_path, 400 * MIB, memory)
    kept = fill(memory, MemoryPressure(fill_percent=60, thin_percent=0), host)
    held = memory.held_bytes
    give_way(memory, kept, host)
    assert memory.held_bytes == held  # nobody is in need
    host.others_bytes = 150 * MIB
    give_way(memory, kept, host)
    assert held - 80 * MIB <= memory.held_bytes < held
    host.others_bytes = 400 * MIB
    give_way(memory, kept, host)
    assert memory.pieces == []


def test_a_host_that_does_not_say_what_is_available_is_not_filled(tmp_path: Path) -> None:
    with pytest.raises(WorkloadError, match="does not say how much memory is available"):
        fill(HeldMemory(), MemoryPressure(fill_percent=50, thin_percent=0), FolderRoot(tmp_path))


@pytest.mark.parametrize(("fill_percent", "thin_percent", "said"), [(91, 0, "too little"), (50, 100, "none held")])
def test_a_share_that_leaves_the_host_or_the_run_nothing_is_refused(
    fill_percent: int, thin_percent: int, said: str
) -> None:
    ((_, what, remedy),) = MemoryPressure(fill_percent=fill_percent, thin_percent=thin_percent).wrong()
    assert said in what and "or less" in remedy


def test_it_holds_until_it_is_stopped_and_says_how_much(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    workload = runs.start("pressure", fill_percent=1, thin_percent=50)  # of this machine: some 100 MiB
    runs.until(lambda: workload.poll()[0] is WorkloadState.RUNNING)
    reported: list[float] = []
    runs.until(lambda: bool(reported.extend(value for *_, value in workload.measurements()) or reported))
    assert reported[0] % mmap.PAGESIZE == 0
    workload.stop()
    assert workload.poll() == (WorkloadState.FINISHED, "stopped")


def test_pieces_are_of_small_pages_also_where_big_ones_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    advised: list[int] = []

    class Piece(mmap.mmap):
        def madvise(self, option: int, *where: int) -> None:
            advised.append(option)

    monkeypatch.setattr(pressure.mmap, "mmap", Piece)
    memory = HeldMemory()
    memory.add(4 * mmap.PAGESIZE)
    assert advised == [15, 23]  # MADV_NOHUGEPAGE before MADV_POPULATE_WRITE
