"""Page faults made on purpose, and on one CPU where that is asked."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator


@contextlib.contextmanager
def on_cpu(cpu: int) -> Iterator[None]:
    """Keep this thread on one CPU meanwhile."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpu})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def touch_pages(pages: int) -> None:
    """Fault in so many pages of 4 KiB, one by one."""
    with mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        for at in range(0, pages * 4096, 4096):
            memory[at] = 1
