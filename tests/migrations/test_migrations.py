"""The steps of the schema lead to what the models say, and a store of every release can be brought up to date."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

import migrations
from analysis.results import ArmDecision, Cause, Decision, EstimateKind, Findings, Scope
from fleetexp.domain import BrokenBy, PeriodState, RunState
from fleetexp.errors import WrongSchema
from fleetexp.store.engine import open_engine, parse_url, writing
from fleetexp.store.store import check, open_store, query, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION
from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.rows import NOW, decided, facts, findings, knob_change, make_plan, sample
from tests.postgresql_server import Server

RELEASED = sorted(Path(__file__).parent.glob("*.db"))


@pytest.fixture(scope="module")
def steps() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


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
    assert len(ours) == 25
    assert all(sql.rstrip().endswith("STRICT") for sql in ours)


@pytest.mark.postgresql
def test_migrating_an_empty_postgresql_database_gives_what_the_models_say(postgresql: Server) -> None:
    url = postgresql.new_database()
    upgrade(url)
    assert check(url) == []


def test_there_is_a_store_of_each_release() -> None:
    assert [path.stem for path in RELEASED] == [
        "0.1.0",
        "schema-0005",
        "schema-0006",
        "schema-0007",
        "schema-0008",
        "schema-0009",
        "schema-0014",
    ]


def _of_before(found: Findings) -> ArmDecision:
    """What is known of the one arm that a decision of before was for."""
    scope = Scope(hosts=2, periods=1, seconds=30.0)
    return ArmDecision(arm="always", decision=found.decision, cause=Cause.BETTER, scope=scope, sentence=found.reason)


@pytest.mark.parametrize("released", RELEASED, ids=lambda path: path.stem)
def test_a_store_of_every_release_is_brought_up_to_date_with_every_row(tmp_path: Path, released: Path) -> None:
    path = tmp_path / released.name
    shutil.copyfile(released, path)
    url = f"sqlite:///{path}"
    retold = [("always", "ship", "better", "[]", 2, 1, None)] if released.stem < "schema-0006" else []
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
        assert store.findings(1) == (
            findings() if retold == [] else replace(findings(), arms=(_of_before(findings()),))
        )
        assert store.counted_events(1) == [], "what was counted before is not known"
        assert store.host_facts(1) == [facts()]
        assert store.knob_changes(1) == [
            ("h1", knob_change("inherit", "always")),
            ("h1", knob_change("always", "inherit", at=9)),
        ]
        assert store.append("h1", [sample(periods[0].period_id, 3), sample(periods[0].period_id, 4)]) == 1
    for view in VIEWS:
        assert query(url, f"select * from {view.name}", 1)[0] == list(view.columns)  # noqa: S608
    assert query(url, "select restored from knob_audit where run_id = 1", 9)[1] == [("yes",), ("yes",)]
    decided = query(
        url, "select arm, decision, cause, about, hosts, periods, preferred from decisions where run_id = 1", 9
    )
    assert decided[1] == retold
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
    assert len(query(url, "select * from run_summary", 9)[1]) == 4  # the views are still there
    with pytest.raises(WrongSchema):
        open_store(url)


# ---------------------------------------------------------------------- 0006: decisions have parts
def _on_sqlite(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / "old.db"
    shutil.copyfile(BEFORE_DECISIONS, path)
    return f"sqlite:///{path}"


def _on_postgresql(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Make the same store of schema 0005 there: its steps, then every row."""
    url: str = request.getfixturevalue("postgresql").new_database()
    engine, config = open_engine(parse_url(url)), _config()
    with writing(engine, url) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0005")
    engine.dispose()
    with contextlib.closing(sqlite3.connect(BEFORE_DECISIONS)) as old, psycopg.connect(_plain(url)) as new:
        for table in TABLES:
            rows = old.execute(f"select * from {table}")  # noqa: S608 - our names
            names = [column[0] for column in rows.description]
            columns, marks = ", ".join(f'"{name}"' for name in names), ", ".join(["%s"] * len(names))
            for row in rows.fetchall():
                values = [bool(value) if name in FLAGS else value for name, value in zip(names, row, strict=True)]
                new.execute(f"insert into {table} ({columns}) values ({marks})", values)  # type: ignore[arg-type]  # noqa: S608
            if f"{table}_id" in names:
                new.execute(
                    f"select setval(pg_get_serial_sequence('{table}', '{table}_id'), max({table}_id)) from {table}"  # noqa: S608
                )
    return url


BEFORE_DECISIONS = Path(__file__).parent / "schema-0005.db"
TABLES = (
    "experiment", "host", "run", "host_facts", "assignment", "period", "sample", "measurement", "observation",
    "knob_change", "event", "estimate", "guardrail_check",
)  # fmt: skip
FLAGS = {"headline", "lift_excludes"}


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


@pytest.fixture(params=[_on_sqlite, pytest.param(_on_postgresql, marks=pytest.mark.postgresql)])
def upgraded(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of schema 0005, brought up to date."""
    make: Callable[[pytest.FixtureRequest, Path], str] = request.param
    url = make(request, tmp_path)
    upgrade(url)
    assert check(url) == []
    return url


def test_old_decisions_are_told_by_arm(upgraded: str) -> None:
    columns = "run_id, arm, decision, cause, about, hosts, periods, seconds, preferred"
    sql = f"select {columns} from decisions order by run_id, arm"  # noqa: S608 - our names
    (one, harmful, huge, large, switchback) = query(upgraded, sql, 9)[1]
    assert one[:4] == (1, "always", "ship", "better")
    assert harmful[:4] == (2, "treatment", "do_not_ship", "guardrail_failed")
    assert harmful[4:] == ('["latency","hosts_lost"]', 60, 59, 59 * 30.0, None)
    assert huge[:4] == (3, "huge", "ship", "better")
    assert huge[5:] == (20, 19, 570.0, None)
    assert large[:4] == (3, "large", "inconclusive", "not_clear")  # the reason named the other alone
    assert switchback[:4] == (4, "always", "inconclusive", "not_clear")
    runs = query(upgraded, "select run_id, decision from run_summary order by run_id", 9)[1]
    assert runs == [(1, "ship"), (2, "do_not_ship"), (3, "ship"), (4, "inconclusive")]


def test_old_documents_say_the_same_as_the_rows(upgraded: str) -> None:
    with contextlib.closing(open_store(upgraded)) as store:
        for record in store.runs():
            found = store.findings(record.run_id)
            assert found is not None
            assert found.decision is record.decision
            assert found.preference is None
            sql = f"select {{}} where run_id = {record.run_id} order by {{}}"
            rows = query(upgraded, sql.format("arm, decision, sentence from decisions", "arm"), 9)[1]
            assert sorted((one.arm, one.decision.value, one.sentence) for one in found.arms) == rows
            kinds = query(upgraded, sql.format("kind, headline from effects", "kind"), 99)[1]
            assert sorted((one.kind.value, int(one.headline)) for one in found.estimates) == kinds
            rails = query(upgraded, sql.format("metric, built_in from guardrail_looks", "metric"), 99)[1]
            built_in = {metric for metric, own in rails if own}
            assert {one.plan.metric for one in found.guardrails if one.built_in} == built_in
            assert built_in == ({"hosts_lost"} if record.run_id in {2, 3} else set())
            assert all(one.estimate is None or one.estimate.headline for one in found.guardrails)


def test_old_estimates_get_their_kind_from_their_method(upgraded: str) -> None:
    sql = "select distinct method, kind from estimate where kind <> 'headline' and run_id > 1"
    assert dict(query(upgraded, sql, 99)[1]) == {
        "randomisation test within matched pairs": EstimateKind.RANDOMISATION,
        "randomisation test within strata": EstimateKind.RANDOMISATION,
        "sign-flip randomisation test on block contrasts": EstimateKind.RANDOMISATION,
        "Welch t, unadjusted": EstimateKind.UNADJUSTED,
        "paired t on matched pairs": EstimateKind.MATCHED_PAIRS,
        "difference in differences": EstimateKind.DIFFERENCE_IN_DIFFERENCES,
        "Hodges-Lehmann shift, Mann-Whitney test": EstimateKind.HODGES_LEHMANN,
        "Welch t, winsorised at 2.5 % a side": EstimateKind.WINSORISED,
        "Welch t within the stratum": EstimateKind.STRATUM,
        "strata combined by weight": EstimateKind.STRATA_COMBINED,
        "random effects over strata (DerSimonian-Laird)": EstimateKind.RANDOM_EFFECTS,
        "worst-case bounds for the lost hosts": EstimateKind.WORST_CASE,
        "Wald / 2SLS, Anderson-Rubin set": EstimateKind.COMPLIERS,
        "dose-response (observational)": EstimateKind.DOSE_RESPONSE,
    }


def test_what_broke_an_old_period_is_not_known(upgraded: str) -> None:
    with contextlib.closing(open_store(upgraded)) as store:
        *_, broken = store.periods(2)
        assert (broken.state, broken.reason, broken.broken_by) == (
            PeriodState.INVALID, "host lost: gone", BrokenBy.NOTHING,
        )  # fmt: skip
        assert len(store.crossings(2)) == 1


def test_an_upgraded_store_takes_new_findings(upgraded: str) -> None:
    with contextlib.closing(open_store(upgraded)) as store:
        store.save_findings(2, decided())
        assert store.findings(2) == decided()
    assert query(upgraded, "select arm, decision, preferred from decisions where run_id = 2 order by arm", 9)[1] == [
        ("always", Decision.BETTER_HERE, 1),
        ("madvise", Decision.INCONCLUSIVE, 0),
    ]


# ---------------------------------------------------------------------- 0008: PMD sizes of larger base pages
@pytest.mark.parametrize("make", [_on_sqlite, pytest.param(_on_postgresql, marks=pytest.mark.postgresql)])
def test_what_was_read_of_a_512_mib_page_moves_to_its_column(
    make: Callable[[pytest.FixtureRequest, Path], str], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = make(request, tmp_path)
    own = '{"thp_524288kB_nr_anon": 3, "thp_64kB_split": 7}'
    old = "update sample set extra = '{}' where sequence = 2"
    if url.startswith("sqlite"):
        with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as connection, connection:
            connection.execute(old.format(own))
    else:
        with psycopg.connect(_plain(url)) as server:
            server.execute(old.format(own))  # type: ignore[arg-type]
    upgrade(url)
    (found,) = query(url, "select thp_524288kb_nr_anon, thp_524288kb_split from sample where sequence = 2", 9)[1]
    assert found == (3.0, None)
    with contextlib.closing(open_store(url)) as store:
        samples = store.period_readings(1).samples
    assert samples["thp_524288kB_nr_anon"].values.tolist() == [3.0]
    assert samples["thp_64kB_split"].values.tolist() == [1.0, 7.0, 3.0]
