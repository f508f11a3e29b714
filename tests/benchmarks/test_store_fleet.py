"""How fast one turn of a fleet goes into the store: 10,000 hosts, one wide sample each, in one transaction.

Against the least it could take: the driver alone, with the same rows ready-made (PostgreSQL: bytes of a binary COPY
that the server itself had written). Interleaved rounds on one database, ratios within a round, their median. Every
fourth host reads other metrics than the rest, as another kernel would.

The floors begin with rows, `append_many` with samples. On PostgreSQL the server works while rows are made, and the goal
of 0.7 stands. SQLite works in this process: what making a row takes is added to the floor's time, and is about a third
of it, most of it for the JSON, which the floor gets as text. The 0.75 of the issue is therefore asked of the writer
with the same ready-made rows as the floor (test_store.py); the whole way from samples is held to what it reaches here.
"""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from agents.messages import Reading, Sample
from fleetexp.store.bulk import BulkWriter, PostgresqlBulk, SqliteBulk
from fleetexp.store.rows import SAMPLES, SampleRows, Target
from fleetexp.store.store import Store, open_store
from fleetexp.store.values import Row
from tests.benchmarks.test_store import durable_server, ratio, seconds, values
from tests.fleetexp.store.rows import NOW, make_plan, new_run
from tests.postgresql_server import Server

__all__ = ["durable_server", "values"]

pytestmark = pytest.mark.benchmark
HOSTS, ROUNDS = 10_000, 7
LEAST_OF_SQLITE = 0.5  # 0.58 and 0.63 measured on a machine that did other things too; 0.60 and 0.76 with 2,000 hosts


class Turns:
    """Turns of a fleet, each 10 s after the one before; no two hosts read at the same moment, or the same values."""

    def __init__(self, store: Store, values: dict[str, float]) -> None:
        self._random = random.Random(4)
        names = [f"host-{number:05}" for number in range(HOSTS)]
        records = store.periods(new_run(store, make_plan(names)))
        self._period_ids = {record.host: record.period_id for record in records if record.plan.index == 0}
        self._few = dict(list(values.items())[: len(values) * 3 // 4])
        self._all = values
        self._turn = 0

    def turn(self) -> dict[str, list[Reading]]:
        self._turn += 1
        return {host: [self._sample(number, each)] for number, (host, each) in enumerate(self._period_ids.items())}

    def _sample(self, number: int, period_id: int) -> Sample:
        late = self._random.random()
        values = self._all if number % 4 else self._few
        return Sample(
            position=self._turn,
            period_id=period_id,
            sequence=self._turn,
            taken_at=NOW + timedelta(seconds=10 * self._turn + late),
            boottime_seconds=1000.0 + 10 * self._turn + late,
            values={name: value + late for name, value in values.items()},
        )

    def rows(self, bulk: BulkWriter) -> list[tuple[Target, list[Row]]]:
        samples = [one for batch in self.turn().values() for one in batch if isinstance(one, Sample)]
        return [(SAMPLES, list(SampleRows(samples, bulk.instant, bulk.json)))]


def compared(rounds: Callable[[], dict[str, Callable[[], object]]]) -> dict[str, list[float]]:
    took: dict[str, list[float]] = {}
    for number in range(ROUNDS + 1):
        ways = list(rounds().items())
        for name, act in ways if number % 2 else reversed(ways):
            spent = seconds(act)
            if number:  # the first round looks the hosts up
                took.setdefault(name, []).append(spent)
    return took


def tell(database: str, metrics: int, took: dict[str, list[float]]) -> float:
    found = ratio(took, "floor", "append_many")
    for name, spent in took.items():
        per_sample = sorted(spent)[len(spent) // 2] / HOSTS * 1e6
        print(
            f"{database} {name}: {per_sample:.1f} us a sample of {metrics} metrics, {1e6 / per_sample:,.0f} samples/s"
        )
    print(f"{database} append_many of {HOSTS} hosts: {found:.2f}x of the floor")
    return found


def test_sqlite_takes_a_turn_of_a_fleet_within_half_of_the_driver(tmp_path: Path, values: dict[str, float]) -> None:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'a.db'}")) as store:
        turns = Turns(store, values)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as raw:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                raw.execute(f"PRAGMA {pragma}")

            def insert(made: Sequence[tuple[Target, list[Row]]]) -> None:
                raw.execute("BEGIN IMMEDIATE")
                for target, rows in made:
                    marks = ", ".join("?" * len(target.columns))
                    raw.executemany(
                        f"INSERT INTO sample ({', '.join(target.columns)}) VALUES ({marks})",  # noqa: S608
                        rows,
                    )
                raw.execute("COMMIT")

            def rounds() -> dict[str, Callable[[], object]]:
                ready, sent = turns.rows(SqliteBulk()), turns.turn()
                return {"floor": lambda: insert(ready), "append_many": lambda: store.append_many(sent)}

            took = compared(rounds)
    assert tell("sqlite", len(values), took) >= LEAST_OF_SQLITE


@pytest.mark.postgresql
def test_postgresql_takes_a_turn_of_a_fleet_within_seven_tenths_of_a_ready_made_copy(
    durable_server: Server, values: dict[str, float]
) -> None:
    url = durable_server.new_database()
    with contextlib.closing(open_store(url)) as store, psycopg.connect(url) as raw:
        turns = Turns(store, values)

        def ready_made() -> Callable[[], None]:
            made = [(", ".join(target.columns), written(target, rows)) for target, rows in turns.rows(PostgresqlBulk())]

            def send() -> None:
                for columns, data in made:
                    statement = f"COPY sample ({columns}) FROM STDIN (FORMAT BINARY)"
                    with raw.cursor() as cursor, cursor.copy(statement) as copy:
                        copy.write(data)
                raw.commit()

            return send

        def written(target: Target, rows: list[Row]) -> bytes:
            columns = ", ".join(target.columns)
            with raw.cursor() as cursor:
                cursor.execute(f"CREATE TEMPORARY TABLE ready AS SELECT {columns} FROM sample LIMIT 0")  # noqa: S608
                with cursor.copy("COPY ready FROM STDIN (FORMAT BINARY)") as copy:
                    copy.set_types(list(target.columns.values()))
                    for row in rows:
                        copy.write_row(row)
                with cursor.copy("COPY ready TO STDOUT (FORMAT BINARY)") as copy:
                    data = b"".join(bytes(block) for block in copy)
                cursor.execute("DROP TABLE ready")
            raw.commit()
            return data

        def rounds() -> dict[str, Callable[[], object]]:
            ready, sent = ready_made(), turns.turn()
            return {"floor": ready, "append_many": lambda: store.append_many(sent)}

        took = compared(rounds)
    assert tell("postgresql", len(values), took) >= 0.7
