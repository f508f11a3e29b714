"""Days of samples on PostgreSQL: partitions made ahead of time, and old ones dropped whole.

`sample` and `measurement` hold a partition for each UTC day that was prepared; what falls on any other day goes into
the default partition, so nothing is ever refused. Observations, and all else that the analysis and the audit need, are
no partitions: they stay.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from psycopg import errors
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from fleetexp.errors import StoreError
from fleetexp.store.engine import Database, StoreUrl, open_engine, parse_url, reading, writing
from fleetexp.store.schema import require_current, version_of

TABLES = ("sample", "measurement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Partitioned:
    """What was done, as names of partitions; `rows_deleted` were old ones in the default partitions."""

    made: tuple[str, ...]
    not_made: tuple[str, ...]  # the default partition holds rows of that day: they stay there
    dropped: tuple[str, ...]
    rows_deleted: int


def partition(url: StoreUrl, *, ahead_days: int, drop_older_days: int | None, today: date | None = None) -> Partitioned:
    """Prepare the partitions of today and the days ahead; drop those whose day is longer ago than `drop_older_days`.

    Done again, it changes nothing. Each partition is a transaction of its own, so writers wait for moments only.
    StoreError for SQLite, and where the role is not the owner of the tables.
    """
    database = parse_url(url)
    if database.is_sqlite:
        raise StoreError(
            "SQLite has no partitions", database.name, "a fleet's samples belong in PostgreSQL; see docs/POSTGRESQL.md"
        )
    now = today or datetime.now(UTC).date()
    engine = open_engine(database)
    try:
        with reading(engine, database.name) as connection:
            require_current(version_of(connection, database), database)
            there = {table: _days(connection, table) for table in TABLES}
        days = [now + timedelta(days=number) for number in range(ahead_days + 1)]
        wanted = [(table, day) for table in TABLES for day in days if day not in there[table]]
        made = {_name(table, day): _make(engine, database, table, day) for table, day in wanted}
        oldest = now - timedelta(days=drop_older_days) if drop_older_days is not None else date.min
        dropped = [
            _drop(engine, database, name) for days in there.values() for day, name in days.items() if day < oldest
        ]
        deleted = sum(
            _empty_default(engine, database, table, oldest) for table in TABLES if drop_older_days is not None
        )
    finally:
        engine.dispose()
    return Partitioned(
        made=tuple(name for name, done in made.items() if done),
        not_made=tuple(name for name, done in made.items() if not done),
        dropped=tuple(dropped),
        rows_deleted=deleted,
    )


def _name(table: str, day: date) -> str:
    return f"{table}_{day:%Y%m%d}"


def _days(connection: Connection, table: str) -> dict[date, str]:
    """Return the day partitions that there are, by day; others (the default, a DBA's own) are left alone."""
    statement = text(
        "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:parent)"
    )
    names = connection.execute(statement, {"parent": table}).scalars()
    matches = {name: re.fullmatch(rf"{table}_(\d{{4}})(\d\d)(\d\d)", name) for name in names}
    return {date(*map(int, match.groups())): name for name, match in matches.items() if match is not None}


def _make(engine: Engine, database: Database, table: str, day: date) -> bool:
    """Make the partition of a day; False where the default partition holds rows of it already."""
    statement = (
        f"CREATE TABLE IF NOT EXISTS {_name(table, day)} PARTITION OF {table} "
        f"FOR VALUES FROM ('{day} 00:00:00+00') TO ('{day + timedelta(days=1)} 00:00:00+00')"
    )
    try:
        with writing(engine, database.name) as connection:
            connection.execute(text(statement.replace(":", "\\:")))
    except StoreError as error:
        cause = error.__cause__
        if isinstance(cause, IntegrityError) and isinstance(cause.orig, errors.CheckViolation):
            return False
        raise
    return True


def _drop(engine: Engine, database: Database, name: str) -> str:
    with writing(engine, database.name) as connection:
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    return name


def _empty_default(engine: Engine, database: Database, table: str, oldest: date) -> int:
    at = datetime(oldest.year, oldest.month, oldest.day, tzinfo=UTC)
    with writing(engine, database.name) as connection:
        statement = text(f"DELETE FROM {table}_default WHERE taken_at < :oldest")  # noqa: S608 - our names
        return connection.execute(statement, {"oldest": at}).rowcount
