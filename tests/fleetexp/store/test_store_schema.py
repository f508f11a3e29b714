"""Opening, making, upgrading and checking stores: what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import threading
from pathlib import Path

import psycopg
import pytest

from fleetexp.domain import RunState
from fleetexp.errors import BadStoreUrl, StoreDamaged, StoreError, StoreLocked, StoreUnreachable, WrongSchema
from fleetexp.store.store import check, open_store, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION
from tests.fleetexp.store.rows import new_run, sample
from tests.postgresql_server import Server


def execute(url: str, *statements: str) -> None:
    """Write to a database behind the store's back."""
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
            for statement in statements:
                connection.execute(statement)
    else:
        with psycopg.connect(url) as connection:
            for statement in statements:
                connection.execute(statement)


@pytest.mark.parametrize("found", ["0000", "9999"])
def test_another_schema_version_is_refused_with_both_versions_and_the_way_out(store_url: str, found: str) -> None:
    execute(store_url, f"update alembic_version set version_num = '{found}'")  # noqa: S608
    with pytest.raises(WrongSchema) as caught:
        open_store(store_url)
    assert found in caught.value.what
    assert SCHEMA_VERSION in caught.value.what
    if found < SCHEMA_VERSION:
        assert f"fleetexp db upgrade --store {store_url}" in caught.value.remedy
    else:
        assert "newer fleetexp" in caught.value.remedy
        with pytest.raises(WrongSchema, match="9999"):
            upgrade(store_url)
    assert schema_version(store_url) == found
    with pytest.raises(WrongSchema):
        check(store_url)


def test_upgrading_what_is_current_changes_nothing(store_url: str) -> None:
    with contextlib.closing(open_store(store_url)) as store:
        run_id = new_run(store)
        upgrade(store_url)
        assert store.run(run_id).run_id == run_id
    assert schema_version(store_url) == SCHEMA_VERSION


def test_a_sound_store_has_no_problems_and_a_live_run_is_one(store_url: str) -> None:
    assert check(store_url) == []
    with contextlib.closing(open_store(store_url)) as store:
        run_id = new_run(store)
        store.append("h1", [sample(store.periods(run_id)[0].period_id, 1)])
        assert check(store_url) == []
        store.set_run_state(run_id, RunState.RUNNING)
    (problem,) = check(store_url)
    assert f"run {run_id} is running" in problem
    assert f"fleetexp resume {run_id}" in problem


def test_drift_of_the_schema_is_found(store_url: str) -> None:
    execute(
        store_url, "drop view effects", "alter table event add column mine integer", "drop index ix_event_run_id_at"
    )
    problems = check(store_url)
    assert any("effects is missing" in problem for problem in problems)
    assert any("mine" in problem for problem in problems)
    assert any("ix_event_run_id" in problem for problem in problems)
    assert all(problem.startswith("schema: ") for problem in problems)


def test_a_view_of_other_columns_is_found(store_url: str) -> None:
    execute(store_url, "drop view effects", "create view effects as select run_id from run")
    assert check(store_url) == ["schema: the view effects has other columns"]


def test_a_users_own_table_is_no_damage(store_url: str) -> None:
    execute(store_url, "create table my_notes (a integer)", "create view my_view as select run_id from run")
    assert check(store_url) == []
    open_store(store_url).close()


def test_orphan_rows_are_counted(store_url: str) -> None:
    with contextlib.closing(open_store(store_url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        store.append("h1", [sample(period_id, 1), sample(period_id, 2)])
    remove = f"delete from period where period_id = {period_id}"  # noqa: S608
    if store_url.startswith("sqlite"):
        execute(store_url, remove)  # a plain SQLite connection enforces no foreign keys
    else:
        execute(store_url, "set session_replication_role = replica", remove)
    assert check(store_url) == ["orphans: 2 rows of sample name a period that is not there"]


def test_a_new_file_is_migrated_and_an_opened_one_keeps_its_rows(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    with contextlib.closing(open_store(url)) as store:
        run_id = new_run(store)
    assert schema_version(url) == SCHEMA_VERSION
    with contextlib.closing(open_store(url, create=False)) as store:
        assert store.run(run_id).run_id == run_id


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    assert schema_version(f"sqlite:///{path}") is None
    with pytest.raises(WrongSchema, match="schema none"):
        open_store(f"sqlite:///{path}", create=False)
    open_store(f"sqlite:///{path}").close()
    assert schema_version(f"sqlite:///{path}") == SCHEMA_VERSION


def test_upgrade_makes_a_store_where_there_is_none(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'made.db'}"
    upgrade(url)
    assert check(url) == []


def test_looking_for_a_store_that_is_missing_does_not_make_it(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    url = f"sqlite:///{path}"
    for look in (schema_version, check, lambda url: open_store(url, create=False)):
        with pytest.raises(StoreUnreachable, match="no such database"):
            look(url)
    assert not path.exists()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreUnreachable, match="folder") as caught:
        open_store(f"sqlite:///{tmp_path / 'no' / 'such' / 'a.db'}")
    assert caught.value.where == str(tmp_path / "no" / "such")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("fleetexp.db", "not a URL"),
        ("", "not a URL"),
        ("sqlite://", "memory"),
        ("sqlite:///:memory:", "memory"),
        ("sqlite:///file:x?mode=memory&uri=true", "memory"),
        ("mysql://user:secret@host/db", "no database that fleetexp uses"),
    ],
)
def test_a_url_that_names_no_usable_database_is_refused(url: str, why: str) -> None:
    with pytest.raises(BadStoreUrl, match=why) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert caught.value.remedy


def test_a_folder_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(BadStoreUrl, match="folder"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_password_is_in_no_message() -> None:
    with pytest.raises(StoreUnreachable) as caught:
        open_store("postgresql://ann:secret@127.0.0.1:1/fleet")
    assert "secret" not in str(caught.value)
    assert "ann:***@127.0.0.1:1/fleet" in str(caught.value)


def test_somebody_elses_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    execute(f"sqlite:///{path}", "create table customers (name text)")
    with pytest.raises(WrongSchema, match="something else"):
        open_store(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("customers",)]


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, this is a letter. " * 100)
    before = path.read_bytes()
    for look in (open_store, upgrade, check, schema_version):
        with pytest.raises(StoreDamaged, match="not a SQLite database"):
            look(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_damaged_file_is_said_to_be_damaged(tmp_path: Path, migrated_file: Path) -> None:
    path = tmp_path / "damaged.db"
    shutil.copyfile(migrated_file, path)
    url = f"sqlite:///{path}"
    with contextlib.closing(open_store(url)) as store:
        period_id = store.periods(new_run(store))[0].period_id
        store.append("h1", [sample(period_id, number) for number in range(1, 2000)])
    data = bytearray(path.read_bytes())
    page, middle = 4096, len(data) // 4096 // 2 * 4096
    data[middle : middle + 8 * page] = b"\xa5" * 8 * page
    path.write_bytes(data)
    try:
        problems = check(url)
    except StoreDamaged as error:  # the first page that is read at all may be a damaged one
        problems = [str(error)]
    assert "damaged" in problems[0]


def test_two_processes_that_open_a_new_store_at_once_make_one_schema(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    open_at_once(url)
    assert check(url) == []


def test_an_opening_waits_for_who_writes_a_file_that_is_not_wal_yet(tmp_path: Path) -> None:
    with contextlib.closing(writer_of_a_new_file(tmp_path)) as writer:
        done = threading.Timer(0.3, writer.execute, ["COMMIT"])
        done.start()
        open_store(f"sqlite:///{tmp_path / 'new.db'}").close()
        done.join()


def test_an_opening_does_not_wait_for_ever_for_who_writes_a_file_that_is_not_wal_yet(tmp_path: Path) -> None:
    with contextlib.closing(writer_of_a_new_file(tmp_path)), pytest.raises(StoreLocked, match="another process"):
        open_store(f"sqlite:///{tmp_path / 'new.db'}", wait_seconds=0.05)


def writer_of_a_new_file(folder: Path) -> sqlite3.Connection:
    """Hold an empty file as another process does that is about to make it a store; SQLite makes nobody wait for it."""
    writer = sqlite3.connect(folder / "new.db", isolation_level=None, check_same_thread=False)
    writer.execute("BEGIN IMMEDIATE")
    return writer


@pytest.mark.postgresql
def test_two_processes_that_open_a_new_database_at_once_make_one_schema(postgresql: Server) -> None:
    url = postgresql.new_database()
    open_at_once(url)
    assert check(url) == []


def open_at_once(url: str, times: int = 4) -> None:
    failed: list[BaseException] = []
    together = threading.Barrier(times)

    def open_one() -> None:
        together.wait()
        try:
            open_store(url).close()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=open_one) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.postgresql
def test_a_database_with_tables_of_our_names_but_no_version_is_left_alone(postgresql: Server) -> None:
    url = postgresql.new_database()
    execute(url, "create table run (a integer)")
    with pytest.raises(WrongSchema, match="something else"):
        open_store(url)


@pytest.mark.postgresql
def test_a_database_that_is_missing_is_named(postgresql: Server) -> None:
    url = postgresql.new_database().rpartition("/")[0] + "/nowhere"
    with pytest.raises(StoreUnreachable, match="nowhere"):
        open_store(url)


@pytest.mark.postgresql
def test_a_url_without_a_driver_and_with_ours_mean_the_same(postgresql: Server, migrated_database: str) -> None:
    for scheme in ("postgres", "postgresql", "postgresql+psycopg"):
        url = scheme + migrated_database[len("postgresql") :]
        assert schema_version(url) == SCHEMA_VERSION


def test_a_failed_migration_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetexp.store import schema

    path = tmp_path / "half.db"
    monkeypatch.setattr(schema, "view_sql", lambda _dialect: {"broken": "SELECT nothing FROM nowhere WHERE"})
    with pytest.raises(StoreError):
        schema.upgrade(f"sqlite:///{path}")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select count(*) from sqlite_master").fetchone() == (0,)
