"""Runs inside the guest: touch one byte in 16 MiB over two aligned huge pages, and read these bytes again and again.

    python sparse_touch.py BYTES        the size of a huge page

It prints how many it read a second. With small pages it holds what it touched, with huge ones the whole of both.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
import time

PAGES, STEP = 2, 16 << 20


def main(size: int) -> None:
    memory = mmap.mmap(-1, (PAGES + 1) * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    seen = ctypes.c_char.from_buffer(memory)
    first = -ctypes.addressof(seen) % size
    del seen
    gc.collect()  # an object of ctypes that looks at the memory keeps it from being written to its end
    places = range(first, first + PAGES * size, STEP)
    for place in places:
        memory[place] = 1
    while True:
        started, read = time.monotonic(), 0
        while time.monotonic() < started + 0.5:
            read += sum(memory[place] for place in places)
            time.sleep(0.01)
        print("touches_per_second", read / (time.monotonic() - started), flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
