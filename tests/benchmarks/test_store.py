"""How fast readings go into the store, against the least it could take: the driver alone, on the same rows.

Interleaved rounds on one database, ratios within a round, their median. Each writes 1,000 samples of what this host's
collectors read, in one transaction. `floor` gets its rows ready-made; `by hand` starts from the same samples as the
store, and does with them what a script would: json.dumps, dict.get, isoformat.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from agents.collectors import Collectors
from agents.messages import Sample
from agents.sysroot import FolderRoot
from fleetexp.store.bulk import BulkWriter, PostgresqlBulk, SqliteBulk
from fleetexp.store.engine import writing
from fleetexp.store.rows import SAMPLES, SampleRows, Target
from fleetexp.store.store import Store, open_store
from fleetexp.store.tables import METRIC_COLUMNS, column_of
from fleetexp.store.values import Row
from tests.fleetexp.store.rows import NOW, make_plan, new_run
from tests.postgresql_server import Server, programs

pytestmark = pytest.mark.benchmark
BATCH, ROUNDS = 1000, 21
HEAD = ["period_id", "sequence", "taken_at", "boottime_seconds", "extra"]
ALL_COLUMNS = [*HEAD, *map(column_of, METRIC_COLUMNS)]


@pytest.fixture(scope="module")
def values() -> dict[str, float]:
    with contextlib.closing(Collectors(FolderRoot(), watch_sizes_kib=(64, 2048))) as collectors:
        return collectors.sample()


class Batches:
    """Batches of samples, each of another period."""

    def __init__(self, store: Store, values: dict[str, float], bulk: BulkWriter) -> None:
        plan = make_plan(blocks=2 * ROUNDS + 4)
        self._periods = iter([record.period_id for record in store.periods(new_run(store, plan))])
        self._values = values
        self._bulk = bulk

    def samples(self) -> list[Sample]:
        period_id = next(self._periods)
        return [
            Sample(
                position=number,
                period_id=period_id,
                sequence=number,
                taken_at=NOW + timedelta(seconds=number),
                boottime_seconds=1000.0 + number,
                values={name: value + number for name, value in self._values.items()},
            )
            for number in range(BATCH)
        ]

    def rows(self) -> tuple[Target, list[Row]]:
        return SAMPLES, list(SampleRows(self.samples(), self._bulk.instant, self._bulk.json))


def seconds(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def compared(rounds: Callable[[], dict[str, Callable[[], object]]]) -> dict[str, list[float]]:
    """Time each way once a round, the order turned by one from round to round."""
    took: dict[str, list[float]] = {}
    for number in range(ROUNDS + 1):
        ways = list(rounds().items())
        ways = ways[number % len(ways) :] + ways[: number % len(ways)]
        for name, act in ways:
            spent = seconds(act)
            if number:  # the first round warms up
                took.setdefault(name, []).append(spent)
    return took


def ratio(took: dict[str, list[float]], floor: str, way: str) -> float:
    """Return the speed of a way relative to a floor: 1 is as fast, 0.5 takes twice as long."""
    return statistics.median(a / b for a, b in zip(took[floor], took[way], strict=True))


def tell(database: str, took: dict[str, list[float]]) -> None:
    for name, spent in took.items():
        per_sample = statistics.median(spent) / BATCH * 1e6
        print(f"{database} {name}: {per_sample:.1f} us a sample, {1e6 / per_sample:,.0f} samples/s")
    pairs = [("floor", "bulk writer"), ("floor", "append"), ("by hand", "append")]
    print(f"{database} speed:", *(f"{way} {ratio(took, floor, way):.2f}x of {floor};" for floor, way in pairs))


def test_sqlite_ingest_is_within_three_quarters_of_the_driver(tmp_path: Path, values: dict[str, float]) -> None:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'a.db'}")) as store:
        bulk = SqliteBulk()
        batches = Batches(store, values, bulk)
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as raw:
            for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                raw.execute(f"PRAGMA {pragma}")

            def insert(columns: Sequence[str], rows: list[Row]) -> None:
                raw.execute("BEGIN IMMEDIATE")
                marks = ", ".join("?" * len(columns))
                raw.executemany(f"INSERT INTO sample ({', '.join(columns)}) VALUES ({marks})", rows)  # noqa: S608
                raw.execute("COMMIT")

            def by_hand(samples: list[Sample]) -> None:
                insert(ALL_COLUMNS, [hand_made(one, one.taken_at.isoformat(), json.dumps) for one in samples])

            def rounds() -> dict[str, Callable[[], object]]:
                ready, ours = batches.rows(), batches.rows()
                plain, sent = batches.samples(), batches.samples()
                return {
                    "floor": lambda: insert(list(ready[0].columns), ready[1]),
                    "bulk writer": lambda: write(store, bulk, *ours),
                    "by hand": lambda: by_hand(plain),
                    "append": lambda: store.append("h1", sent),
                }

            took = compared(rounds)
    tell("sqlite", took)
    assert ratio(took, "floor", "bulk writer") >= 0.75
    assert ratio(took, "by hand", "append") >= 1.0


def write(store: Store, bulk: BulkWriter, target: Target, rows: list[Row]) -> None:
    with writing(store._engine, "benchmark") as connection:
        assert bulk.write(connection, target, rows) == len(rows)


def hand_made(sample: Sample, taken_at: object, write_json: Callable[[dict[str, float]], object]) -> Row:
    extra = {name: value for name, value in sample.values.items() if name not in METRIC_COLUMNS}
    return (
        sample.period_id,
        sample.sequence,
        taken_at,
        sample.boottime_seconds,
        write_json(extra),
        *(sample.values.get(name) for name in METRIC_COLUMNS),
    )


@pytest.fixture
def durable_server() -> Iterator[Server]:
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Server(folder, durable=True)
    server.start()
    yield server
    server.stop("immediate")
    server.remove()


@pytest.mark.postgresql
def test_postgresql_ingest_is_within_seven_tenths_of_a_ready_made_copy(
    durable_server: Server, values: dict[str, float]
) -> None:
    url = durable_server.new_database()
    with contextlib.closing(open_store(url)) as store, psycopg.connect(url) as raw:
        bulk = PostgresqlBulk()
        batches = Batches(store, values, bulk)

        def ready_made() -> Callable[[], None]:
            """COPY bytes into the table that were made by the server itself, from rows of the same kind."""
            target, rows = batches.rows()
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

            def send() -> None:
                statement = f"COPY sample ({columns}) FROM STDIN (FORMAT BINARY)"
                with raw.cursor() as cursor, cursor.copy(statement) as copy:
                    copy.write(data)
                raw.commit()

            return send

        def by_hand(samples: list[Sample]) -> None:
            marks = ", ".join(["%s"] * len(ALL_COLUMNS))
            with raw.cursor() as cursor:
                cursor.executemany(
                    f"INSERT INTO sample ({', '.join(ALL_COLUMNS)}) VALUES ({marks})",  # noqa: S608
                    [hand_made(one, one.taken_at, Jsonb) for one in samples],
                )
            raw.commit()

        def rounds() -> dict[str, Callable[[], object]]:
            ours, plain, sent = batches.rows(), batches.samples(), batches.samples()
            return {
                "floor": ready_made(),
                "bulk writer": lambda: write(store, bulk, *ours),
                "by hand": lambda: by_hand(plain),
                "append": lambda: store.append("h1", sent),
            }

        took = compared(rounds)
    tell("postgresql", took)
    assert ratio(took, "floor", "bulk writer") >= 0.7
    assert ratio(took, "by hand", "append") >= 1.0
