"""Runs inside the guest: load, then store, one byte in each page of a region, so often; each time with an empty TLB.

    python page_stride.py MIB REPEATS
    python page_stride.py KNOB           twenty times a second until it is stopped: 16 MiB while [always] is set, else 1

Nothing but the standard library: it is the program that fleetexp and `perf stat` count in turn, and the service that
runs on the host of an experiment whose arms differ in what it touches.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
import time
from pathlib import Path

PAGE = 4096
# A part of a region is loaded and stored before the next: where events take turns on a counter (each 4 ms) all of them
# see both. Of more than 64 pages: then the kernel flushes the TLB as a whole.
PART = 512 * PAGE


class Region:
    """Memory of small pages, all of them there from the start."""

    def __init__(self, mib: int) -> None:
        self._size = mib << 20
        self._part = min(PART, self._size)
        self._memory = mmap.mmap(-1, self._size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._memory.madvise(mmap.MADV_NOHUGEPAGE)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        self._libc = ctypes.CDLL(None)
        self._memory[::PAGE] = b"1" * (self._size // PAGE)

    def sweep(self) -> None:
        ones = b"1" * (self._part // PAGE)
        for begin in range(0, self._size, self._part):
            pages = slice(begin, begin + self._part, PAGE)
            self._empty_the_tlb(begin)
            self._memory[pages]
            self._empty_the_tlb(begin)
            self._memory[pages] = ones

    def _empty_the_tlb(self, begin: int) -> None:
        """Protect a part and free it again."""
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            self._libc.mprotect(ctypes.c_void_p(self._address + begin), ctypes.c_size_t(self._part), protection)


def main(words: list[str]) -> None:
    if len(words) > 1:
        region = Region(int(words[0]))
        for _ in range(int(words[1])):
            region.sweep()
        return
    knob, small, big = Path(words[0]), Region(1), Region(16)
    while True:
        due = time.monotonic() + 0.05
        (big if "[always]" in knob.read_text() else small).sweep()
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1:])
