"""Questions are answered, and nothing that is asked can change the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleetexp.errors import QueryRefused, StoreDamaged, StoreUnreachable
from fleetexp.store.store import Store, query
from tests.fleetexp.store.rows import new_run

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
