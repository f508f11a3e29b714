"""Functions with which a mere reader of PostgreSQL could harm others: none of them can be called by a question."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest

from fleetexp.errors import QueryRefused, StoreLocked, StoreUnreachable
from fleetexp.store.read_only.answer import BATCH_BYTES, in_batches
from fleetexp.store.read_only.postgresql import _ONLY_LOOK, _VOLATILE
from fleetexp.store.roles import grant
from fleetexp.store.sqlite_file import require_readable, require_writable
from fleetexp.store.store import Store, check, open_store, query, reader
from fleetexp.store.url import parse_url
from fleetexp.store.values import Row
from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.rows import new_run
from tests.postgresql_server import Server

HARM = [
    "select pg_terminate_backend(pid) from pg_stat_activity where pid <> pg_backend_pid()",
    'select pg_catalog . /* it */ "pg_terminate_backend" (pid) from pg_stat_activity where pid <> pg_backend_pid()',
    "select PG_Cancel_Backend(pid) from pg_stat_activity where pid <> pg_backend_pid()",
    "select U&\"pg!005fterminate_backend\" UESCAPE '!' (pid) from pg_stat_activity",
    "select x.pg_terminate_backend from (select 1) x",
    "select pg_logical_emit_message(false, 'a', 'b')",
    "select pg_notify('mine', 'x')",
    "select pg_advisory_lock(7)",
    "select pg_try_advisory_xact_lock_shared(7)",
    "select pg_sleep(100)",
    "select pg_export_snapshot()",
    "select set_config('statement_timeout', '0', false)",
    "select set_config('transaction_read_only', 'off', false)",
    "select nextval('run_run_id_seq')",
    "select lo_get(1)",
    "select lo_import('/etc/passwd')",
    "select pg_read_file('/etc/passwd')",
    "select pg_ls_dir('/')",
    "select pg_stat_reset()",
    "select query_to_xml('select pg_' || 'terminate_backend(1)', true, true, '')",
    "select * from ts_stat('select pg_' || 'notify(1)')",
    "select * from crosstab('select pg_' || 'notify(1)')",
    "select * from dblink('host=127.0.0.1', 'select 1')",
    "explain analyze select pg_notify('mine', 'x')",
    "select 1; commit; select pg_notify('mine', 'x')",
    "copy (select 1) to program 'true'",
]


@pytest.fixture(scope="module")
def roles(postgresql: Server) -> Iterator[tuple[str, str, str]]:
    """URLs of one store as its owner, its writer and its reader have them."""
    url = postgresql.new_database()
    open_store(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create role harm_writer login")
        connection.execute("create role harm_reader login")
        grant(url, writer="harm_writer", reader="harm_reader")
        yield url, *(url.replace("//postgres@", f"//harm_{role}@") for role in ("writer", "reader"))
        for role in ("harm_writer", "harm_reader"):
            connection.execute(f"drop owned by {role}")
            connection.execute(f"drop role {role}")


@pytest.mark.postgresql
def test_no_role_ends_sessions_takes_locks_or_tells_replicas_by_a_question(roles: tuple[str, str, str]) -> None:
    for url in roles:
        with psycopg.connect(url, autocommit=True) as orchestrator:  # in a session of the same role
            for sql in HARM:
                with pytest.raises(QueryRefused) as caught:
                    query(url, sql, 9)
                assert caught.value.remedy
            assert orchestrator.execute("select 1").fetchone() == (1,)
            assert orchestrator.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)


@pytest.mark.postgresql
def test_a_function_of_ones_own_that_may_write_is_refused_by_its_name(roles: tuple[str, str, str]) -> None:
    owner, _, reader_url = roles
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute("create function my_count() returns bigint language sql as 'select count(*) from run'")
        with pytest.raises(QueryRefused, match="my_count may do more than read"):
            query(reader_url, "select my_count()", 9)
        connection.execute("alter function my_count() stable")
        assert query(reader_url, "select my_count()", 9)[1] == [(0,)]


@pytest.mark.postgresql
def test_views_columns_and_what_only_looks_can_still_be_asked_for(roles: tuple[str, str, str]) -> None:
    owner, _, reader_url = roles
    with psycopg.connect(owner) as connection:
        refused = {name for (name,) in connection.execute(_VOLATILE)} - _ONLY_LOOK
        operators = "select count(*) from pg_operator o join pg_proc p on p.oid = o.oprcode where p.provolatile = 'v'"
        casts = "select count(*) from pg_cast c join pg_proc p on p.oid = c.castfunc where p.provolatile = 'v'"
        assert connection.execute(operators).fetchone() == connection.execute(casts).fetchone() == (0,)
    assert refused.isdisjoint({view.name for view in VIEWS} | {name for view in VIEWS for name in view.columns})
    assert {"pg_terminate_backend", "set_config", "pg_advisory_lock"} <= refused
    for sql in ("select pg_total_relation_size('run') > 0", "select clock_timestamp() > '2020-01-01'", "show timezone"):
        assert len(query(reader_url, sql, 9)[1]) == 1
    huge = query(reader_url, "select 10::numeric ^ 5000 as huge, sum(2) as two", 9)[1]
    assert huge == [(float("inf"), 2)]


# ------------------------------------------------------------------ files that nobody may write
def test_a_log_without_its_index_is_read_and_nothing_is_made_or_changed(migrated_file: Path, tmp_path: Path) -> None:
    shutil.copyfile(migrated_file, tmp_path / "live.db")
    copy = tmp_path / "copy"
    copy.mkdir()
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'live.db'}")) as store:
        new_run(store)
        for end in ("", "-wal"):
            shutil.copyfile(tmp_path / f"live.db{end}", copy / f"live.db{end}")
    before = {file.name: file.read_bytes() for file in copy.iterdir()}
    url = f"sqlite:///{copy / 'live.db'}"
    assert query(url, "select count(*) from run", 9)[1] == [(1,)]
    assert len(check(url)) == 0
    with contextlib.closing(open_store(url, read_only=True)) as store:
        assert [run.run_id for run in store.runs()] == [1]
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_a_writer_who_comes_while_a_file_is_read_without_locks_is_noticed(migrated_file: Path, tmp_path: Path) -> None:
    shutil.copyfile(migrated_file, tmp_path / "a.db")
    url = f"sqlite:///{tmp_path / 'a.db'}"
    many = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 9) select i from n"
    with reader(url) as opened:
        batches = opened.ask(many, batch_rows=3).batches
        assert next(batches) == [(1,), (2,), (3,)]
        with contextlib.closing(open_store(url)) as store:
            new_run(store)
        os.utime(tmp_path / "a.db")
        with pytest.raises(StoreLocked, match="a writer changed the store"):
            list(batches)


@pytest.mark.parametrize("file", ["a.db-wal", "a.db-shm"])
@pytest.mark.parametrize("last_look", [1, 2, 3])
def test_a_store_whose_writer_leaves_while_it_is_opened_is_read(
    migrated_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, last_look: int
) -> None:
    """Whichever look at the log or its index is the last that finds it."""
    shutil.copyfile(migrated_file, tmp_path / "a.db")
    writer = open_store(url := f"sqlite:///{tmp_path / 'a.db'}")
    new_run(writer)
    looks, really = 0, os.stat

    def last_seen(path: str | Path, *, follow_symlinks: bool = True) -> os.stat_result:
        nonlocal looks
        found = really(path, follow_symlinks=follow_symlinks)
        if str(path).endswith(file) and (looks := looks + 1) == last_look:
            writer.close()
        return found

    monkeypatch.setattr(os, "stat", last_seen)
    with contextlib.closing(open_store(url, create=False, read_only=True)) as store:
        assert [run.run_id for run in store.runs()] == [1]


@pytest.mark.parametrize("looked_for", [os.R_OK, os.W_OK])
def test_a_log_that_goes_while_rights_are_looked_at_lacks_none(
    migrated_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, looked_for: int
) -> None:
    shutil.copyfile(migrated_file, tmp_path / "a.db")
    writer, really = open_store(url := f"sqlite:///{tmp_path / 'a.db'}"), os.access

    def after_it_has_gone(path: str | Path, mode: int) -> bool:
        if str(path).endswith("-wal") and mode == looked_for:
            writer.close()
        return really(path, mode)

    monkeypatch.setattr(os, "access", after_it_has_gone)
    require_readable(parse_url(url))
    require_writable(parse_url(url))
    assert not (tmp_path / "a.db-wal").exists()


def test_what_a_writer_spoils_while_it_is_read_without_locks_is_not_called_damage(
    migrated_file: Path, tmp_path: Path
) -> None:
    shutil.copyfile(migrated_file, tmp_path / "a.db")
    url = f"sqlite:///{tmp_path / 'a.db'}"

    def changed_under_the_reader() -> None:
        half = (tmp_path / "a.db").read_bytes()
        (tmp_path / "a.db").write_bytes(half[:4096] + bytes(len(half) - 4096))

    store = open_store(url, read_only=True)
    with pytest.raises(StoreLocked, match="a writer changed the store"), store._transactions.reading() as reading:
        changed_under_the_reader()
        reading.exec_driver_sql("select * from run, host, period").all()
    store.close()
    shutil.copyfile(migrated_file, tmp_path / "a.db")
    with pytest.raises(StoreLocked, match="a writer changed the store"), reader(url) as opened:
        changed_under_the_reader()
        list(opened.ask("select * from run, host, period", batch_rows=3).batches)


# ------------------------------------------------------------------ batches
def test_batches_are_full_where_rows_are_small_and_few_where_they_are_large() -> None:
    def fetching(rows: list[Row]) -> list[list[Row]]:
        left = iter(rows)
        return list(in_batches(lambda count: list(islice(left, count)), 1_000))

    small: list[Row] = [(number,) for number in range(2_500)]
    assert [len(batch) for batch in fetching(small)][:2] == [1_000, 1_000]
    large: list[Row] = [(number, "x" * BATCH_BYTES) for number in range(5)]
    assert [len(batch) for batch in fetching(large)] == [1] * 5
    mixed: list[Row] = [("x" * (1 << 20),) for _ in range(40)]
    assert max(len(batch) for batch in fetching(mixed)) <= 9


def test_a_question_has_its_time_as_a_whole(store: Store, store_url: str) -> None:
    rows = "with recursive n(i) as (select 1 union all select i + 1 from n) select i from n"
    with reader(store_url, timeout_seconds=0.3) as opened, pytest.raises(QueryRefused, match=r"longer than 0\.3 s"):
        for _ in opened.ask(rows, batch_rows=10).batches:
            pass


@pytest.mark.parametrize("kind", ["a pipe", "a device", "a pipe in the place of the log"])
def test_what_is_no_regular_file_is_no_store_and_nothing_waits_for_it(
    migrated_file: Path, tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "store.db"
    if kind == "a device":
        path = Path("/dev/zero")
    elif kind == "a pipe":
        os.mkfifo(path)
    else:
        shutil.copy(migrated_file, path)
        os.mkfifo(tmp_path / "store.db-wal")
    url = f"sqlite:///{path}"
    for use in (
        lambda: open_store(url, create=False, read_only=True),
        lambda: open_store(url, create=True),
        lambda: list(query(url, "SELECT 1", 1)[1]),
    ):
        with pytest.raises(StoreUnreachable, match="is not a regular file"):
            use()
