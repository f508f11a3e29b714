"""What a database's errors mean to whoever called: translated once, here."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from sqlalchemy import exc

from fleetexp.errors import (
    BadStoreUrl,
    QueryRefused,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnreachable,
)

_NOTHING_LOST = "nothing was half-written; try again"


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn what SQLAlchemy and the drivers raise inside into a StoreError that names the database."""
    try:
        yield
    except (exc.SQLAlchemyError, sqlite3.Error, psycopg.Error) as error:
        raise translate(error, where) from error


def translate(error: Exception, where: str) -> StoreError:
    """Return the StoreError that says what a driver's error means."""
    cause = error.orig if isinstance(error, exc.DBAPIError) and error.orig is not None else error
    if isinstance(cause, sqlite3.Error):
        return _sqlite(cause, where)
    if isinstance(cause, psycopg.Error):
        return _postgresql(cause, where)
    if isinstance(error, exc.TimeoutError):
        return StoreLocked("no connection to the database became free in time", where, _NOTHING_LOST)
    if isinstance(error, exc.StatementError):
        return StoreError(f"a value can't be stored: {_line(cause)}", where, "report it: a value had no type of ours")
    return StoreError(
        f"the database failed: {_line(cause)}", where, "see the log; 'fleetexp db check' looks for damage"
    )


def _sqlite(error: sqlite3.Error, where: str) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) or 0
    match code & 0xFF:
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreLocked(
                "the database is locked by another process",
                where,
                "wait for it to finish, or close the program that holds it; PostgreSQL takes many writers at once",
            )
        case sqlite3.SQLITE_FULL:
            return StoreFull("the disk is full", where, "free some space; nothing was half-written")
        case sqlite3.SQLITE_NOTADB:
            return StoreDamaged("the file is not a SQLite database", where, "check --store; the file was not touched")
        case sqlite3.SQLITE_CORRUPT:
            return StoreDamaged(
                "the database file is damaged", where, "copy it, then try: sqlite3 COPY .recover | sqlite3 NEW"
            )
        case sqlite3.SQLITE_CANTOPEN:
            return StoreUnreachable("the database file can't be opened", where, "check the folder and its permissions")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM:
            return StoreUnreachable(
                "the database file can't be written", where, "check the permissions of file and folder"
            )
        case sqlite3.SQLITE_IOERR:
            return StoreError(
                f"the disk failed: {_line(error)}", where, "look at the kernel log; nothing was half-written"
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return StoreError(
                f"the database refuses a row: {_line(error)}", where, "it names a run, period or host that is not there"
            )
    return StoreError(f"the database failed: {_line(error)}", where, "'fleetexp db check' looks for damage")


# What PgBouncer, and poolers that follow it, and RDS Proxy say to settings at the start: no SQLSTATE comes with it.
_POOLER = re.compile(r"unsupported startup parameter|command-line options")


# The first two characters of an SQLSTATE are its class: postgresql.org/docs/current/errcodes-appendix.html
def _postgresql(error: psycopg.Error, where: str) -> StoreError:
    state = error.sqlstate or ""
    if state in {"53100", "53200"}:
        what = "the server's disk is full" if state == "53100" else "the server is out of memory"
        return StoreFull(what, where, "make room on the server; nothing was half-written")
    if state in {"55P03", "40001", "40P01", "57014"}:
        return StoreLocked(f"the server gave up waiting: {_line(error)}", where, _NOTHING_LOST)
    if state[:2] == "28" or state == "3D000":
        return StoreUnreachable(f"the server refuses: {_line(error)}", where, "check user, password and database name")
    if not state and _POOLER.search(str(error)):
        return StoreUnreachable(
            f"a pooler in front of the server refuses the session's settings: {_line(error)}",
            where,
            "set PgBouncer's ignore_startup_parameters = options, and what they say for the role: ALTER ROLE ... SET "
            "synchronous_commit = on; or name the server itself in --store",
        )
    if not state and isinstance(error, psycopg.ProgrammingError):
        return BadStoreUrl(f"the connection can't be described so: {_line(error)}", where, "check the store's URL")
    if not state and isinstance(error, psycopg.OperationalError) and "FATAL:" in str(error):
        return StoreUnreachable(
            f"the server refuses: {_line(error)}",
            where,
            "check user, password and database name; a server that is starting takes a moment",
        )
    if state[:2] in {"08", "57", "53", "58"} or (not state and isinstance(error, psycopg.OperationalError)):
        return StoreUnreachable(
            f"the server does not answer: {_line(error)}", where, "check that it runs; what was sent can be sent again"
        )
    if state == "25006":
        return StoreUnreachable(
            "the server takes no writes now (a standby, or read-only)", where, "use the URL of the primary"
        )
    if state == "42501":
        return StoreError(f"not permitted: {_line(error)}", where, "grant the user its own schema, or use another user")
    if state == "42704":
        return StoreError(f"the server has no such thing: {_line(error)}", where, "a role must be created first")
    if state[:2] == "23":
        return StoreError(
            f"the database refuses a row: {_line(error)}", where, "it names a run, period or host that is not there"
        )
    return StoreError(f"the database failed: {_line(error)}", where, "'fleetexp db check' looks for damage")


def refused_query(error: Exception, where: str) -> StoreError:
    """Return what a reader is told whose SQL did not run: the fault is in the SQL unless the database itself failed."""
    found = translate(error, where)
    if type(found) is not StoreError and not (isinstance(error, psycopg.Error) and error.sqlstate == "25006"):
        return found
    return QueryRefused(
        f"the query failed: {_line(error)}", where, "'fleetexp sql' without a query lists the views and their columns"
    )


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
