"""PostgreSQL, read-only by construction.

The transaction is read-only and is always rolled back. The text stands inside DECLARE CURSOR, sent as a prepared
statement: the server's own parser takes one SELECT, VALUES, TABLE or WITH there, and nothing else. For a superuser a
read-only transaction is not enough, because functions such as lo_export write files of the server: it gives up its
rights for `pg_read_all_data`, and the one function that could take them back is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import psycopg
from psycopg import sql as pgsql
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.types.string import TextLoader

from fleetexp.errors import QueryRefused
from fleetexp.store.answer import Answer, Reader, took_too_long
from fleetexp.store.engine import Database, connect_arguments
from fleetexp.store.failures import refused_query, translate
from fleetexp.store.rows import Row
from fleetexp.store.view import ColumnKind

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
# set_config can set the role back. Anywhere in the text, strings too: some functions run a string as SQL; and an
# identifier with escapes (U&"...") can hide any name.
_TAKES_RIGHTS_BACK = re.compile(r"set_config|u&\s*\"", re.IGNORECASE)
_RUNS_TEXT = re.compile(r"\b\w+_to_xml\w*|\bts_stat\b|\bts_rewrite\b|\bdblink\w*|\bcrosstab\w*", re.IGNORECASE)
_EXPLAIN = re.compile(
    r"\s*explain\b\s*(\([\w\s,]*\)|(?:analy[sz]e\b\s*)?(?:verbose\b)?)\s*(.*)", re.IGNORECASE | re.DOTALL
)
_SHOW = re.compile(r"\s*show\s+[\w.\s]+", re.IGNORECASE)
_QUERY_CANCELED = "57014"


class _NumericLoader(Loader):
    """A sum of whole numbers is a whole number, everything else a float: as SQLite has it."""

    def load(self, data: Buffer) -> int | float:
        text = bytes(data).decode()
        return int(text) if text.lstrip("-").isdigit() else float(text)


@contextmanager
def open_postgresql(database: Database, timeout_seconds: float) -> Iterator[Reader]:
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
        raise translate(error, database.name) from error


def _give_up_rights(connection: psycopg.Connection, database: Database) -> None:
    try:
        connection.execute("SET LOCAL ROLE pg_read_all_data")
    except psycopg.errors.Error as error:  # before PostgreSQL 14
        raise QueryRefused(
            "a superuser could write files through a query", database.name, "use a role that is no superuser"
        ) from error


class _PostgresqlReader:
    def __init__(self, connection: psycopg.Connection, database: Database, timeout_seconds: float) -> None:
        self._connection = connection
        self._where = database.name
        self._timeout_seconds = timeout_seconds
        self._asked = 0

    def ask(self, sql: str, *, batch_rows: int) -> Answer:
        text = sql.strip().rstrip(";")
        for pattern in (_TAKES_RIGHTS_BACK, _RUNS_TEXT):
            if found := pattern.search(text):
                raise QueryRefused(f"{found[0]} is not answered here", self._where, "leave it out of the query")
        self._asked += 1
        name = pgsql.Identifier(f"question_{self._asked}")
        declare = pgsql.SQL("DECLARE {} NO SCROLL CURSOR FOR ").format(name)
        # Prepared: the server takes one statement only. A line comment at the end must not eat what follows.
        if _SHOW.fullmatch(text):
            return self._at_once(pgsql.SQL(text))
        if found := _EXPLAIN.fullmatch(text):
            return self._at_once(
                pgsql.SQL("EXPLAIN ") + pgsql.SQL(found[1]) + pgsql.SQL(" ") + declare + pgsql.SQL(found[2])
            )
        self._execute(declare + pgsql.SQL(text), prepare=True)
        fetch = pgsql.SQL("FETCH {} FROM {}")
        head = self._execute(fetch.format(0, name))
        return self._answer(head, self._batches(fetch.format(batch_rows, name)))

    def _at_once(self, statement: pgsql.SQL | pgsql.Composed) -> Answer:
        cursor = self._execute(statement, prepare=True)
        return self._answer(cursor, iter([self._rows(cursor)]))

    def _answer(self, cursor: psycopg.Cursor[Any], batches: Iterator[list[Row]]) -> Answer:
        described = cursor.description or ()
        types = self._connection.adapters.types
        names = [found.name if (found := types.get(column.type_code)) else "" for column in described]
        return Answer(
            columns=tuple(column.name for column in described),
            kinds=tuple(_KINDS.get(name, ColumnKind.TEXT) for name in names),
            batches=batches,
        )

    def _batches(self, fetch: pgsql.SQL | pgsql.Composed) -> Iterator[list[Row]]:
        while rows := self._rows(self._execute(fetch)):
            yield rows

    def _rows(self, cursor: psycopg.Cursor[Any]) -> list[Row]:
        try:
            return cursor.fetchall()
        except psycopg.Error as error:  # a value that Python has not, such as an instant 'infinity'
            raise refused_query(error, self._where) from error

    def _execute(self, statement: pgsql.SQL | pgsql.Composed, *, prepare: bool | None = None) -> psycopg.Cursor[Any]:
        try:
            return self._connection.execute(statement, prepare=prepare)
        except psycopg.Error as error:
            if error.sqlstate == _QUERY_CANCELED:
                raise took_too_long(self._where, self._timeout_seconds) from error
            raise refused_query(error, self._where) from error
