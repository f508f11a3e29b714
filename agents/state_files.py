"""The state of a host on disk, its user's alone: whoever could write there would be obeyed by a guardian as root.

Folders are made 0700 and files 0600 whatever the umask. Every file is opened below the descriptor of its folder, no
link is followed and nothing is waited for. What another user owns, or could have written, is refused; what others can
only read, as fleetexp 0.1 left it, is obeyed, and closed to them by the next claim.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from agents.errors import StateRefused

LARGEST_BYTES = 256 * 1024 * 1024  # of a file: a journal of 300,000 writes

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINKS_AT_MOST = 40  # as the kernel's own walk
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_NO_FILES = (errno.ELOOP, errno.ENXIO, errno.EISDIR)  # a link, a pipe or socket, a folder


class StateFolder:
    """A folder of the state. Nothing stays open: each call walks there anew, from `/` down.

    All raise StateRefused where somebody else could have written it, its content or the way to it, else OSError.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def make(self) -> None:
        """Make it where it isn't there."""
        with self._reached(make=True):
            pass

    def take(self) -> None:
        """Make it where it isn't there, and close it to all others where it is. For a host's own folder only."""
        with self._reached(make=True) as folder:
            here = os.fstat(folder)
            if here.st_mode & _OTHERS and here.st_uid == os.geteuid():
                os.fchmod(folder, 0o700)

    def exists(self) -> bool:
        """Whether it is there, and to be trusted."""
        with suppress(FileNotFoundError, NotADirectoryError), self._reached():
            return True
        return False

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """Return a descriptor of a regular file of bounded size that only this user could have written."""
        write = flags != os.O_RDONLY
        with self._reached() as folder:
            try:
                fd = os.open(name, flags | _FILE, 0o600, dir_fd=folder)
            except OSError as error:
                if error.errno in _NO_FILES:
                    raise _refused(self.path / name, "it is not a regular file") from error
                raise
        try:
            self._check(name, fd, write=write)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def open_to_write(self, name: str, flags: int = 0) -> int:
        """Open a file to read and write; on a disk that has become read-only, to read: what it says still holds."""
        try:
            return self.open(name, os.O_RDWR | flags)
        except OSError as error:
            if error.errno != errno.EROFS:
                raise
            return self.open(name)

    def create(self, name: str) -> int:
        """Return a descriptor of a new file, to read and write; a file, link or pipe of that name loses it."""
        with self._reached() as folder:
            self._unlink(name, folder)
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FILE, 0o600, dir_fd=folder)
        os.fchmod(fd, 0o600)
        return fd

    def rename(self, name: str, new: str, *, into: StateFolder | None = None) -> None:
        """Give a file another name, in the place of whatever has that, here or in another folder."""
        with self._reached() as here, (into or self)._reached() as there:
            os.rename(name, new, src_dir_fd=here, dst_dir_fd=there)

    def remove(self, name: str) -> None:
        """Remove a name; harmless where it isn't there."""
        with suppress(FileNotFoundError), self._reached() as folder:
            self._unlink(name, folder)

    def names(self) -> list[str]:
        """Sorted names of what is in it; empty where it isn't there."""
        with suppress(FileNotFoundError, NotADirectoryError), self._reached() as folder:
            return sorted(os.listdir(folder))
        return []

    def sync(self) -> None:
        """Have its names on the disk."""
        with self._reached() as folder:
            os.fsync(folder)

    @contextmanager
    def _reached(self, *, make: bool = False) -> Iterator[int]:
        way = _walk(self.path, make=make)
        try:
            folder = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=way)
        finally:
            os.close(way)
        try:
            here = os.fstat(folder)
            if here.st_mode & _OTHERS_WRITE and (here.st_uid != os.geteuid() or os.listdir(folder)):
                raise _writable(self.path)
            yield folder
        finally:
            os.close(folder)

    def _unlink(self, name: str, folder: int) -> None:
        """Remove what a stranger could have made; what takes root to make (a device) is not a stranger's, nor ours."""
        with suppress(FileNotFoundError):
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if not any(is_so(mode) for is_so in (stat.S_ISREG, stat.S_ISLNK, stat.S_ISFIFO, stat.S_ISSOCK)):
                raise _refused(self.path / name, "it is not a regular file")
            os.unlink(name, dir_fd=folder)

    def _check(self, name: str, fd: int, *, write: bool) -> None:
        here, path = os.fstat(fd), self.path / name
        if not stat.S_ISREG(here.st_mode):
            raise _refused(path, "it is not a regular file")
        if not _trusted(here):
            raise _foreign(path, here)
        if here.st_mode & _OTHERS_WRITE:
            raise _writable(path)
        if here.st_nlink > 1:
            raise _refused(path, "it has a second name (a hard link)")
        if (size := here.st_blocks * 512) > LARGEST_BYTES:  # what is really there: a hole costs nothing
            raise _refused(path, f"it has {size:,} bytes, more than any of ours")
        if write and here.st_mode & _OTHERS and here.st_uid == os.geteuid():
            os.fchmod(fd, 0o600)


def _walk(path: Path, *, make: bool) -> int:
    """Go down to a folder step by step; returns its descriptor, for going on only.

    Links on the way are followed where they are root's or ours. What is wrong with the way is said only where there is
    something at its end, or is to be.
    """
    at, left, links = os.open("/", _STEP), [*reversed(path.absolute().parts[1:])], 0
    refusal: StateRefused | None = None
    try:
        while left:
            name = left.pop()
            try:
                step = os.open(name, _STEP, dir_fd=at)
            except FileNotFoundError:
                if not make:
                    raise
                if refusal is not None:
                    raise refusal from None
                with suppress(FileExistsError):
                    os.mkdir(name, 0o755 if left else 0o700, dir_fd=at)
                step = os.open(name, _STEP, dir_fd=at)
            here = os.fstat(step)
            if not _trusted(here):
                refusal = refusal or _foreign(_named(step, path), here)
            elif (
                left and stat.S_ISDIR(here.st_mode) and here.st_mode & _OTHERS_WRITE and not here.st_mode & stat.S_ISVTX
            ):
                refusal = refusal or _writable(_named(step, path))
            if not stat.S_ISLNK(here.st_mode):
                os.close(at)
                at = step
                continue
            target = os.readlink("", dir_fd=step)
            os.close(step)
            links += 1
            if not left or links > _LINKS_AT_MOST:
                raise refusal or _refused(
                    path, "it is a symbolic link", "move what it leads to here, or mount that here (mount --bind)"
                )
            steps = Path(target).parts
            if target.startswith("/"):
                os.close(at)
                at, steps = os.open("/", _STEP), steps[1:]
            left += reversed(steps)
        if refusal is not None:
            raise refusal
    except BaseException:
        os.close(at)
        raise
    return at


def _trusted(here: os.stat_result) -> bool:
    return here.st_uid in (0, os.geteuid())


def _named(fd: int, else_: Path) -> Path:
    with suppress(OSError):
        return Path(f"/proc/self/fd/{fd}").readlink()
    return else_  # no /proc


def _refused(path: Path, why: str, remedy: str = "look at it, and move it away") -> StateRefused:
    return StateRefused(f"the state of this host can't be trusted: {why}", str(path), remedy)


def _foreign(path: Path, here: os.stat_result) -> StateRefused:
    user = os.geteuid()
    return _refused(
        path,
        f"it belongs to user {here.st_uid}, not to user {user} or root",
        f"look at what is there, then move it away or 'chown {user}' it; or run as that user",
    )


def _writable(path: Path) -> StateRefused:
    return _refused(
        path,
        "other users may write there",
        f"look at what is there and whether it is ours, then 'chmod go-w {path}'",
    )
