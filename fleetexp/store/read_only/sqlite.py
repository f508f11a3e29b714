"""SQLite, read-only by construction.

The file is opened with mode=ro and query_only, nothing can be attached, and an authorizer, asked by SQLite about each
action of a statement before it runs, lets through nothing but reads.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

from fleetexp.errors import QueryRefused, QueryTooLong, StoreError
from fleetexp.store.errors import driver_error, refused_query
from fleetexp.store.read_only.answer import BatchReader, QueryResult, in_batches
from fleetexp.store.sqlite_file import WAIT_SECONDS, ReadConnection, connect_to_read
from fleetexp.store.url import Database
from fleetexp.store.values import Row

_READS = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})
_LOOKS = frozenset({"table_info", "table_xinfo", "table_list", "index_list", "index_info", "foreign_key_list"})
# What is lower here than SQLite's own limits. A value of LENGTH or a pattern is worked on without a look at the clock.
_LIMITS = {
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
    sqlite3.SQLITE_LIMIT_LENGTH: 16 << 20,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 4_000_000,
    sqlite3.SQLITE_LIMIT_TRIGGER_DEPTH: 0,
    sqlite3.SQLITE_LIMIT_VDBE_OP: 1_000_000,
    sqlite3.SQLITE_LIMIT_WORKER_THREADS: 0,
}
_STEPS_BETWEEN_LOOKS_AT_THE_CLOCK = 20_000  # of SQLite's virtual machine: some milliseconds


@contextmanager
def open_sqlite(database: Database, timeout_seconds: float) -> Iterator[BatchReader]:
    """Open a file for questions; StoreDamaged, StoreLocked, ... where it can't be read."""
    try:
        with closing(connect_to_read(database.file, WAIT_SECONDS)) as connection:
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            for limit, most in _LIMITS.items():
                connection.setlimit(limit, most)
            connection.execute("BEGIN")  # every question sees the same state
            connection.execute("SELECT count(*) FROM sqlite_master")  # a file that is none fails here, not in the query
            connection.set_authorizer(_only_reads)
            yield _SqliteReader(connection, database, timeout_seconds)
    except sqlite3.Error as error:
        raise driver_error(error, database.name) from error


class _SqliteReader:
    def __init__(self, connection: ReadConnection, database: Database, timeout_seconds: float) -> None:
        self._connection = connection
        self._where = database.name
        self._timeout_seconds = timeout_seconds
        self._deadline = 0.0
        connection.set_progress_handler(self._is_late, _STEPS_BETWEEN_LOOKS_AT_THE_CLOCK)

    def ask(self, sql: str, *, batch_rows: int) -> QueryResult:
        self._deadline = time.monotonic() + self._timeout_seconds
        with self._connection.unchanged(self._where):
            try:
                cursor = self._connection.execute(sql)
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise self._refused(error) from error
        if cursor.description is None:
            raise QueryRefused("that is not a question", self._where, "ask with SELECT; nothing can be changed")
        columns = tuple(column[0] for column in cursor.description)
        return QueryResult(columns=columns, kinds=(None,) * len(columns), batches=self._batches(cursor, batch_rows))

    def _batches(self, cursor: sqlite3.Cursor, batch_rows: int) -> Iterator[list[Row]]:
        def fetch(rows: int) -> list[Row]:
            if self._is_late():
                raise QueryTooLong.after(self._timeout_seconds, self._where)
            with self._connection.unchanged(self._where):
                try:
                    return cursor.fetchmany(rows)
                except sqlite3.Error as error:
                    raise self._refused(error) from error

        return in_batches(fetch, batch_rows)

    def _is_late(self) -> int:
        return time.monotonic() > self._deadline

    def _refused(self, error: sqlite3.Error | sqlite3.Warning) -> StoreError:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_INTERRUPT:
            return QueryTooLong.after(self._timeout_seconds, self._where)
        if code in {sqlite3.SQLITE_AUTH, sqlite3.SQLITE_READONLY}:
            return QueryRefused(
                "the query would change something", self._where, "the store is only read here: use SELECT"
            )
        return refused_query(error, self._where)


def _only_reads(action: int, first: str | None, second: str | None, *_where: str | None) -> int:
    looking = action == sqlite3.SQLITE_PRAGMA and first in _LOOKS
    computing = action == sqlite3.SQLITE_FUNCTION and second != "load_extension"
    return sqlite3.SQLITE_OK if action in _READS or looking or computing else sqlite3.SQLITE_DENY
