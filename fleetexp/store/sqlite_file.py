"""A SQLite store as files: opened for reading without a right to write, and which right is missing.

SQLite keeps a log (-wal) and its index (-shm) beside a database in use. Reading through them needs the index; making
it needs a folder that can be written, and would leave files to whoever owns the store.
"""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from fleetexp.errors import StoreLocked, StoreUnreachable
from fleetexp.store.url import Database

WAIT_SECONDS = 5.0  # how long a write waits for another writer, here and with PostgreSQL
_INDEX_BYTES = 32 << 10  # of the smallest index; what is shorter was left by an opening that failed
_OWNER = "run it as the owner of the store, or have the owner give the right (chmod, setfacl)"


class ReadConnection(sqlite3.Connection):
    """A connection that can't write and, where nobody has the store open, makes no file and takes no lock."""

    _unlocked: Sequence[Path] = ()
    _seen: tuple[tuple[int, int] | None, ...] = ()

    def watch(self, files: Sequence[Path]) -> None:
        """Read without locks: from now on these files must stay as they are."""
        self._unlocked, self._seen = files, _stamps(files)

    @contextmanager
    def unchanged(self, where: str) -> Iterator[None]:
        """Read inside: what fails because of a writer who came is told as that, and so is what went well."""
        try:
            yield
        except Exception:
            self._require_unchanged(where)
            raise
        self._require_unchanged(where)

    def _require_unchanged(self, where: str) -> None:
        """Refuse what was read where a writer has come meanwhile: it may be neither the old state nor the new one."""
        if _stamps(self._unlocked) != self._seen:
            raise StoreLocked("a writer changed the store while it was read", where, "ask again")


def connect_to_read(path: Path, wait_seconds: float) -> ReadConnection:
    """Open a SQLite file without a chance to write it, as its files allow.

    Log and index: somebody has it open, all is there. A log without an index, as after a crash or in a copy: the log
    is read into memory (no locks are needed for that where nobody else is). No log: the file is all there is.
    """
    log, index = _beside(path)
    in_use = log.exists() and (stamp := _stamp(index)) is not None and stamp[1] >= _INDEX_BYTES
    how = "" if in_use else "&vfs=unix-none" if log.exists() else "&immutable=1"
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode=ro{how}",
        uri=True,
        timeout=wait_seconds,
        isolation_level=None,
        check_same_thread=False,
        factory=ReadConnection,
    )
    if not in_use:
        connection.watch((path, log))
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # the index stays in memory
    connection.execute("PRAGMA query_only = ON")
    return connection


def require_folder(database: Database) -> None:
    """Refuse a SQLite store whose folder is not there, or that this user may not enter."""
    path = database.file.absolute()
    _require_way(path, database.name)
    if not path.parent.is_dir():
        raise StoreUnreachable(
            "the folder of the database does not exist", str(path.parent), "make it, or check --store"
        )
    _require_regular(path, database.name)


def require_readable(database: Database) -> None:
    """Refuse a SQLite store that is not there (opening it would make it), or that this user has no right to read."""
    if not database.is_sqlite:
        return
    path = database.file.absolute()
    _require_way(path, database.name)
    if not path.exists():
        raise StoreUnreachable(
            "there is no such database", database.name, "check --store; 'fleetexp run' makes a new one"
        )
    _require_regular(path, database.name)
    for file in (path, *_beside(path)):
        if _lacks(file, os.R_OK):
            raise StoreUnreachable(f"user {os.geteuid()} may not read {file.name}", database.name, _OWNER)


def require_writable(database: Database) -> None:
    """Refuse a SQLite store that this user has no right to write: the right is named."""
    if (missing := _missing_to_write(database.file.absolute())) is not None:
        what, remedy = missing
        raise StoreUnreachable(f"the store can't be written: {what}", database.name, remedy)


def is_writable(database: Database) -> bool:
    """Whether this user may write a SQLite store, as far as rights and mounts say so."""
    return _missing_to_write(database.file.absolute()) is None


def _require_way(path: Path, where: str) -> None:
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK) and folder.exists():
            raise StoreUnreachable(f"user {os.geteuid()} may not enter the folder {folder}", where, _OWNER)


def _require_regular(path: Path, where: str) -> None:
    """Refuse what SQLite would wait for, or take for an empty database: a pipe, a device."""
    for file in (path, *_beside(path)):
        if _is_other(file):
            raise StoreUnreachable(f"{file.name} is not a regular file", where, "check --store")


def _missing_to_write(path: Path) -> tuple[str, str] | None:
    folder = path.parent
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        return "its file system is mounted read-only", "mount it with rw, or name a store elsewhere"
    for file in (path, *_beside(path)):
        if _lacks(file, os.W_OK):
            return f"user {os.geteuid()} may not write {file.name}", _OWNER
    if not os.access(folder, os.W_OK | os.X_OK):
        return f"user {os.geteuid()} may not write the folder {folder}, where SQLite keeps its log", _OWNER
    return None


def _lacks(file: Path, right: int) -> bool:
    """Whether a file is there without a right of ours; not where a writer who leaves takes it away meanwhile."""
    return not os.access(file, right) and file.exists() and not os.access(file, right)


def _is_other(file: Path) -> bool:
    """Whether something other than a regular file is there, by one look."""
    try:
        return not stat.S_ISREG(file.stat().st_mode)
    except OSError:
        return False


def _beside(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _stamps(files: Sequence[Path]) -> tuple[tuple[int, int] | None, ...]:
    return tuple(map(_stamp, files))


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size
