"""Opening what is inside a folder as if that folder were `/`: no link in it leads out, no pipe or device is opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

LARGEST_BYTES = 64 * 2**20  # no file of /sys or /proc that is read comes near; one that was planted could
_LINKS_AT_MOST = 40  # the kernel's own bound, MAXSYMLINKS


def find_inside(folder: Path, path: str) -> int:
    """Return an O_PATH descriptor of what a process chrooted into `folder` would find at `path`; OSError as it would.

    The meaning is that of openat2(2) with RESOLVE_IN_ROOT: an absolute link begins at the folder, and '..' ends there.
    Walked step by step from descriptors that follow no link, so that whoever swaps a folder for a link meanwhile gains
    nothing; where /proc is mounted inside, its magic links are read as text. Works on kernels without openat2, too.
    """
    walked = [os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
    left, links = path.split("/")[::-1], 0
    try:
        while left:
            step = left.pop()
            if step == "..":
                _end(walked, max(1, len(walked) - 1))
            elif step not in ("", "."):
                walked.append(os.open(step, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=walked[-1]))
                mode = os.fstat(walked[-1]).st_mode
                if stat.S_ISLNK(mode):
                    target = os.readlink("", dir_fd=walked[-1])
                    links += 1
                    if links > _LINKS_AT_MOST:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder / path))
                    _end(walked, 1 if target.startswith("/") else len(walked) - 1)
                    left += target.split("/")[::-1]
                elif left and not stat.S_ISDIR(mode):
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder / path))
        return walked.pop()
    finally:
        _end(walked, 0)


def open_inside(folder: Path, path: str, flags: int) -> int:
    """Open a regular file that is there already, or with O_DIRECTORY a folder; what else is there is not even opened.

    For writing, a file of one name only: by a hard link it could be one outside as well.
    """
    found = find_inside(folder, path)
    try:
        info = os.fstat(found)
        if stat.S_ISDIR(info.st_mode) and not flags & os.O_DIRECTORY:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(folder / path))
        if not stat.S_ISREG(info.st_mode) and not flags & os.O_DIRECTORY:
            raise OSError(errno.EINVAL, "not a regular file", str(folder / path))
        if info.st_size > LARGEST_BYTES and stat.S_ISREG(info.st_mode):
            raise OSError(errno.EFBIG, f"larger than {LARGEST_BYTES >> 20} MiB", str(folder / path))
        if flags & os.O_ACCMODE != os.O_RDONLY and info.st_nlink != 1:
            raise OSError(errno.EMLINK, "has other names (hard links), maybe outside", str(folder / path))
        return os.open(f"/proc/self/fd/{found}", flags | os.O_CLOEXEC | os.O_NONBLOCK)
    finally:
        os.close(found)


def _end(walked: list[int], keep: int) -> None:
    """Close what was walked beyond the first `keep`."""
    while len(walked) > keep:
        os.close(walked.pop())
