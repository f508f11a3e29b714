"""What the fast way in makes of instants, names and numbers."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from sqlalchemy import create_engine

from fleetexp.store.bulk import BulkWriter, PostgresqlBulk, SqliteBulk
from fleetexp.store.rows import SAMPLES, ColumnRows, SampleRows, Target
from fleetexp.store.values import instant_text
from tests.fleetexp.store.rows import NOW, sample

EXTRA = list(SAMPLES.columns).index("extra")


def instants() -> list[datetime]:
    rng = random.Random(5)
    some = [
        NOW + timedelta(days=rng.randrange(-40_000, 40_000), microseconds=rng.randrange(10**12)) for _ in range(500)
    ]
    whole = [at.replace(microsecond=0) for at in some[:50]]
    few = [at.replace(microsecond=7) for at in some[:50]]
    abroad = [at.astimezone(timezone(timedelta(hours=5, minutes=30))) for at in (*some[:50], *whole)]
    return [*some, *whole, *few, *abroad, datetime(1, 1, 1, 0, 0, 0, 1, tzinfo=UTC)]


def test_sqlite_holds_every_instant_as_the_other_columns_do() -> None:
    assert [SqliteBulk().instant(at) for at in instants()] == [instant_text(at) for at in instants()]


def test_postgresql_holds_instants_to_the_microsecond() -> None:
    epoch = datetime(2000, 1, 1, tzinfo=UTC)
    assert [PostgresqlBulk().instant(at) for at in instants()] == [
        (at - epoch) // timedelta(microseconds=1) for at in instants()
    ]


@pytest.mark.parametrize("bulk", [SqliteBulk(), PostgresqlBulk()])
def test_an_instant_without_a_time_zone_is_refused(bulk: BulkWriter) -> None:
    with pytest.raises(ValueError, match="no time zone"):
        bulk.instant(NOW.replace(tzinfo=None))


@pytest.mark.parametrize("values", [{"odd\udcff": 1.5}, {"huge": 2**70}])
def test_an_undecodable_name_or_a_huge_number_does_not_lose_the_sample(values: dict[str, float]) -> None:
    bulk = SqliteBulk()
    rows = SampleRows([replace(sample(1, 1), values=values)], bulk.instant, bulk.json)
    ((*_, value),) = [json.loads(row[EXTRA]).values() for row in rows]
    assert value == float(next(iter(values.values())))


def test_each_row_of_columns_is_stored_once_and_what_is_there_already_stays() -> None:
    rows = ColumnRows([np.arange(25_003), np.array([f"m{place}" for place in range(25_003)], dtype=object)])
    target = Target(table="t", columns={"number": "int8", "name": "text"})
    with create_engine("sqlite://").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (number INTEGER PRIMARY KEY, name TEXT)")
        connection.exec_driver_sql("INSERT INTO t VALUES (7, 'before')")
        assert SqliteBulk().write(connection, target, rows) == len(rows) - 1
        assert SqliteBulk().write(connection, target, rows) == 0
        stored = connection.exec_driver_sql("SELECT number, name FROM t ORDER BY number").all()
    assert stored == [row if row[0] != 7 else (7, "before") for row in rows]
