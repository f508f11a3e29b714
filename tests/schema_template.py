"""New SQLite stores of the tests take their schema from one that the migrations made: all but the wait is equal.

What the migrations do is the business of tests/migrations; a thousand other tests need only what they leave.
"""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import tempfile
from pathlib import Path

import pytest
from sqlalchemy import Engine

from fleetexp.store import store as store_module
from fleetexp.store.engine import Database, writing
from fleetexp.store.schema import migrate, upgrade, version_of
from fleetexp.store.tables import SCHEMA_VERSION


@functools.cache
def left_by_the_migrations() -> tuple[str, ...]:
    """The statements that make what the migrations leave: tables, indexes, views."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "template.db"
        upgrade(f"sqlite:///{path}")
        with contextlib.closing(sqlite3.connect(path)) as made:
            sql = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY rowid"
            statements = tuple(row[0] for row in made.execute(sql))
    return statements


def migrate_from_template(engine: Engine, database: Database) -> None:
    """Give an empty SQLite database that schema; any other is migrated."""
    if database.is_sqlite:
        statements = left_by_the_migrations()
        with writing(engine, database.name) as connection:
            if version_of(connection, database) is None:
                for statement in statements:
                    connection.exec_driver_sql(statement)
                connection.exec_driver_sql("INSERT INTO alembic_version VALUES (?)", (SCHEMA_VERSION,))
                return
    migrate(engine, database)


def install(patch: pytest.MonkeyPatch) -> None:
    """Let `open_store` do so in this process."""
    patch.setattr(store_module, "migrate", migrate_from_template)
