"""Many rows at once, each stored once however often it is sent: the fast way in, one for each database."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from itertools import chain, islice
from typing import Any, Protocol

import orjson
import psycopg
from psycopg import errors, sql
from sqlalchemy import Connection

from fleetexp.store.rows import ColumnRows, Target
from fleetexp.store.values import Row, instant_text

_POSTGRESQL_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_JSONB_VERSION = b"\x01"
_MARKS = 512  # of a statement of SQLite: older ones take 999, and more are no faster


class BulkWriter(Protocol):
    """Writes rows inside the caller's transaction; rows whose key is there already are left as they are."""

    def instant(self, at: datetime) -> object:
        """Return an instant as this database's rows hold it."""
        ...

    def json(self, text: bytes) -> object:
        """Return a JSON document as this database's rows hold it."""
        ...

    def write(self, connection: Connection, target: Target, rows: Collection[Row]) -> int:
        """Write the rows, which may be gone through twice; return how many were new."""
        ...


class SqliteBulk:
    """Straight to the driver, many rows a statement: one a row takes up to twice as long."""

    def instant(self, at: datetime) -> object:
        if at.tzinfo is UTC and at.microsecond:  # the same text, in a fifth of the time
            return orjson.dumps(at, option=orjson.OPT_UTC_Z)[1:-1].decode()
        return instant_text(at)

    def json(self, text: bytes) -> object:
        return text.decode()

    def write(self, connection: Connection, target: Target, rows: Collection[Row]) -> int:
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)  # noqa: S101 - the one driver of open_engine
        insert = f"INSERT INTO {target.table} ({', '.join(target.columns)}) VALUES "  # noqa: S608 - our names
        width, new = len(target.columns), 0
        marks, at_once = f"({', '.join('?' * width)})", max(_MARKS // width, 1)
        for cells in rows.cells(at_once) if isinstance(rows, ColumnRows) else _cells(rows, at_once):
            statement = f"{insert}{', '.join([marks] * (len(cells) // width))} ON CONFLICT DO NOTHING"
            new += driver.execute(statement, cells).rowcount
        return new


def _cells(rows: Collection[Row], at_once: int) -> Iterator[list[Any]]:
    waiting = iter(rows)
    while piece := list(islice(waiting, at_once)):
        yield list(chain.from_iterable(piece))


class PostgresqlBulk:
    """Binary COPY straight into the table; where a row is there already, by way of a temporary table.

    Rows are sent twice only after a broken connection, so the way that can't skip them is tried first.
    """

    def instant(self, at: datetime) -> object:
        if at.tzinfo is None:
            instant_text(at)  # refuses it, as SQLite's writer does
        since = at - _POSTGRESQL_EPOCH
        return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds

    def json(self, text: bytes) -> object:
        return _JSONB_VERSION + text

    def write(self, connection: Connection, target: Target, rows: Collection[Row]) -> int:
        if not rows:
            return 0
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the one driver of open_engine
        attempt = connection.begin_nested()
        try:
            _copy(driver, target, target.table, rows)
        except errors.UniqueViolation:
            attempt.rollback()
            return _merge(driver, target, rows)
        attempt.commit()
        return len(rows)


def _copy(driver: psycopg.Connection, target: Target, table: str, rows: Collection[Row]) -> None:
    columns = sql.SQL(", ").join(map(sql.Identifier, target.columns))
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table), columns)
    with driver.cursor() as cursor, cursor.copy(statement) as copy:
        copy.set_types(list(target.columns.values()))
        for row in rows:
            copy.write_row(row)


def _merge(driver: psycopg.Connection, target: Target, rows: Collection[Row]) -> int:
    names = {
        "incoming": sql.Identifier(f"incoming_{target.table}"),
        "table": sql.Identifier(target.table),
        "columns": sql.SQL(", ").join(map(sql.Identifier, target.columns)),
    }
    with driver.cursor() as cursor:
        cursor.execute(
            sql.SQL("CREATE TEMPORARY TABLE {incoming} ON COMMIT DROP AS SELECT {columns} FROM {table} LIMIT 0").format(
                **names
            )
        )
        _copy(driver, target, f"incoming_{target.table}", rows)
        cursor.execute(
            sql.SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {incoming} ON CONFLICT DO NOTHING").format(
                **names
            )
        )
        new = cursor.rowcount
        cursor.execute(sql.SQL("DROP TABLE {incoming}").format(**names))
    return new
