"""Rows of the user's own tables, asked for read-only, and the calls of the page on imports."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psycopg
import pytest
from click.testing import CliRunner

from fleetexp.cli.main import cli
from fleetexp.errors import DataRefused, QueryRefused, StoreError
from fleetexp.experiment.mapping import parse_mapping
from fleetexp.imports.importer import import_tables
from fleetexp.imports.tables import FrameTable, QueryTable
from fleetexp.store.store import Store, open_store
from fleetexp.store.url import parse_url
from tests.fleetexp.imports.rollout import long_frame, mapping
from tests.postgresql_server import Server

PAGE = Path(__file__).parents[3] / "docs/IMPORT.md"
ORDERED = "SELECT host, time, metric, value FROM latency ORDER BY time"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(open_store(f"sqlite:///{tmp_path / 'store.db'}")) as opened:
        yield opened


@pytest.fixture
def measured(postgresql: Server) -> str:
    """A database of somebody else's with a table of measurements."""
    url = postgresql.new_database()
    with psycopg.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE latency (host text, time timestamptz, metric text, value numeric)")
        with cursor.copy("COPY latency FROM STDIN") as copy:
            for row in long_frame().itertuples(index=False):
                copy.write_row([row.host, row.time.to_pydatetime(), row.metric, round(row.value, 6)])
    return url


@pytest.mark.postgresql
def test_an_import_is_the_same_rows_and_findings_in_postgresql(postgresql: Server, store: Store) -> None:
    frame, written = long_frame(), parse_mapping(mapping())
    gone = frame.host.eq(frame.host.iloc[0]) & frame.time.lt(frame.time.min() + pd.Timedelta("2h"))
    tables = [FrameTable(frame[~gone]), FrameTable(frame[~gone])]
    with contextlib.closing(open_store(postgresql.new_database())) as other:
        one, two = (import_tables([table], written, into) for table, into in zip(tables, (store, other), strict=True))
        pd.testing.assert_frame_equal(store.observations(one.run_id), other.observations(two.run_id))
        periods = store.periods_frame(one.run_id)
        pd.testing.assert_frame_equal(periods, other.periods_frame(two.run_id))
    assert one.findings == two.findings
    assert "invalid" in set(periods.state)


@pytest.mark.postgresql
def test_rows_of_a_users_own_table_are_the_run_that_a_file_of_them_is(measured: str, store: Store) -> None:
    written = parse_mapping(mapping())
    outcome = import_tables([QueryTable(parse_url(measured), ORDERED)], written, store)
    assert outcome.rows == len(long_frame())
    assert outcome.findings.decision.value == "ship"
    (source,) = store.import_sources(outcome.run_id)
    assert (source.question, source.size_bytes, len(source.sha256)) == (ORDERED, None, 64)
    with pytest.raises(StoreError, match=rf"run {outcome.run_id}\b"):
        import_tables([QueryTable(parse_url(measured), ORDERED)], written, store)


@pytest.mark.postgresql
def test_a_query_that_would_write_is_refused_and_nothing_is_changed(measured: str, store: Store) -> None:
    with pytest.raises(QueryRefused):
        QueryTable(parse_url(measured), "DELETE FROM latency RETURNING *")
    with psycopg.connect(measured) as connection:
        assert connection.execute("SELECT count(*) FROM latency").fetchone() == (len(long_frame()),)
    assert store.runs() == []


@pytest.mark.postgresql
def test_an_import_into_postgresql_is_what_it_is_in_sqlite(postgresql: Server, store: Store, tmp_path: Path) -> None:
    path = tmp_path / "measured.parquet"
    long_frame().to_parquet(path)
    (tmp_path / "mapping.yaml").write_text(mapping())
    url = postgresql.new_database()
    frames = []
    for where in (url, store.url):
        found = CliRunner().invoke(cli, ["import", str(path), "--as", str(tmp_path / "mapping.yaml"), "--store", where])
        assert found.exit_code == 0, found.output
        with contextlib.closing(open_store(where, create=False)) as opened:
            frames.append(opened.observations(1).drop(columns="period_id"))
            assert opened.series(1, "p99")
    pd.testing.assert_frame_equal(*frames)


def test_a_file_of_sqlite_is_asked_too_and_rows_out_of_order_are_told(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "measured.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        frame = long_frame()
        frame.assign(time=frame["time"].map(pd.Timestamp.isoformat)).to_sql("latency", connection, index=False)
    url, written = f"sqlite:///{path}", parse_mapping(mapping())
    with pytest.raises(DataRefused, match="sort the rows by time"):
        import_tables([QueryTable(parse_url(url), f"{ORDERED} DESC")], written, store)
    assert import_tables([QueryTable(parse_url(url), ORDERED)], written, store).rows == len(frame)


def test_the_python_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (spec, *_) = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "mapping.yaml").write_text(spec)
    monkeypatch.chdir(tmp_path)
    known: dict[str, object] = {"frame": long_frame()}
    exec(code, known)  # noqa: S102 - the page's own
    assert "p99 fell by" in known["outcome"].findings.reason  # type: ignore[attr-defined]
