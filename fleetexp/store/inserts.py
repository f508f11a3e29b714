"""Inserting rows that may be there already, in chunks that every database takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.dialects import postgresql, sqlite

from fleetexp.store.bulk import PostgresqlBulk
from fleetexp.store.column_types import JsonDocument
from fleetexp.store.rows import Target
from fleetexp.store.table_base import Base, table

ROWS_AT_ONCE = 5000
ROWS_TO_COPY = 100  # from here on COPY takes less time than INSERT

T = TypeVar("T")


def chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """Cut a sequence into pieces that fit one statement."""
    for start in range(0, len(items), ROWS_AT_ONCE):
        yield items[start : start + ROWS_AT_ONCE]


def insert_new(connection: Connection, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose key is not there yet; the others stay as they are. All rows name the same columns."""
    if connection.dialect.name == "postgresql" and len(rows) >= ROWS_TO_COPY and not _has_documents(model):
        _copy_new(connection, model, rows)
        return
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    statement = insert(table(model)).on_conflict_do_nothing()
    for piece in chunks(rows):
        connection.execute(statement, list(piece))


def _has_documents(model: type[Base]) -> bool:
    return any(isinstance(column.type, JsonDocument) for column in table(model).columns)


def _copy_new(connection: Connection, model: type[Base], rows: Sequence[Mapping[str, Any]]) -> None:
    columns = [table(model).columns[name] for name in rows[0]]
    types = {column.name: column.type.compile(connection.dialect).lower() for column in columns}
    binds = [column.type.dialect_impl(connection.dialect).bind_processor(connection.dialect) for column in columns]
    made = [
        tuple(
            value if bind is None else bind(value)
            for value, bind in zip((row[column.name] for column in columns), binds, strict=True)
        )
        for row in rows
    ]
    PostgresqlBulk().write(connection, Target(table=table(model).name, columns=types), made)
