"""Databases locked, full, read-only, killed: said clearly, nothing half-written, and the batch can come again."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Connection, exc

from agents.messages import Reading
from fleetexp.domain import PeriodState, RunState
from fleetexp.errors import QueryRefused, StoreDamaged, StoreError, StoreFull, StoreLocked, StoreUnreachable
from fleetexp.store.bulk import PostgresqlBulk
from fleetexp.store.engine import translate
from fleetexp.store.errors import refused_query
from fleetexp.store.rows import Target
from fleetexp.store.store import check, open_store, query
from fleetexp.store.values import Row
from tests.fleetexp.store.rows import NOW, host_event, measurement, new_run, sample
from tests.fleetexp.store.single import end_period
from tests.postgresql_server import Server, programs


def batch(period_id: int, numbers: range) -> list[Reading]:
    readings: list[Reading] = []
    for number in numbers:
        readings += [sample(period_id, 3 * number), measurement(period_id, 3 * number + 1)]
        readings.append(host_event(period_id, 3 * number + 2))
    return readings


def stored(url: str) -> int:
    sql = "select (select count(*) from sample) + (select count(*) from measurement) + (select count(*) from event)"
    count = query(url, sql, 1)[1][0][0]
    assert isinstance(count, int)
    return count - 1  # the launch is an event too


# ---------------------------------------------------------------------------- locked
def test_a_locked_file_is_waited_for_so_long_and_then_said_to_be_locked(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    with contextlib.closing(open_store(url, wait_seconds=0.3)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db", isolation_level=None)) as other:
            other.execute("begin immediate")
            begun = time.monotonic()
            with pytest.raises(StoreLocked, match="locked") as caught:
                store.append("h1", batch(period_id, range(5)))
            assert 0.25 < time.monotonic() - begun < 5.0
            assert caught.value.where == url
            assert store.periods(store.runs()[0].run_id)  # readers don't wait for the writer
            other.execute("rollback")
        assert store.append("h1", batch(period_id, range(5))) == 15
    assert stored(url) == 15


def test_a_lock_that_is_let_go_in_time_is_not_noticed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    hold = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate');"
    hold += "print('held', flush=True); sys.stdin.readline(); c.execute('commit')"
    with contextlib.closing(open_store(url, wait_seconds=30.0)) as store:
        run_id = new_run(store)
        command = [sys.executable, "-c", hold, str(tmp_path / "a.db")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == "held\n"
            other.stdin.write("\n")
            other.stdin.close()
            store.set_run_state(run_id, RunState.RUNNING)
        assert store.run(run_id).state is RunState.RUNNING


@pytest.mark.postgresql
def test_a_locked_table_is_waited_for_so_long_and_then_said_to_be_locked(
    postgresql: Server, migrated_database: str
) -> None:
    url = postgresql.new_database(migrated_database)
    with contextlib.closing(open_store(url, wait_seconds=0.3)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        with psycopg.connect(url) as other:
            other.execute("lock table sample in exclusive mode")
            with pytest.raises(StoreLocked):
                store.append("h1", batch(period_id, range(5)))
        assert store.append("h1", batch(period_id, range(5))) == 15


# ---------------------------------------------------------------------------- full
@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_to_be_full_and_the_batch_can_come_again(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'a.db'}"
    with contextlib.closing(open_store(url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        (small_disk / "ballast").write_bytes(b"x" * (1 << 20))
        taken = 0
        with pytest.raises(StoreFull, match="disk is full") as caught:
            while True:
                store.append("h1", batch(period_id, range(taken, taken + 200)))
                taken += 200
        assert "free some space" in caught.value.remedy
        assert stored(url) == 3 * taken  # the batch that did not fit is not there at all
        (small_disk / "ballast").unlink()
        assert store.append("h1", batch(period_id, range(taken, taken + 200))) == 600
    assert stored(url) == 3 * (taken + 200)
    assert check(url) == []


def test_a_disk_too_full_for_the_schema_leaves_no_half_of_it(small_disk: Path) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (3 * (1 << 20) - 50_000))
    url = f"sqlite:///{small_disk / 'a.db'}"
    with pytest.raises(StoreError):
        open_store(url)
    (small_disk / "ballast").unlink()
    open_store(url).close()
    assert check(url) == []


# ---------------------------------------------------------------------------- read-only, removed, damaged
def test_a_database_on_a_read_only_disk_is_said_to_be_unwritable(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'a.db'}"
    open_store(url).close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(StoreUnreachable, match="mounted read-only") as caught:
        open_store(url)
    assert "mount it with rw" in caught.value.remedy


def test_a_disk_turned_read_only_under_an_open_store_loses_nothing(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk / 'a.db'}"
    with contextlib.closing(open_store(url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        store.append("h1", batch(period_id, range(5)))
        store.close()
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
        with pytest.raises(StoreUnreachable):
            store.append("h1", batch(period_id, range(10)))
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
        assert store.append("h1", batch(period_id, range(10))) == 15
    assert check(url) == []


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (sqlite3.SQLITE_BUSY, StoreLocked),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, StoreLocked),
        (sqlite3.SQLITE_LOCKED, StoreLocked),
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_NOTADB, StoreDamaged),
        (sqlite3.SQLITE_CORRUPT, StoreDamaged),
        (sqlite3.SQLITE_CORRUPT_INDEX, StoreDamaged),
        (sqlite3.SQLITE_CANTOPEN, StoreUnreachable),
        (sqlite3.SQLITE_READONLY_DBMOVED, StoreUnreachable),
        (sqlite3.SQLITE_PERM, StoreUnreachable),
        (sqlite3.SQLITE_IOERR_FSYNC, StoreError),
        (sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY, StoreError),
        (sqlite3.SQLITE_ERROR, StoreError),
    ],
)
def test_each_code_of_sqlite_becomes_the_error_that_says_what_to_do(code: int, error: type[StoreError]) -> None:
    cause = sqlite3.OperationalError("something\nwent wrong")
    cause.sqlite_errorcode = code
    found = translate(exc.OperationalError("INSERT", None, cause), "sqlite:///a.db")
    assert type(found) is error
    assert (found.where, "\n" in str(found)) == ("sqlite:///a.db", False)
    assert found.remedy


@pytest.mark.parametrize(
    ("cause", "error"),
    [
        (psycopg.errors.DiskFull(), StoreFull),
        (psycopg.errors.OutOfMemory(), StoreFull),
        (psycopg.errors.LockNotAvailable(), StoreLocked),
        (psycopg.errors.DeadlockDetected(), StoreLocked),
        (psycopg.errors.QueryCanceled(), StoreLocked),
        (psycopg.errors.InvalidPassword(), StoreUnreachable),
        (psycopg.errors.InvalidCatalogName(), StoreUnreachable),
        (psycopg.errors.AdminShutdown(), StoreUnreachable),
        (psycopg.errors.TooManyConnections(), StoreUnreachable),
        (psycopg.OperationalError("connection refused"), StoreUnreachable),
        (psycopg.errors.ReadOnlySqlTransaction(), StoreUnreachable),
        (psycopg.errors.InsufficientPrivilege(), StoreError),
        (psycopg.errors.ForeignKeyViolation(), StoreError),
        (psycopg.errors.UndefinedTable(), StoreError),
    ],
)
def test_each_state_of_postgresql_becomes_the_error_that_says_what_to_do(
    cause: psycopg.Error, error: type[StoreError]
) -> None:
    found = translate(cause, "postgresql://h/d")
    assert type(found) is error
    assert found.remedy


def test_a_question_whose_server_goes_away_is_not_blamed_on_its_sql() -> None:
    assert isinstance(refused_query(psycopg.errors.AdminShutdown(), "x"), StoreUnreachable)
    assert isinstance(refused_query(psycopg.errors.UndefinedColumn(), "x"), QueryRefused)
    assert isinstance(refused_query(psycopg.errors.ReadOnlySqlTransaction(), "x"), QueryRefused)


def test_an_exhausted_pool_and_an_unknown_failure_are_store_errors_too() -> None:
    assert isinstance(translate(exc.TimeoutError("QueuePool limit"), "x"), StoreLocked)
    assert type(translate(exc.InvalidRequestError("odd"), "x")) is StoreError


# ---------------------------------------------------------------------------- killed
WRITER = """
import sys
from fleetexp.store.store import open_store
from tests.fleetexp.store.rows import new_run, sample
store = open_store(sys.argv[1])
period_id = store.periods(new_run(store))[0].period_id
number = 0
while True:
    store.append("h1", [sample(period_id, number + i) for i in range(1, 51)])
    number += 50
    print(number, flush=True)
"""


@pytest.mark.slow
def test_what_a_killed_writer_was_told_is_stored_is_stored_and_no_batch_is_in_halves(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    root = Path(__file__).parents[3]
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as writer:
        assert writer.stdout is not None
        acknowledged = 0
        while acknowledged < 500:
            acknowledged = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in writer.stdout:
            acknowledged = int(line)
    count = query(url, "select count(*), max(sequence) from sample", 1)[1][0]
    assert count[0] == count[1]
    assert count[0] >= acknowledged
    assert count[0] % 50 == 0
    assert check(url) == []


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that this test may kill, with the durability of production."""
    folder = programs()
    if folder is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    server = Server(folder, durable=True)
    server.start()
    yield server
    with contextlib.suppress(AssertionError):
        server.stop("immediate")
    server.remove()


class CutOff(PostgresqlBulk):
    """A writer whose server crashes under it: in the middle of a COPY, or between one table and the next."""

    def __init__(self, server: Server, *, in_mid_copy: bool) -> None:
        self._server = server
        self._in_mid_copy = in_mid_copy

    def write(self, connection: Connection, target: Target, rows: Collection[Row]) -> int:
        if self._in_mid_copy:
            return super().write(connection, target, CutRows(rows, self._server))
        new = super().write(connection, target, rows)
        if self._server.running:
            self._server.stop("immediate")
        return new


class CutRows(list[Row]):
    def __init__(self, rows: Collection[Row], server: Server) -> None:
        super().__init__(rows)
        self._server = server

    def __iter__(self) -> Iterator[Row]:
        for place, row in enumerate(list.__iter__(self)):
            if place == len(self) // 2 and self._server.running:
                self._server.stop("immediate")
            yield row


@pytest.mark.postgresql
@pytest.mark.parametrize("in_mid_copy", [False, True])
def test_a_server_killed_in_mid_append_and_restarted_loses_and_doubles_nothing(
    own_server: Server, in_mid_copy: bool
) -> None:
    url = own_server.new_database()
    with contextlib.closing(open_store(url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        assert store.append("h1", batch(period_id, range(100))) == 300
        steady = store._bulk
        store._bulk = CutOff(own_server, in_mid_copy=in_mid_copy)
        with pytest.raises(StoreUnreachable):
            store.append("h1", batch(period_id, range(50, 200)))
        store._bulk = steady
        with pytest.raises(StoreUnreachable, match="answer"):  # still away
            store.append("h1", batch(period_id, range(50, 200)))
        own_server.start()
        assert stored(url) == 300  # what was acknowledged, and no part of what was not
        assert store.append("h1", batch(period_id, range(50, 200))) == 300
        assert store.append("h1", batch(period_id, range(200))) == 0
        end_period(store, period_id, NOW, PeriodState.COMPLETE)
    assert stored(url) == 600
    assert check(url) == []


@pytest.mark.postgresql
def test_a_connection_cut_between_two_appends_is_made_anew(postgresql: Server, migrated_database: str) -> None:
    url = postgresql.new_database(migrated_database)
    with contextlib.closing(open_store(url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fleetexp'")
        assert store.append("h1", batch(period_id, range(3))) == 9
