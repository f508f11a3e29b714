"""The schema of a store: which version it has, making and upgrading it with the migrations, looking for damage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, func, inspect, select, text
from sqlalchemy.schema import SetColumnComment, SetTableComment

from fleetexp.domain import RunState
from fleetexp.errors import WrongSchema
from fleetexp.store.engine import Database, StoreUrl, open_engine, parse_url, reading, writing
from fleetexp.store.records import LIVE
from fleetexp.store.sqlite_file import is_writable, require_readable
from fleetexp.store.table_base import Base
from fleetexp.store.tables import SCHEMA_VERSION, Run
from fleetexp.store.views.all_views import VIEWS, view_sql

_ADVISORY_LOCK = 0x666C656574  # one migration at a time on a server


def schema_version(url: StoreUrl) -> str | None:
    """Return the schema version of a store, None where it is empty; StoreUnreachable where there is none."""
    database = parse_url(url)
    require_readable(database)
    engine = open_engine(database, read_only=True)
    try:
        with reading(engine, database.name) as connection:
            return version_of(connection, database)
    finally:
        engine.dispose()


def version_of(connection: Connection, database: Database) -> str | None:
    """Return the version that the migrations left, None for an empty database; WrongSchema for somebody else's."""
    inspector = inspect(connection)
    names = set(inspector.get_table_names())
    if "alembic_version" in names:
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    if names & set(Base.metadata.tables) or (names and database.is_sqlite):
        raise WrongSchema(
            f"the database holds tables of something else, and no schema version; this fleetexp needs {SCHEMA_VERSION}",
            database.name,
            "use a database of its own for fleetexp",
        )
    return None


def require_current(found: str | None, database: Database) -> None:
    """Refuse a schema that is not this release's; both versions are named, and what to do."""
    if found == SCHEMA_VERSION:
        return
    if found is not None and found > SCHEMA_VERSION:
        remedy = "it was written by a newer fleetexp: use that one"
    elif database.is_sqlite and not is_writable(database):
        remedy = (
            "its owner can run 'fleetexp db upgrade'; or copy it, with its -wal file if there is one, to where you may "
            "write, and upgrade the copy"
        )
    else:
        remedy = f"run: fleetexp db upgrade --store {database.name}"
    raise WrongSchema(
        f"the database has schema {found or 'none'}, this fleetexp needs {SCHEMA_VERSION}", database.name, remedy
    )


def upgrade(url: StoreUrl) -> None:
    """Bring a store to this release's schema; make it where there is none. All or nothing; rows stay."""
    database = parse_url(url)
    engine = open_engine(database)
    try:
        migrate(engine, database)
    finally:
        engine.dispose()


def migrate(engine: Engine, database: Database) -> None:
    """Run the migrations that are missing, in one transaction, and make the views anew."""
    from alembic import command  # noqa: PLC0415 - only a new or an old database pays for it
    from alembic.config import Config  # noqa: PLC0415
    from alembic.util import CommandError  # noqa: PLC0415

    import migrations  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    with writing(engine, database.name) as connection:
        if not database.is_sqlite:
            connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
        found = version_of(connection, database)
        if found is not None and found >= SCHEMA_VERSION:
            require_current(found, database)
            return
        _drop_views(connection)
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise WrongSchema(
                f"no migration leads on from schema {found}",
                database.name,
                "was it written by a development version? nothing was changed",
            ) from error
        for name, sql in view_sql(connection.dialect.name).items():
            _execute(connection, f"CREATE VIEW {name} AS {sql}")
        _comment(connection)


def _drop_views(connection: Connection) -> None:
    there = set(inspect(connection).get_view_names())
    for view in reversed(VIEWS):
        if view.name in there:
            _execute(connection, f"DROP VIEW {view.name}")


def _comment(connection: Connection) -> None:
    """Put the meaning and unit of every column where psql's \\d+ shows it."""
    if connection.dialect.name != "postgresql":
        return
    for table in Base.metadata.sorted_tables:
        connection.execute(SetTableComment(table))
        for column in table.columns:
            connection.execute(SetColumnComment(column))
    for view in VIEWS:
        _execute(connection, f"COMMENT ON VIEW {view.name} IS {_quoted(view.question)}")
        for name, meaning in view.columns.items():
            _execute(connection, f"COMMENT ON COLUMN {view.name}.{name} IS {_quoted(meaning)}")


def _execute(connection: Connection, sql: str) -> None:
    connection.execute(text(sql.replace(":", "\\:")))  # no colon of ours begins a parameter


def _quoted(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"


def check(url: StoreUrl) -> list[str]:
    """Return what is wrong with a store, one line each: schema, integrity, orphan and double rows, runs left alive."""
    database = parse_url(url)
    require_readable(database)
    engine = open_engine(database, read_only=True)
    try:
        with reading(engine, database.name) as connection:
            require_current(version_of(connection, database), database)
            damage = _integrity(connection) if database.is_sqlite else []
            return damage or [
                *_drift(connection),
                *_orphans(connection),
                *_doubles(connection),
                *_left_alive(connection),
            ]
    finally:
        engine.dispose()


def _integrity(connection: Connection) -> list[str]:
    lines = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    return [f"damaged: {line}" for line in lines if line != "ok"]


def _drift(connection: Connection) -> list[str]:
    from alembic.autogenerate import compare_metadata  # noqa: PLC0415
    from alembic.migration import MigrationContext  # noqa: PLC0415

    # A user's own tables are no damage; ours that miss or differ are.
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "include_object": lambda _o, name, kind, reflected, _c: (
                kind != "table" or not reflected or name in Base.metadata.tables
            ),
        },
    )
    differences = [one for found in compare_metadata(context, Base.metadata) for one in _flat(found)]
    found = [f"schema: {_described(one)}" for one in differences if "comment" not in one[0]]
    there = inspect(connection)
    names = set(there.get_view_names())
    for view in VIEWS:
        if view.name not in names:
            found.append(f"schema: the view {view.name} is missing")
        elif [column["name"] for column in there.get_columns(view.name)] != list(view.columns):
            found.append(f"schema: the view {view.name} has other columns")
    return found


def _flat(difference: list[tuple[Any, ...]] | tuple[Any, ...]) -> list[tuple[Any, ...]]:
    """Alembic lists a difference as a tuple that begins with its kind, those of one column as a list of such."""
    return list(difference) if isinstance(difference, list) else [difference]


def _described(difference: tuple[Any, ...]) -> str:
    return " ".join(str(getattr(part, "name", None) or part) for part in difference if part is not None and part != {})


def _orphans(connection: Connection) -> list[str]:
    found = []
    for table in Base.metadata.sorted_tables:
        for constraint in table.foreign_key_constraints:
            key = constraint.elements[0]
            child, parent = key.parent, key.column
            missing = (
                select(func.count())
                .select_from(table.outerjoin(parent.table, child == parent))
                .where(child.is_not(None), parent.is_(None))
            )
            if count := connection.execute(missing).scalar_one():
                found.append(f"orphans: {count} rows of {table.name} name a {parent.table.name} that is not there")
    return found


def _doubles(connection: Connection) -> list[str]:
    """Find readings that are there twice: PostgreSQL's partitions allow it where their instants differ."""
    found = []
    for name in ("sample", "measurement"):
        key = [Base.metadata.tables[name].columns[column] for column in ("period_id", "sequence")]
        twice = select(*key).group_by(*key).having(func.count() > 1).subquery()
        if count := connection.execute(select(func.count()).select_from(twice)).scalar_one():
            found.append(f"doubles: {count} readings of {name} are there more than once, with other instants")
    return found


def _left_alive(connection: Connection) -> list[str]:
    rows = connection.execute(select(Run.run_id, Run.state).where(Run.state.in_(LIVE)).order_by(Run.run_id))
    return [
        f"run {run_id} is {RunState(state).value}: if no process drives it any more, "
        f"go on with 'fleetexp resume {run_id}' or look at 'fleetexp status {run_id}'"
        for run_id, state in rows
    ]
