"""The content of one file of the host: a plain one, of bounded size."""

from __future__ import annotations

import os
import stat

from agents.collectors.notes import why
from agents.feeds.unreadable import Unreadable
from agents.sysroot import FolderRoot, SysRoot

BYTES_AT_MOST = 16 * 2**20
# Reading one of these walks the page tables of the process looked at, and splits its 1 GB pages.
SPLITTING = frozenset({"smaps", "smaps_rollup", "numa_maps", "pagemap"})


def read_file(root: SysRoot, path: str) -> bytes:
    """Return what a file holds; Unreadable where it is gone, no plain file, or too large. `path` is absolute."""
    below = path.lstrip("/")
    try:
        data = _bounded(root, below) if isinstance(root, FolderRoot) else root.read(below)
    except (OSError, ValueError) as error:
        raise Unreadable(why(error)) from error
    if len(data) > BYTES_AT_MOST:
        raise Unreadable(f"it is larger than {BYTES_AT_MOST // 2**20} MiB")
    return data


def _bounded(root: FolderRoot, below: str) -> bytes:
    # Without waiting: to open a FIFO that nobody writes to would hang.
    with os.fdopen(root.open(below, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise Unreadable("it is no plain file")
        return file.read(BYTES_AT_MOST + 1)
