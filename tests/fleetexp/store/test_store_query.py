"""Questions are answered, and nothing that is asked can change the store."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psycopg
import pytest

from fleetexp.errors import QueryRefused, StoreDamaged, StoreUnreachable
from fleetexp.store.store import Store, query, reader
from tests.fleetexp.store.rows import new_run
from tests.postgresql_server import Server

WRITES = [
    "delete from run",
    "update run set state = 'x'",
    "insert into host (name, first_seen_at) values ('x', '2026-01-01')",
    "drop table sample",
    "drop view effects",
    "create table mine (a int)",
    "create temporary table mine (a int)",
    "select 1; delete from run",
    "commit",
    "rollback; delete from run",
    "with gone as (delete from run returning run_id) select * from gone",
    "pragma query_only = off",
    "pragma journal_mode = delete",
    "attach database '{elsewhere}' as elsewhere",
    "vacuum into '{elsewhere}'",
    "set transaction read write",
    "select set_config('transaction_read_only', 'off', false)",
    "select nextval('run_run_id_seq')",
    "copy run to '{elsewhere}'",
    "copy run to program 'touch {elsewhere}'",
    "copy run from '/dev/null'",
    "do $$ begin delete from run; end $$",
    "1 as a from run for update; delete from run --",
    "explain analyze delete from run",
    "explain (analyze, verbose) update run set state = 'x'",
    "explain select 1; delete from run",
    "show search_path; delete from run",
    "table run; delete from run",
    "values (1); delete from run",
    "select 1 as a into mine",
    "select * from run for update",
    "replace into host (host_id, name, first_seen_at) values (1, 'x', '2026-01-01')",
    "create view mine as select 1",
    "create trigger mine after insert on run begin delete from run; end",
    "create function mine() returns int language sql as 'select 1'",
    "create extension dblink",
    "alter table run rename to walk",
    "truncate run",
    "grant all on run to public",
    "lock table run in access exclusive mode",
    "prepare mine as delete from run",
    "execute mine",
    "call mine()",
    "vacuum",
    "reindex table run",
    "analyze run",
    "notify mine",
    "listen mine",
    "begin immediate",
    "savepoint mine",
    "reset role",
    "set role none",
    "alter system set work_mem = '1MB'",
    "load '{elsewhere}'",
    "detach database main",
    "pragma user_version = 7",
    "pragma writable_schema = on",
    "pragma wal_checkpoint(truncate)",
    "pragma table_info(run); delete from run",
    "select load_extension('{elsewhere}')",
    "select writefile('{elsewhere}', 'x')",
    "select lo_export(lo_create(0), '{elsewhere}')",
    "select lo_import('/etc/hostname')",
    "select pg_read_file('/etc/hostname')",
    "select pg_ls_dir('.')",
    "select pg_reload_conf()",
    "select pg_switch_wal()",
    "select pg_create_physical_replication_slot('mine')",
    "select pg_terminate_backend(pid) from pg_stat_activity",
    "select setval('run_run_id_seq', 7)",
    "select set_config('role', 'none', false), lo_export(0, '{elsewhere}')",
    "select SET_CONFIG('role', 'none', false)",
    "select U&\"\\0073et_config\"('role', 'none', false)",
    "select query_to_xml('select lo_create(0)', true, true, '')",
    "select ts_stat('delete from run')",
    "with a as (select 1), b as (insert into host (name, first_seen_at) select 'x', now() returning 1) select * from b",
    "select 1\0; delete from run",
    "select '\udc80'",
]


@pytest.mark.parametrize("sql", WRITES)
def test_what_would_write_is_refused_and_changes_nothing(
    store: Store, store_url: str, tmp_path: Path, sql: str
) -> None:
    run_id = new_run(store)
    before = store.run(run_id)
    elsewhere = tmp_path / "elsewhere"
    with pytest.raises(QueryRefused) as caught:
        query(store_url, sql.format(elsewhere=elsewhere), 10)
    assert caught.value.remedy
    assert store.run(run_id) == before
    assert not elsewhere.exists()
    new_run(store)  # and the store still takes writes


def test_what_a_server_lets_anyone_do_is_undone(store: Store, store_url: str) -> None:
    if store_url.startswith("sqlite"):
        pytest.skip("SQLite has no such functions")
    for sql in ("select lo_create(4711)", "select pg_notify('mine', 'x')", "select pg_advisory_lock(7)"):
        with contextlib.suppress(QueryRefused):
            query(store_url, sql, 9)
    with psycopg.connect(store_url) as connection:
        assert connection.execute("select count(*) from pg_largeobject_metadata").fetchone() == (0,)
        assert connection.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone() == (0,)


@pytest.mark.postgresql
def test_a_role_that_may_write_still_reads_only(postgresql: Server, migrated_database: str) -> None:
    url = postgresql.new_database(migrated_database)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create role writer login")
        try:
            connection.execute("grant all on all tables in schema public to writer")
            own = url.replace("//postgres@", "//writer@")
            assert query(own, "select count(*) from run", 9)[1] == [(0,)]
            for sql in WRITES:
                with pytest.raises(QueryRefused):
                    query(own, sql.format(elsewhere="/dev/shm/nowhere"), 9)
        finally:
            connection.execute("drop owned by writer")
            connection.execute("drop role writer")


def test_a_question_that_takes_too_long_is_cut_off(store_url: str) -> None:
    endless = "with recursive n(i) as (select 1 union all select i + 1 from n) select count(*) from n"
    with pytest.raises(QueryRefused, match=r"longer than 0\.2 s"):
        query(store_url, endless, 1, timeout_seconds=0.2)


def test_a_large_answer_comes_in_batches_of_one_state(store: Store, store_url: str) -> None:
    sql = "with recursive n(i) as (select 1 union all select i + 1 from n where i < 25000) select i from n"
    with reader(store_url) as opened:
        batches = opened.ask(sql, batch_rows=10_000).batches
        assert [len(batch) for batch in batches] == [10_000, 10_000, 5_000]
        before = next(opened.ask("select count(*) from run", batch_rows=9).batches)
        new_run(store)
        assert next(opened.ask("select count(*) from run", batch_rows=9).batches) == before == [(0,)]


def test_a_plan_of_the_database_may_be_looked_at(store_url: str) -> None:
    verb = "explain query plan" if store_url.startswith("sqlite") else "explain (analyze, costs off)"
    assert query(store_url, f"{verb} values (1)", 9)[1]


@pytest.mark.postgresql
def test_the_other_forms_of_a_question_are_answered_too(migrated_database: str) -> None:
    assert query(migrated_database, "show timezone", 9) == (["TimeZone"], [("UTC",)])
    assert query(migrated_database, "table host", 9)[1] == []
    assert query(migrated_database, "values (1, 'a')", 9)[1] == [(1, "a")]
    assert query(migrated_database, "EXPLAIN VALUES (1)", 9)[0] == ["QUERY PLAN"]
    assert query(migrated_database, "select sum(1) as whole, avg(n) as half from (values (1), (2)) v(n)", 9)[1] == [
        (2, 1.5)
    ]
    with pytest.raises(QueryRefused):
        query(migrated_database, "select 'infinity'::timestamptz", 9)


def test_one_refused_question_does_not_loosen_the_next(store: Store, store_url: str) -> None:
    run_id = new_run(store)
    for sql in ("pragma query_only = off", "set session characteristics as transaction read write", "delete from run"):
        with pytest.raises(QueryRefused):
            query(store_url, sql, 1)
    assert store.run(run_id).run_id == run_id


def test_a_question_is_answered_with_names_and_at_most_so_many_rows(store: Store, store_url: str) -> None:
    for _ in range(3):
        new_run(store)
    columns, rows = query(store_url, "select run_id, state as now from run order by run_id", 2)
    assert columns == ["run_id", "now"]
    assert rows == [(1, "planned"), (2, "planned")]
    assert query(store_url, "with a as (select 1 as x) select x from a;", 9) == (["x"], [(1,)])
    assert query(store_url, "select 5 as x -- a comment at the end", 9) == (["x"], [(5,)])
    assert query(store_url, "select '100%' as \"per cent\"", 9) == (["per cent"], [("100%",)])
    assert query(store_url, "select run_id from run where run_id > 99", 9) == (["run_id"], [])


def test_a_metric_is_found_however_its_letters_are_typed(store: Store, store_url: str) -> None:
    assert query(store_url, "select thp_2048kB_split, THP_2048KB_NR_ANON from sample", 1)[1] == []


@pytest.mark.parametrize("sql", ["", "  \n"])
def test_an_empty_question_is_refused(store_url: str, sql: str) -> None:
    with pytest.raises(QueryRefused, match="empty"):
        query(store_url, sql, 1)


@pytest.mark.parametrize("sql", ["select * from nope", "selec 1", "-- nothing"])
def test_wrong_sql_says_what_is_wrong_and_where_to_look(store_url: str, sql: str) -> None:
    with pytest.raises(QueryRefused) as caught:
        query(store_url, sql, 1)
    assert caught.value.where == store_url


def test_a_sqlite_schema_may_be_looked_at(migrated_file: Path) -> None:
    columns, rows = query(f"sqlite:///{migrated_file}", "pragma table_info(run)", 100)
    assert "run_id" in [row[columns.index("name")] for row in rows]


def test_a_file_that_is_missing_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(StoreUnreachable, match="no such database"):
        query(f"sqlite:///{path}", "select 1", 1)
    assert not path.exists()


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "letter.db"
    path.write_text("Dear reader, this is a letter. " * 100)
    with pytest.raises(StoreDamaged, match="not a SQLite database"):
        query(f"sqlite:///{path}", "select 1", 1)


@pytest.mark.postgresql
def test_a_server_that_is_away_is_said_to_be_away() -> None:
    with pytest.raises(StoreUnreachable):
        query("postgresql://postgres@127.0.0.1:1/nowhere", "select 1", 1)
