"""Rights on a PostgreSQL store: a writer that can't alter the schema or the past, a reader that can't write."""

from __future__ import annotations

from psycopg import sql
from sqlalchemy import Connection

from fleetexp.errors import StoreError
from fleetexp.store.engine import StoreUrl, open_engine, parse_url, reading, writing
from fleetexp.store.schema import require_current, version_of
from fleetexp.store.tables import Base
from fleetexp.store.views.all_views import VIEWS

# What was read, written to a kernel, or happened, is entered once and never changed.
APPEND_ONLY = frozenset(
    {
        "experiment",
        "host",
        "host_facts",
        "counted_event",
        "assignment",
        "import_source",
        "sample",
        "measurement",
        "knob_change",
        "event",
    }
)
VERSION = "alembic_version"


def grant_statements(database: str, *, writer: str | None, reader: str | None) -> list[sql.Composed]:
    """Return the statements that give two roles their rights on a database; roles must be there, nothing is revoked."""
    tables = sorted(Base.metadata.tables)
    append_only = [name for name in tables if name in APPEND_ONLY]
    changed = [name for name in tables if name not in APPEND_ONLY]
    readable = [*tables, VERSION, *(view.name for view in VIEWS)]
    statements = []
    for role in (writer, reader):
        if role is not None:
            statements += [
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(database), sql.Identifier(role)),
                sql.SQL("GRANT USAGE ON SCHEMA public TO {}").format(sql.Identifier(role)),
                _grant("SELECT", readable, role),
            ]
    if writer is not None:
        statements += [
            # A batch that is sent again goes by way of a temporary table.
            sql.SQL("GRANT TEMPORARY ON DATABASE {} TO {}").format(sql.Identifier(database), sql.Identifier(writer)),
            _grant("INSERT", append_only, writer),
            _grant("INSERT, UPDATE, DELETE", changed, writer),
            sql.SQL("GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {}").format(sql.Identifier(writer)),
        ]
    return statements


def _grant(rights: str, names: list[str], role: str) -> sql.Composed:
    return sql.SQL("GRANT {} ON {} TO {}").format(
        sql.SQL(rights), sql.SQL(", ").join(map(sql.Identifier, names)), sql.Identifier(role)
    )


def grant(url: StoreUrl, *, writer: str | None, reader: str | None, apply: bool = True) -> list[str]:
    """Give two roles their rights, in one transaction; return the statements. Done again, it changes nothing.

    StoreError for SQLite, and where a role is not there or the user is not the owner. Views are made anew by an upgrade
    of the store, and rights on them with it: grant again afterwards.
    """
    database = parse_url(url)
    if database.is_sqlite:
        raise StoreError(
            "SQLite has no roles", database.name, "the rights on the file and its folder say who reads and writes"
        )
    engine = open_engine(database)
    try:
        with reading(engine, database.name) as connection:
            require_current(version_of(connection, database), database)
            name = connection.exec_driver_sql("SELECT current_database()").scalar_one()
            composed = grant_statements(name, writer=writer, reader=reader)
            statements = [one.as_string(connection.connection.driver_connection) for one in composed]
        if apply:
            with writing(engine, database.name) as connection:
                _run(connection, statements)
    finally:
        engine.dispose()
    return statements


def _run(connection: Connection, statements: list[str]) -> None:
    for statement in statements:
        connection.exec_driver_sql(statement)
