"""PostgreSQL, read-only by construction.

The transaction is read-only and is always rolled back. The text stands inside DECLARE CURSOR, sent as a prepared
statement: the server's own parser takes one SELECT, VALUES, TABLE or WITH there, and nothing else. For a superuser a
read-only transaction is not enough, because functions such as lo_export write files of the server: it gives up its
rights for `pg_read_all_data`.

A read-only transaction is not enough for anybody: a role may end the sessions of its own role, hold locks that others
wait for, write to the log that replicas read. All that is done by functions, and the server's catalogue says which: a
function that does more than read is volatile. So no volatile function may be named, but for a few that only look.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import TextLoader

from fleetexp.errors import QueryRefused, QueryTooLong
from fleetexp.store.errors import driver_error, refused_query
from fleetexp.store.postgresql_session import connect_arguments
from fleetexp.store.read_only.answer import BatchReader, QueryResult, in_batches
from fleetexp.store.url import Database
from fleetexp.store.values import ColumnKind, Row

_KINDS = {
    "bool": ColumnKind.FLAG,
    "int2": ColumnKind.WHOLE,
    "int4": ColumnKind.WHOLE,
    "int8": ColumnKind.WHOLE,
    "float4": ColumnKind.REAL,
    "float8": ColumnKind.REAL,
    "numeric": ColumnKind.REAL,
    "timestamptz": ColumnKind.INSTANT,
    "json": ColumnKind.DOCUMENT,
    "jsonb": ColumnKind.DOCUMENT,
}
# Functions that can be called in a query and may do more than read, by their own declaration.
_VOLATILE = """SELECT DISTINCT p.proname FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_type t ON t.oid = p.prorettype
WHERE p.provolatile = 'v' AND t.typname !~ '_handler$' AND t.typname NOT IN ('trigger', 'event_trigger', 'internal')"""
_ONLY_LOOK = frozenset(
    {
        "clock_timestamp",
        "gen_random_uuid",
        "pg_database_size",
        "pg_indexes_size",
        "pg_is_in_recovery",
        "pg_partition_ancestors",
        "pg_partition_tree",
        "pg_relation_size",
        "pg_table_size",
        "pg_tablespace_size",
        "pg_total_relation_size",
        "random",
        "timeofday",
    }
)
# Functions of extensions that run a text as SQL, and are declared to be harmless; whatever that text would call.
_RUNS_TEXT = frozenset({"connectby", "crosstab", "crosstab2", "crosstab3", "crosstab4", "crosstab_hash", "xpath_table"})
_WORD = re.compile(r"[^\W\d]\w*")
_ESCAPED_NAME = re.compile(r"u&\s*\"", re.IGNORECASE)  # can hide any name
_LONGEST_WHOLE_NUMBER = 40  # digits; what has more is a float
_EXPLAIN = re.compile(
    r"\s*explain\b\s*(\([\w\s,]*\)|(?:analy[sz]e\b\s*)?(?:verbose\b)?)\s*(.*)", re.IGNORECASE | re.DOTALL
)
_SHOW = re.compile(r"\s*show\s+[\w.\s]+", re.IGNORECASE)
_QUERY_CANCELED = "57014"


class _NumericLoader(Loader):
    """A sum of whole numbers is a whole number, everything else a float: as SQLite has it."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data).decode()
        whole = len(text) <= _LONGEST_WHOLE_NUMBER and text.lstrip("-").isdigit()
        return int(text) if whole else float(text)


@contextmanager
def open_postgresql(database: Database, timeout_seconds: float) -> Iterator[BatchReader]:
    """Open a database for questions; StoreUnreachable where no server answers."""
    arguments = connect_arguments(database, read_only=True, statement_seconds=timeout_seconds)
    try:
        with closing(psycopg.connect(**arguments)) as connection:
            connection.read_only = True
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ  # every question sees the same state
            connection.adapters.register_loader("numeric", _NumericLoader)
            for name in ("json", "jsonb"):
                connection.adapters.register_loader(name, TextLoader)
            # From the first statement on, the transaction can't be made to write any more.
            found = connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = session_user").fetchone()
            if found is not None and found[0]:
                _give_up_rights(connection, database)
            yield _PostgresqlReader(connection, database, timeout_seconds)
            connection.rollback()
    except psycopg.Error as error:
        raise driver_error(error, database.name) from error


def _give_up_rights(connection: psycopg.Connection, database: Database) -> None:
    try:
        connection.execute("SET LOCAL ROLE pg_read_all_data")
    except psycopg.errors.Error as error:  # before PostgreSQL 14
        raise QueryRefused(
            "a superuser could write files through a query", database.name, "use a role that is not a superuser"
        ) from error


class _PostgresqlReader:
    def __init__(self, connection: psycopg.Connection, database: Database, timeout_seconds: float) -> None:
        self._connection = connection
        self._where = database.name
        self._timeout_seconds = timeout_seconds
        self._asked = 0
        self._deadline = 0.0
        self._refused_names: frozenset[str] | None = None

    def ask(self, sql: str, *, batch_rows: int) -> QueryResult:
        text = sql.strip().rstrip(";")
        self._deadline = time.monotonic() + self._timeout_seconds
        self._refuse_volatile(text)
        self._asked += 1
        name = pgsql.Identifier(f"question_{self._asked}")
        declare = pgsql.SQL("DECLARE {} NO SCROLL CURSOR FOR ").format(name)
        # Prepared: the server takes one statement only. A line comment at the end must not eat what follows.
        if _SHOW.fullmatch(text):
            return self._at_once(pgsql.SQL(text))
        if (found := _EXPLAIN.fullmatch(text)) is not None:
            return self._at_once(
                pgsql.SQL("EXPLAIN ") + pgsql.SQL(found[1]) + pgsql.SQL(" ") + declare + pgsql.SQL(found[2])
            )
        self._execute(declare + pgsql.SQL(text), prepare=True)
        fetch = pgsql.SQL("FETCH {} FROM {}")
        head = self._execute(fetch.format(0, name))
        return self._answer(
            head, in_batches(lambda rows: self._rows(self._execute(fetch.format(rows, name))), batch_rows)
        )

    def _refuse_volatile(self, text: str) -> None:
        """Refuse a text in which such a name stands, be it in a string: what is not named can't be called."""
        if self._refused_names is None:
            volatile = {name for (name,) in self._execute(pgsql.SQL(_VOLATILE)).fetchall()}
            self._refused_names = frozenset(volatile - _ONLY_LOOK) | _RUNS_TEXT
        words = set(_WORD.findall(text.lower()))
        for name in sorted(self._refused_names):
            if words.issuperset(parts := _WORD.findall(name.lower())) and parts:
                raise QueryRefused(
                    f"{name} may do more than read", self._where, "leave the name out, in texts and comments too"
                )
        if _ESCAPED_NAME.search(text):
            raise QueryRefused("a name with escapes is not answered here", self._where, 'write "name", not U&"name"')

    def _at_once(self, statement: pgsql.SQL | pgsql.Composed) -> QueryResult:
        cursor = self._execute(statement, prepare=True)
        return self._answer(cursor, iter([self._rows(cursor)]))

    def _answer(self, cursor: psycopg.Cursor[Any], batches: Iterator[list[Row]]) -> QueryResult:
        described = cursor.description or ()
        types = self._connection.adapters.types
        names = [found.name if (found := types.get(column.type_code)) else "" for column in described]
        return QueryResult(
            columns=tuple(column.name for column in described),
            kinds=tuple(_KINDS.get(name, ColumnKind.TEXT) for name in names),
            batches=batches,
        )

    def _rows(self, cursor: psycopg.Cursor[Any]) -> list[Row]:
        try:
            return cursor.fetchall()
        except psycopg.Error as error:  # a value that Python has not, such as an instant 'infinity'
            raise refused_query(error, self._where) from error

    def _execute(self, statement: pgsql.SQL | pgsql.Composed, *, prepare: bool | None = None) -> psycopg.Cursor[Any]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise QueryTooLong.after(self._timeout_seconds, self._where)
        try:
            # Each statement has what is left of the time, whatever the one before it has set.
            self._connection.execute(pgsql.SQL("SET LOCAL statement_timeout = {}").format(max(1, round(left * 1000))))
            return self._connection.execute(statement, prepare=prepare)
        except psycopg.Error as error:
            if error.sqlstate == _QUERY_CANCELED:
                raise QueryTooLong.after(self._timeout_seconds, self._where) from error
            raise refused_query(error, self._where) from error
