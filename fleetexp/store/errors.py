"""What the errors of a database's driver mean to whoever called."""

from __future__ import annotations

import re
import sqlite3
from typing import TypeAlias

import psycopg

from fleetexp.errors import (
    BadStoreUrl,
    QueryRefused,
    StoreDamaged,
    StoreError,
    StoreFull,
    StoreLocked,
    StoreUnreachable,
)

DriverError: TypeAlias = sqlite3.Error | sqlite3.Warning | psycopg.Error
NOTHING_LOST = "nothing was half-written; try again"


def driver_error(error: DriverError, where: str) -> StoreError:
    """Return the StoreError that says what a driver's error means."""
    return _postgresql(error, where) if isinstance(error, psycopg.Error) else _sqlite(error, where)


def _sqlite(error: sqlite3.Error | sqlite3.Warning, where: str) -> StoreError:
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
                f"the disk failed: {said(error)}", where, "look at the kernel log; nothing was half-written"
            )
        case sqlite3.SQLITE_CONSTRAINT:
            return StoreError(
                f"the database refuses a row: {said(error)}",
                where,
                "it names a run, period or host that is not there",
            )
    return StoreError(f"the database failed: {said(error)}", where, "'fleetexp db check' looks for damage")


# What PgBouncer, and poolers that follow it, and RDS Proxy say to settings at the start: no SQLSTATE comes with it.
_POOLER = re.compile(r"unsupported startup parameter|command-line options")


# The first two characters of an SQLSTATE are its class: postgresql.org/docs/current/errcodes-appendix.html
def _postgresql(error: psycopg.Error, where: str) -> StoreError:
    state = error.sqlstate or ""
    if state in {"53100", "53200"}:
        what = "the server's disk is full" if state == "53100" else "the server is out of memory"
        return StoreFull(what, where, "make room on the server; nothing was half-written")
    if state in {"55P03", "40001", "40P01", "57014"}:
        return StoreLocked(f"the server gave up waiting: {said(error)}", where, NOTHING_LOST)
    if state[:2] == "28" or state == "3D000":
        return StoreUnreachable(f"the server refuses: {said(error)}", where, "check user, password and database name")
    if not state and _POOLER.search(str(error)):
        return StoreUnreachable(
            f"a pooler in front of the server refuses the session's settings: {said(error)}",
            where,
            "set PgBouncer's ignore_startup_parameters = options, and what they say for the role: ALTER ROLE ... SET "
            "synchronous_commit = on; or name the server itself in --store",
        )
    if not state and isinstance(error, psycopg.ProgrammingError):
        return BadStoreUrl(f"the connection can't be described so: {said(error)}", where, "check the store's URL")
    if not state and isinstance(error, psycopg.OperationalError) and "FATAL:" in str(error):
        return StoreUnreachable(
            f"the server refuses: {said(error)}",
            where,
            "check user, password and database name; a server that is starting takes a moment",
        )
    if state[:2] in {"08", "57", "53", "58"} or (not state and isinstance(error, psycopg.OperationalError)):
        return StoreUnreachable(
            f"the server does not answer: {said(error)}",
            where,
            "check that it runs; what was sent can be sent again",
        )
    if state == "25006":
        return StoreUnreachable(
            "the server takes no writes now (a standby, or read-only)", where, "use the URL of the primary"
        )
    if state == "42501":
        return StoreError(f"not permitted: {said(error)}", where, "grant the user its own schema, or use another user")
    if state == "42704":
        return StoreError(f"the server has no such thing: {said(error)}", where, "a role must be created first")
    if state[:2] == "23":
        return StoreError(
            f"the database refuses a row: {said(error)}",
            where,
            "it names a run, period or host that is not there",
        )
    return StoreError(f"the database failed: {said(error)}", where, "'fleetexp db check' looks for damage")


def refused_query(error: DriverError, where: str) -> StoreError:
    """Return what a reader is told whose SQL did not run: the fault is in the SQL unless the database itself failed."""
    found = driver_error(error, where)
    if type(found) is not StoreError and not (isinstance(error, psycopg.Error) and error.sqlstate == "25006"):
        return found
    return QueryRefused(
        f"the query failed: {said(error)}",
        where,
        "'fleetexp sql' without a query lists the views and their columns",
    )


def said(error: BaseException) -> str:
    """Return the first line of what an error says, or its kind."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
