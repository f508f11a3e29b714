"""Connections to the store: which URLs there are, how each database is set up, and the two ways to use one.

SQLite runs in WAL mode with synchronous=FULL: readers don't wait for the writer, and a commit is on the disk before
it is acknowledged to a host, which then forgets its copy. (NORMAL would lose the last commits with the power.)
PostgreSQL gets synchronous_commit=on for the same reason, whatever the server's default is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError

from fleetexp.errors import BadStoreUrl, StoreUnreachable
from fleetexp.store.column_types import document_text
from fleetexp.store.failures import translated

WAIT_SECONDS = 5.0  # how long a write waits for another writer
CONNECT_SECONDS = 5
DEAD_LINK_MILLISECONDS = 15_000  # a cut network is noticed after so long
STATEMENT_SECONDS = 300  # no statement of ours takes longer on a sound server
_WRITES = {"fleetexp_writes": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """A database by its URL, before anything is opened. `name` is fit for messages: it holds no password."""

    url: URL
    name: str

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.database or "")


def parse_url(text: str) -> Database:
    """Read a store's URL; BadStoreUrl where it names no database that can be used."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise BadStoreUrl(
            "the store is not a URL", text, "use sqlite:///FILE.db or postgresql://USER@HOST/DATABASE"
        ) from error
    name = url.render_as_string(hide_password=True)
    match url.get_backend_name():
        case "sqlite":
            if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
                raise BadStoreUrl("a store in memory would be lost", name, "name a file: sqlite:///fleetexp.db")
            if Path(url.database).is_dir():
                raise BadStoreUrl("the store is a folder", name, "name a file in it: sqlite:///FOLDER/fleetexp.db")
            return Database(url=url.set(drivername="sqlite+pysqlite"), name=name)
        case "postgresql" | "postgres":
            return Database(url=url.set(drivername="postgresql+psycopg"), name=name)
        case other:
            raise BadStoreUrl(f"{other!r} is no database that fleetexp uses", name, "use sqlite:/// or postgresql://")


def open_engine(database: Database, *, wait_seconds: float = WAIT_SECONDS, read_only: bool = False) -> Engine:
    """Return an engine; nothing is connected yet. StoreUnreachable where a SQLite file has no folder to be in.

    `read_only`: nothing can be written through it, and of a SQLite database that nobody has open no file is made.
    """
    if database.is_sqlite:
        folder = database.path.absolute().parent
        if not folder.is_dir():
            raise StoreUnreachable(
                "the folder of the database does not exist", str(folder), "make it, or check --store"
            )
        if read_only:
            engine = create_engine(database.url, creator=lambda: _connect_to_read(database.path, wait_seconds))
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        engine = create_engine(database.url, connect_args={"timeout": wait_seconds})
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    return create_engine(
        database.url,
        json_serializer=document_text,
        pool_pre_ping=True,  # a server that was restarted is found again
        connect_args=connect_arguments(wait_seconds, read_only=read_only),
    )


def connect_arguments(wait_seconds: float = WAIT_SECONDS, *, read_only: bool = False) -> dict[str, Any]:
    """Return libpq's settings: every wait has an end, instants are UTC, an acknowledged commit is on the disk."""
    settings = {
        "timezone": "UTC",
        "synchronous_commit": "on",
        "lock_timeout": f"{wait_seconds * 1000:.0f}",
        "statement_timeout": f"{STATEMENT_SECONDS * 1000}",
        **({"default_transaction_read_only": "on"} if read_only else {}),
    }
    return {
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 5,
        "keepalives_interval": 2,
        "keepalives_count": 3,
        "tcp_user_timeout": DEAD_LINK_MILLISECONDS,
        "client_encoding": "utf8",
        "application_name": "fleetexp",
        "options": " ".join(f"-c {name}={value}" for name, value in settings.items()),
    }


def _connect_to_read(path: Path, wait_seconds: float) -> sqlite3.Connection:
    """Open a SQLite file without a chance to write it.

    Without a write-ahead log nobody has it open: it is read as it lies (`immutable`), because SQLite would otherwise
    make the log's files beside it. With one, the log's own files are there to be used.
    """
    log = path.with_name(f"{path.name}-wal")
    how = "mode=ro" if log.exists() else "mode=ro&immutable=1"
    uri = f"file:{quote(str(path.absolute()))}?{how}"
    connection = sqlite3.connect(
        uri, uri=True, timeout=wait_seconds, isolation_level=None, check_same_thread=False, detect_types=0
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once and may wait for it: a reader that turns writer could only fail.
    immediate = connection.get_execution_options().get("fleetexp_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def writing(engine: Engine, where: str) -> Iterator[Connection]:
    """Open a transaction that writes: all of it is stored, or nothing. StoreError where it is not."""
    with translated(where), engine.execution_options(**_WRITES).begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine, where: str) -> Iterator[Connection]:
    """Open a transaction that reads one state of the database. StoreError where it can't."""
    with translated(where), engine.connect() as connection:
        yield connection
