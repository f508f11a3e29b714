"""The content of one file of the host: a plain one, of bounded size."""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath

from agents.collectors.notes import why
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.place_kind import PlaceKind
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import FolderRoot, SysRoot

BYTES_AT_MOST = 16 * 2**20
# Reading one of these walks the page tables of the process looked at, and splits its 1 GB pages.
_SPLITTING = frozenset({"smaps", "smaps_rollup", "numa_maps", "pagemap"})


def wrong(at: str) -> tuple[str, str] | None:
    path = PurePosixPath(at)
    if not path.is_absolute() or ".." in path.parts or "\0" in at:
        return f"{at!r} is not a whole path", "write it from '/' on, without '..'"
    if path.name in _SPLITTING:
        return f"reading {path.name} splits 1 GB pages", "read another file"
    return None


def read_file(at: str, root: SysRoot, _timeout_seconds: float, _cut: Cancellation) -> bytes:
    """Return what a file holds; Unreadable where it is gone, no plain file, or too large."""
    below = at.lstrip("/")
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
            raise Unreadable("it is not a plain file")
        return file.read(BYTES_AT_MOST + 1)


FILE = PlaceKind(
    key="file",
    meaning="whole path of a plain file",
    example="/sys/class/hwmon/hwmon0/temp1_input",
    called="path",
    pattern=r"/[^\0]*",
    wrong=wrong,
    read=read_file,
)
