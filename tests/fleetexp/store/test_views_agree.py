"""Both databases give the same rows for the same views, and so the same files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fleetexp.store.parquet import kinds_seen
from fleetexp.store.read_only.answer import as_text
from fleetexp.store.store import query, reader
from fleetexp.store.values import ColumnKind
from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.example_run import fill
from tests.postgresql_server import Server


@pytest.fixture(scope="module")
def both(
    postgresql: Server, migrated_database: str, migrated_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    path = tmp_path_factory.mktemp("agree") / "example.db"
    shutil.copyfile(migrated_file, path)
    urls = f"sqlite:///{path}", postgresql.new_database(migrated_database)
    for url in urls:
        fill(url)
    return urls


def rows(url: str, sql: str) -> list[tuple[str, ...]]:
    def shown(value: object) -> str:
        if isinstance(value, float):
            return f"{value:.6g}" if abs(value) > 1e-9 else "0"
        return "" if value is None else f"{value:.6g}" if isinstance(value, int) else as_text(value)

    return sorted(tuple(shown(value) for value in row) for row in query(url, sql, 100_000)[1])


@pytest.mark.postgresql
@pytest.mark.parametrize("view", [view.name for view in VIEWS])
def test_a_view_gives_the_same_rows_on_both(both: tuple[str, str], view: str) -> None:
    sqlite, server = (rows(url, f"select * from {view}") for url in both)  # noqa: S608 - our names
    assert len(sqlite) > 1
    assert sqlite == server


@pytest.mark.postgresql
def test_what_a_column_holds_is_found_alike(both: tuple[str, str]) -> None:
    sql = "select host, n, mean, started_at, reason from period_metrics where metric = 'oom_kills'"
    for url in both:
        with reader(url) as opened:
            assert kinds_seen(opened.ask(sql, batch_rows=7)) == (
                ColumnKind.TEXT,
                ColumnKind.WHOLE,
                ColumnKind.REAL,
                ColumnKind.INSTANT,
                ColumnKind.TEXT,
            )
