"""Every host read and write goes through one object with a root: the real `/`, a folder, or a simulated kernel."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from os import pread  # looked up once: it is called for every file of every sample
from pathlib import Path
from typing import Protocol

from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import JournalError
from agents.path_in_root import find_inside, open_inside


class Reader(Protocol):
    """A file kept open, read from its start each time: what a sampler needs, at an eighth of the cost of reopening."""

    @property
    def begin(self) -> Callable[[], bytes]:
        """What returns the beginning: all of a line or two, such as one number, by the kernel's call and no other."""
        ...

    def read(self) -> bytes:
        """Return the whole content now; OSError where the file has gone away."""
        ...

    def close(self) -> None: ...


class SysRoot(Protocol):
    """Where a host's files are. Paths are relative to the root, without a leading slash: 'sys/kernel/mm/...'."""

    @property
    def real(self) -> bool:
        """Whether this is the machine's own root: processes, perf events and mmap act on the same kernel."""
        ...

    @property
    def state_dir(self) -> Path:
        """Folder on a real, persistent disk for journal, lease and spool of this host."""
        ...

    @property
    def clock(self) -> Clock:
        """The time on this host: leases, ticks and timestamps run in it."""
        ...

    def read(self, path: str) -> bytes: ...

    def write(self, path: str, value: bytes) -> None:
        """Write an existing file in one write(2); never create it. OSError as the kernel gives it."""
        ...

    def exists(self, path: str) -> bool: ...

    def writable(self, path: str) -> bool:
        """Whether a write would be let through, found without writing."""
        ...

    def names(self, path: str) -> list[str]:
        """Sorted names in a folder; empty where it does not exist."""
        ...

    def reader(self, path: str) -> Reader: ...


# Files that the kernel fills record by record: a read may end early, at a record that no longer fits its buffer, so
# only an empty read proves the end. Everything else here is one record (kernfs: sysfs and cgroupfs; single_open files)
# or a plain file, where a read shorter than asked for is the end. Kernel: fs/seq_file.c, fs/kernfs/file.c.
_MANY_RECORDS = ("proc/", "sys/kernel/debug/", "sys/kernel/tracing/")
_ONE_RECORD = ("proc/meminfo", "proc/pressure/", "proc/self/statm", "proc/uptime")


_SHORT = 128  # bytes; a larger buffer would cost more than the number that most files are


class _KeptFile:
    """A descriptor that is kept until `close`."""

    __slots__ = ("_fd", "_size", "begin")

    def __init__(self, fd: int, size: int) -> None:
        """`size`: of the buffer, to begin with."""
        self._fd = fd
        self._size = size
        self.begin = partial(pread, fd, _SHORT, 0)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.begin = partial(pread, -1, _SHORT, 0)


class _OneRecord(_KeptFile):
    """A kept descriptor of a file that is one record: a read that does not fill its buffer is the whole."""

    __slots__ = ()

    def __init__(self, fd: int) -> None:
        super().__init__(fd, _SHORT)

    def read(self) -> bytes:
        data = pread(self._fd, self._size, 0)
        while len(data) == self._size:  # anew, not on from here: its parts would be of two moments
            self._size *= 4
            data = pread(self._fd, self._size, 0)
        return data


class _ManyRecords(_KeptFile):
    """A kept descriptor of a file that the kernel fills record by record, such as vmstat.

    Only an empty read proves the end, and costs as much as a whole one: it is made where the last line does not begin
    with a word that began the last line, and no other, when the end was last proved. Where words of a table are unique
    it keeps its lines while the kernel is up.
    """

    __slots__ = ("_last",)

    def __init__(self, fd: int) -> None:
        super().__init__(fd, 4096)
        self._last = b""

    def read(self) -> bytes:
        data = chunk = pread(self._fd, self._size, 0)
        while chunk and not (self._last and _last_word(data) == self._last):
            data += (chunk := pread(self._fd, self._size, len(data)))
        if not chunk:
            last = _last_word(data)
            self._last = last if data.count(b"\n" + last) == 1 else b""
        if len(data) >= self._size:
            self._size = 2 * len(data)
        return data


def _last_word(table: bytes) -> bytes:
    """Return the word that begins the last line with its space; empty where that line is not whole, or the only one."""
    begin = table.rfind(b"\n", 0, -1) + 1
    if begin == 0 or not table.endswith(b"\n"):
        return b""
    return table[begin : table.find(b" ", begin) + 1]


_STATE = "var/lib/fleetexp"


class FolderRoot:
    """A root that is a folder: `FolderRoot()` is this machine, any other a tree: an image, a copy, one made for a test.

    On this machine paths are the kernel's. In a tree they are resolved inside it, and only regular files are opened:
    who made the tree gains nothing by links, pipes and devices in it.
    """

    __slots__ = ("_before", "_tree", "root")

    def __init__(self, root: Path | str = "/") -> None:
        self.root = Path(root).resolve()
        if self.root == Path("/") != Path(root) and _place(root) != _place("/"):
            self.root = Path(root).absolute()  # such as /proc/PID/root of a container: it reads '/', and is another
        self._tree = self.root != Path("/")
        self._before = f"{self.root}/" if self._tree else "/"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.root)!r})"

    @property
    def real(self) -> bool:
        return not self._tree

    @property
    def state_dir(self) -> Path:
        folder = self.root / _STATE
        if self._tree:
            for step in (folder, *folder.parents[: _STATE.count("/")]):
                if step.is_symlink():
                    raise JournalError(
                        "the state folder of a tree lies behind a link, which may lead out of it",
                        str(step),
                        "put the folder itself there, or give the tree that it lies in",
                    )
        return folder

    @property
    def clock(self) -> Clock:
        return SYSTEM_CLOCK

    def open(self, path: str, flags: int) -> int:
        """Return a descriptor of a file that exists; in a tree, of a regular one inside it."""
        at = self._at(path)
        return open_inside(self.root, path, flags) if self._tree else os.open(at, flags | os.O_CLOEXEC)

    def _at(self, path: str) -> str:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"not a path below a root: {path!r}")
        return self._before + path

    def read(self, path: str) -> bytes:
        with os.fdopen(self.open(path, os.O_RDONLY), "rb") as file:
            return file.read()

    def write(self, path: str, value: bytes) -> None:
        fd = self.open(path, os.O_WRONLY | (os.O_TRUNC if self._tree else 0))
        try:
            written = os.write(fd, value)
            if written != len(value):
                raise OSError(f"short write to {path}: {written} of {len(value)} bytes")
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        at = self._at(path)
        if not self._tree:
            return Path(at).exists()
        try:
            os.close(find_inside(self.root, path))
        except OSError:
            return False
        return True

    def writable(self, path: str) -> bool:
        """Open for writing and close again: sees a read-only mount and a container, which mode bits don't show."""
        try:
            os.close(self.open(path, os.O_WRONLY))
        except OSError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        try:
            folder = self.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return []
        try:
            return sorted(os.listdir(folder))
        finally:
            os.close(folder)

    def reader(self, path: str) -> Reader:
        many = path.startswith(_MANY_RECORDS) and not path.startswith(_ONE_RECORD)
        return (_ManyRecords if many else _OneRecord)(self.open(path, os.O_RDONLY))


def _place(folder: Path | str) -> tuple[int, int, str]:
    """Return what tells a folder from every other, in other mount namespaces too: device, inode, mount."""
    fd = os.open(folder, os.O_PATH | os.O_CLOEXEC)
    try:
        info = os.fstat(fd)
        said = Path(f"/proc/self/fdinfo/{fd}").read_text()
    finally:
        os.close(fd)
    return info.st_dev, info.st_ino, said.partition("mnt_id:")[2].partition("\n")[0].strip()
