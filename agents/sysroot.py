"""Every host read and write goes through one object with a root: the real `/`, a folder, or a simulated kernel."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from agents.clock import SYSTEM_CLOCK, Clock


class Reader(Protocol):
    """A file kept open, read from its start each time: what a sampler needs, at an eighth of the cost of reopening."""

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
        """The time on this host: leases, beats and timestamps run in it."""
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
_ONE_RECORD = ("proc/meminfo", "proc/pressure/", "proc/self/statm")


class _KeptFile:
    """A kept descriptor, read with pread from offset 0 to the end."""

    __slots__ = ("_fd", "_short_is_end", "_size")

    def __init__(self, path: Path, *, short_is_end: bool) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._size = 4096
        self._short_is_end = short_is_end

    def read(self) -> bytes:
        data = os.pread(self._fd, self._size, 0)
        if self._short_is_end and len(data) < self._size:
            return data
        parts, total = [data], len(data)
        while chunk := os.pread(self._fd, self._size, total):
            parts.append(chunk)
            total += len(chunk)
        if total >= self._size:
            self._size = 2 * total
        return data if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class FolderRoot:
    """A root that is a folder: `FolderRoot()` is this machine, `FolderRoot(tmp_path)` a tree made for a test."""

    __slots__ = ("root",)

    def __init__(self, root: Path | str = "/") -> None:
        self.root = Path(root).resolve()

    def __repr__(self) -> str:
        return f"FolderRoot({str(self.root)!r})"

    @property
    def real(self) -> bool:
        return self.root == Path("/")

    @property
    def state_dir(self) -> Path:
        return self.root / "var/lib/fleetexp"

    @property
    def clock(self) -> Clock:
        return SYSTEM_CLOCK

    def _at(self, path: str) -> Path:
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"not a path below a root: {path!r}")
        return self.root / path

    def read(self, path: str) -> bytes:
        return self._at(path).read_bytes()

    def write(self, path: str, value: bytes) -> None:
        fd = os.open(self._at(path), os.O_WRONLY | os.O_CLOEXEC | (0 if self.real else os.O_TRUNC))
        try:
            written = os.write(fd, value)
            if written != len(value):
                raise OSError(f"short write to {path}: {written} of {len(value)} bytes")
        finally:
            os.close(fd)

    def exists(self, path: str) -> bool:
        return self._at(path).exists()

    def writable(self, path: str) -> bool:
        """Open for writing and close again: sees a read-only mount and a container, which mode bits don't show."""
        try:
            os.close(os.open(self._at(path), os.O_WRONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def names(self, path: str) -> list[str]:
        try:
            return sorted(os.listdir(self._at(path)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def reader(self, path: str) -> Reader:
        short_is_end = not path.startswith(_MANY_RECORDS) or path.startswith(_ONE_RECORD)
        return _KeptFile(self._at(path), short_is_end=short_is_end)
