"""Connections to the store: how each database is set up, and the two ways to use one.

SQLite runs in WAL mode with synchronous=FULL: readers don't wait for the writer, and a commit is on the disk before
it is acknowledged to a host, which then forgets its copy. (NORMAL would lose the last commits with the power.)
PostgreSQL gets synchronous_commit=on for the same reason, whatever the server's default is.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import psycopg
from sqlalchemy import URL, Connection, Engine, NullPool, create_engine, event, exc

from fleetexp.errors import StoreError, StoreLocked
from fleetexp.store.errors import NOTHING_LOST, driver_error, said
from fleetexp.store.postgresql_session import connect_arguments
from fleetexp.store.sqlite_file import WAIT_SECONDS, ReadConnection, connect_to_read, require_folder, require_writable
from fleetexp.store.url import Database, StoreUrl, parse_url
from fleetexp.store.values import document_text

_WRITES = {"fleetexp_writes": True}
_AGAIN_SECONDS = 0.01
_CACHE_KIB = 64 << 10  # of SQLite, at most: pages of a long transaction that have no room are written more than once


def open_engine(database: Database, *, wait_seconds: float = WAIT_SECONDS, read_only: bool = False) -> Engine:
    """Return an engine; nothing is connected yet. StoreUnreachable where a SQLite file has no folder to be in, or
    can't be written.

    `read_only`: nothing can be written through it, and of a SQLite database that nobody has open no file is made.
    """
    if database.is_sqlite:
        require_folder(database)
        if read_only:
            # Each reading opens it anew: whether others have it open changes.
            engine = create_engine(
                "sqlite+pysqlite://", creator=lambda: connect_to_read(database.file, wait_seconds), poolclass=NullPool
            )
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        require_writable(database)
        engine = create_engine(
            URL.create("sqlite+pysqlite", database=str(database.file)), connect_args={"timeout": wait_seconds}
        )
        event.listen(engine, "connect", lambda connection, _record: _set_up_sqlite(connection, wait_seconds))
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    engine = create_engine(
        "postgresql+psycopg://",  # no password in it: what SQLAlchemy says of itself can be shown
        json_serializer=document_text,
        pool_pre_ping=True,  # a server that was restarted is found again
    )

    @event.listens_for(engine, "do_connect")
    def _say_where(_dialect: object, _record: object, _positional: object, keywords: dict[str, Any]) -> None:
        keywords.update(connect_arguments(database, wait_seconds, read_only=read_only))

    return engine


def _set_up_sqlite(connection: sqlite3.Connection, wait_seconds: float) -> None:
    connection.isolation_level = None  # transactions begin where we say so, not where the driver guesses
    _turn_to_wal(connection, wait_seconds)
    for pragma in ("synchronous = FULL", "foreign_keys = ON", f"cache_size = -{_CACHE_KIB}"):
        connection.execute(f"PRAGMA {pragma}")


def _turn_to_wal(connection: sqlite3.Connection, wait_seconds: float) -> None:
    """Turn a file to WAL, or leave it so. Where two turn a new file at once SQLite refuses one without any waiting."""
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_SECONDS)


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once and may wait for it: a reader that turns writer could only fail.
    immediate = connection.get_execution_options().get("fleetexp_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise inside into a StoreError that names the database."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error, psycopg.Error) as error:
        raise translate(error, where) from error


def translate(error: Exception, where: str) -> StoreError:
    """Return the StoreError that says what an error of SQLAlchemy or of a driver means."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error | psycopg.Error):
        return driver_error(cause, where)
    if isinstance(error, exc.TimeoutError):
        return StoreLocked("no connection to the database became free in time", where, NOTHING_LOST)
    if isinstance(error, exc.StatementError):
        return StoreError(f"a value can't be stored: {said(cause)}", where, "report it: a value had no type of ours")
    return StoreError(f"the database failed: {said(cause)}", where, "see the log; 'fleetexp db check' looks for damage")


@contextmanager
def writing(engine: Engine, where: str) -> Iterator[Connection]:
    """Open a transaction that writes: all of it is stored, or nothing. StoreError where it is not."""
    with translated(where), engine.execution_options(**_WRITES).begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine, where: str) -> Iterator[Connection]:
    """Open a transaction that reads one state of the database. StoreError where it can't."""
    with translated(where), engine.connect() as connection:
        driver = connection.connection.driver_connection
        with driver.unchanged(where) if isinstance(driver, ReadConnection) else nullcontext():
            yield connection


__all__ = [
    "Database",
    "StoreUrl",
    "open_engine",
    "parse_url",
    "reading",
    "translated",
    "writing",
]
