"""The steps of the schema lead to what the models say, and a store of every release can be brought up to date."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

import migrations
from fleetexp.domain import PeriodState, RunState
from fleetexp.errors import WrongSchema
from fleetexp.store.store import check, open_store, query, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION
from fleetexp.store.views import VIEWS
from tests.fleetexp.store.rows import NOW, facts, findings, knob_change, make_plan, sample
from tests.postgresql_server import Server

RELEASED = sorted(Path(__file__).parent.glob("*.db"))


@pytest.fixture(scope="module")
def steps() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return ScriptDirectory.from_config(config)


def test_the_newest_step_is_the_schema_of_this_release(steps: ScriptDirectory) -> None:
    assert steps.get_heads() == [SCHEMA_VERSION]


def test_steps_are_one_line_and_their_numbers_rise(steps: ScriptDirectory) -> None:
    numbers = [step.revision for step in steps.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)
    assert all(len(number) == 4 and number.isdigit() for number in numbers)  # compared as text


def test_steps_look_at_no_code_that_may_change(steps: ScriptDirectory) -> None:
    for step in steps.walk_revisions():
        source = Path(step.path).read_text()
        assert "fleetexp" not in source
        assert "agents" not in source


def test_migrating_an_empty_sqlite_database_gives_what_the_models_say(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    upgrade(url)
    assert check(url) == []
    with contextlib.closing(sqlite3.connect(tmp_path / "new.db")) as connection:
        tables = connection.execute("select sql from sqlite_master where type = 'table' and sql is not null").fetchall()
    ours = [sql for (sql,) in tables if "alembic_version" not in sql and "sqlite_sequence" not in sql]
    assert len(ours) == 13
    assert all(sql.rstrip().endswith("STRICT") for sql in ours)


@pytest.mark.postgresql
def test_migrating_an_empty_postgresql_database_gives_what_the_models_say(postgresql: Server) -> None:
    url = postgresql.new_database()
    upgrade(url)
    assert check(url) == []


def test_there_is_a_store_of_each_release() -> None:
    assert [path.stem for path in RELEASED] == ["0.1.0"]


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_a_store_of_every_release_is_brought_up_to_date_with_every_row(tmp_path: Path, released: Path) -> None:
    path = tmp_path / released.name
    shutil.copyfile(released, path)
    url = f"sqlite:///{path}"
    upgrade(url)
    assert schema_version(url) == SCHEMA_VERSION
    assert check(url) == []
    with contextlib.closing(open_store(url)) as store:
        record = store.run(1)
        assert record.state is RunState.COMPLETED
        assert record.plan == make_plan(["h1", "h2"])
        periods = store.periods(1)
        assert [period.state for period in periods] == [PeriodState.COMPLETE, *[PeriodState.PLANNED] * 3]
        readings = store.period_readings(periods[0].period_id)
        assert readings.samples["pgfault"].values.tolist() == [10.0, 20.0, 30.0]
        assert readings.samples["thp_64kB_split"].values.tolist() == [1.0, 2.0, 3.0]
        assert readings.measured["access_seconds"].values.tolist() == [1.5]
        assert store.observations(1)["metric"].tolist() == ["access_seconds", "pgfault"]
        assert store.observations(1, ["pgfault"])["rise"].tolist() == [pytest.approx(30.0, abs=1e-3)]  # 1 a second
        assert store.findings(1) == findings()
        assert store.host_facts(1) == [facts()]
        assert store.knob_changes(1) == [
            ("h1", knob_change("inherit", "always")),
            ("h1", knob_change("always", "inherit", at=9)),
        ]
        assert store.append("h1", [sample(periods[0].period_id, 3), sample(periods[0].period_id, 4)]) == 1
    for view in VIEWS:
        assert query(url, f"select * from {view.name}", 1)[0] == list(view.columns)  # noqa: S608
    assert query(url, "select restored from knob_audit", 9)[1] == [("yes",), ("yes",)]
    assert (periods[0].started_at, len(store.events(1))) == (NOW, 3)


def test_a_failed_upgrade_leaves_the_old_store_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    shutil.copyfile(RELEASED[-1], path)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("update alembic_version set version_num = '0000'")
    url = f"sqlite:///{path}"
    with pytest.raises(WrongSchema, match="no migration leads on from schema 0000"):
        upgrade(url)
    assert schema_version(url) == "0000"
    assert len(query(url, "select * from run_summary", 9)[1]) == 1  # the views are still there
    with pytest.raises(WrongSchema):
        open_store(url)
