"""Holding memory, in small pages and with gaps: what a host looks like whose memory is scarce and in pieces.

Nothing of it stays: it ends with its process, and memory goes back piece by piece as soon as the host needs it.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from agents.catalogue.declared import Reported
from agents.errors import WorkloadError
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import MADV_POPULATE_WRITE, available_bytes
from agents.workloads.option import KIB, Options, Wrong, count
from agents.workloads.workload import Workload

FILL_AT_MOST = 90  # percent of what is available
_CHUNK_BYTES = 16 * KIB * KIB
_RUN_BYTES = 64 * KIB  # a base page of any kernel, or a few
_KEPT_PERCENT, _KEPT_BYTES = 4, 64 * KIB * KIB  # what is left to the host: the larger
_MADV_NOHUGEPAGE = 15  # Python names it where its headers did
_LOOK_EVERY_SECONDS = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPressure(Options):
    """Hold memory in small pages, with gaps; give it back as soon as the host needs it."""

    fill_percent: int = count("of the memory available, what is filled", 70, default=50, least=1)
    thin_percent: int = count(
        "of what is filled, what is given back in runs of 64 KiB, so that it is in pieces", 30, default=0
    )

    @property
    def endless(self) -> bool:
        return True

    def wrong(self) -> Iterator[Wrong]:
        if self.fill_percent > FILL_AT_MOST:
            yield "fill_percent", f"{self.fill_percent} % leaves the host too little", f"write {FILL_AT_MOST} or less"
        if self.thin_percent > 99:
            yield "thin_percent", f"{self.thin_percent} % of it given back is none held", "write 99 or less"


@dataclass(slots=True)
class HeldMemory:
    """Pieces of memory that are held, all of it touched, in small pages."""

    pieces: list[mmap.mmap] = field(default_factory=list)
    held_bytes: int = 0
    thinned_percent: int = 0

    def add(self, size_bytes: int) -> None:
        """Take a piece; OSError where the kernel gives none."""
        piece = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        with suppress(OSError):  # a kernel without huge pages
            piece.madvise(_MADV_NOHUGEPAGE)
        try:
            piece.madvise(MADV_POPULATE_WRITE)
        except OSError:  # before Linux 5.14
            for start in range(0, size_bytes, mmap.PAGESIZE):
                piece[start] = 1
        self.pieces.append(piece)
        self.held_bytes += size_bytes

    def thin(self, percent: int) -> None:
        """Give back so many of every hundred runs of pages, spread evenly."""
        self.thinned_percent = percent
        for piece in self.pieces:
            for run in range(len(piece) // _RUN_BYTES):
                if (run + 1) * percent // 100 > run * percent // 100:
                    piece.madvise(mmap.MADV_DONTNEED, run * _RUN_BYTES, _RUN_BYTES)
        self.held_bytes = sum(_left(len(piece), percent) for piece in self.pieces)

    def drop(self) -> None:
        """Give the newest piece back."""
        piece = self.pieces.pop()
        self.held_bytes -= _left(len(piece), self.thinned_percent)
        piece.close()


def _left(size_bytes: int, percent: int) -> int:
    runs = size_bytes // _RUN_BYTES
    return (runs - runs * percent // 100) * _RUN_BYTES


def fill(memory: HeldMemory, options: MemoryPressure, root: SysRoot) -> int:
    """Take the share of what is available, and return what the host keeps in any case, in bytes.

    MemAvailable is looked at before each piece: it ends early where others take memory meanwhile.
    WorkloadError where the host does not say what is available.
    """
    available = _available(root)
    kept = max(available * _KEPT_PERCENT // 100, _KEPT_BYTES)
    wanted = available * options.fill_percent // 100
    while memory.held_bytes + _CHUNK_BYTES <= wanted and _available(root) >= kept + 2 * _CHUNK_BYTES:
        memory.add(_CHUNK_BYTES)
    memory.thin(options.thin_percent)
    return kept


def give_way(memory: HeldMemory, kept_bytes: int, root: SysRoot) -> None:
    """Give memory back until the host has what it keeps."""
    while memory.pieces and _available(root) < kept_bytes:
        memory.drop()


def _available(root: SysRoot) -> int:
    available = available_bytes(root)
    if available is None:
        raise WorkloadError(
            "the host does not say how much memory is available",
            where="/proc/meminfo, MemAvailable",
            remedy="leave the pressure out on this host",
        )
    return available


def run_pressure(options: MemoryPressure, root: SysRoot, emit: Emit) -> None:
    """Fill, thin out, then report `pressure_bytes` once a second and watch that the host has what it needs."""
    memory = HeldMemory()
    kept_bytes = fill(memory, options, root)
    emit.ready()
    report_at = time.monotonic()
    while True:
        give_way(memory, kept_bytes, root)
        if time.monotonic() >= report_at:
            emit.measured({"pressure_bytes": float(memory.held_bytes)})
            report_at += 1.0
        time.sleep(_LOOK_EVERY_SECONDS)


WORKLOAD = Workload(
    name="pressure",
    options=MemoryPressure,
    reports=(Reported(name="pressure_bytes", unit="bytes", meaning="memory held so that pages are scarce"),),
    run=run_pressure,
)
