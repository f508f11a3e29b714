"""What PostgreSQL alone offers: days of samples as partitions, roles that may do so much and no more."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.config import Config
from click.testing import CliRunner

import migrations
from agents.messages import Reading
from fleetexp.cli.main import cli
from fleetexp.domain import PeriodState, RunRequest, RunState
from fleetexp.errors import StoreError
from fleetexp.store.engine import open_engine, parse_url, writing
from fleetexp.store.partitions import partition
from fleetexp.store.roles import grant
from fleetexp.store.store import Store, check, open_store, query, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION
from fleetexp.store.views.all_views import VIEWS
from tests.fleetexp.store.rows import NOW, facts, findings, host_event, knob_change, measurement, new_run, sample
from tests.fleetexp.store.single import end_period, record_host_facts, save_observations, start_period
from tests.fleetexp.store.test_store_readings import SUMMARY
from tests.postgresql_server import Server

pytestmark = pytest.mark.postgresql
TODAY = NOW.date()


@pytest.fixture
def url(postgresql: Server, migrated_database: str) -> str:
    return postgresql.new_database(migrated_database)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with contextlib.closing(open_store(url, create=False)) as opened:
        yield opened


@pytest.fixture
def period_id(store: Store) -> int:
    return store.periods(new_run(store))[0].period_id


def in_partitions(url: str, table: str = "sample") -> dict[str, int]:
    _, rows = query(url, f"select tableoid::regclass::text, count(*) from {table} group by 1", 99)  # noqa: S608
    return {str(name): int(count) for name, count in rows}


def on_day(period_id: int, number: int, days: int) -> list[Reading]:
    """A sample and a measurement of another day."""
    at = NOW + timedelta(days=days)
    return [
        replace(sample(period_id, 2 * number), taken_at=at),
        replace(measurement(period_id, 2 * number + 1), taken_at=at),
    ]


# ---------------------------------------------------------------------------- partitions
def test_the_check_finds_readings_that_are_there_twice_with_other_instants(
    url: str, store: Store, period_id: int
) -> None:
    assert store.append("h1", on_day(period_id, 1, 0)) == 2
    assert check(url) == []
    assert store.append("h1", on_day(period_id, 1, 1)) == 2
    assert check(url) == [
        f"doubles: 1 readings of {table} are there more than once, with other instants"
        for table in ("sample", "measurement")
    ]


def test_samples_go_into_the_day_that_was_prepared_and_others_into_the_default(
    url: str, store: Store, period_id: int
) -> None:
    done = partition(url, ahead_days=2, drop_older_days=None, today=TODAY)
    assert done.made == tuple(
        f"{table}_{TODAY + timedelta(days=ahead):%Y%m%d}" for table in ("sample", "measurement") for ahead in range(3)
    )
    batch = [one for number, days in enumerate((-1, 0, 1, 2, 3)) for one in on_day(period_id, number, days)]
    assert store.append("h1", batch) == 10
    assert store.append("h1", batch) == 0  # each is once there, wherever it went
    for table in ("sample", "measurement"):
        days = {f"{table}_2026020{number}": 1 for number in (2, 3, 4)}
        assert in_partitions(url, table) == {f"{table}_default": 2, **days}
    assert store.period_readings(period_id).samples["pgfault"].values.size == 5
    assert check(url) == []


def test_partitioning_again_changes_nothing_and_a_day_later_adds_a_day(url: str) -> None:
    partition(url, ahead_days=2, drop_older_days=9, today=TODAY)
    again = partition(url, ahead_days=2, drop_older_days=9, today=TODAY)
    assert (again.made, again.not_made, again.dropped, again.rows_deleted) == ((), (), (), 0)
    later = partition(url, ahead_days=2, drop_older_days=9, today=TODAY + timedelta(days=1))
    assert later.made == ("sample_20260205", "measurement_20260205")


def test_old_days_are_dropped_and_old_rows_of_the_default_deleted_and_no_other(
    url: str, store: Store, period_id: int
) -> None:
    partition(url, ahead_days=0, drop_older_days=None, today=TODAY)
    batch = [one for number, days in enumerate((-40, 0, 20)) for one in on_day(period_id, number, days)]
    store.append("h1", batch)
    save_observations(store, period_id, {"pgfault": SUMMARY})
    end_period(store, period_id, NOW, PeriodState.COMPLETE)
    early = partition(url, ahead_days=0, drop_older_days=30, today=TODAY + timedelta(days=30))
    assert (early.dropped, early.rows_deleted) == ((), 2)
    assert in_partitions(url) == {"sample_20260202": 1, "sample_default": 1}
    late = partition(url, ahead_days=0, drop_older_days=30, today=TODAY + timedelta(days=31))
    assert late.dropped == ("sample_20260202", "measurement_20260202")
    assert in_partitions(url) == {"sample_default": 1}
    assert len(store.observations(store.runs()[0].run_id)) == 1
    assert check(url) == []


def test_a_day_whose_rows_are_in_the_default_is_left_there_and_said(url: str, store: Store, period_id: int) -> None:
    store.append("h1", on_day(period_id, 1, 0))
    done = partition(url, ahead_days=1, drop_older_days=None, today=TODAY)
    assert done.not_made == ("sample_20260202", "measurement_20260202")
    assert done.made == ("sample_20260203", "measurement_20260203")
    assert in_partitions(url) == {"sample_default": 1}


def test_a_partition_of_somebody_elses_making_is_left_alone(url: str) -> None:
    with psycopg.connect(url) as connection:
        connection.execute(
            "create table sample_archive partition of sample for values from ('2020-01-01 00:00+00') "
            "to ('2021-01-01 00:00+00')"
        )
    assert partition(url, ahead_days=0, drop_older_days=1, today=TODAY).dropped == ()


def test_the_command_partitions_from_today(url: str) -> None:
    begun = datetime.now(UTC)
    done = CliRunner().invoke(cli, ["db", "partition", "--ahead", "1d", "--drop-older", "90d", "--store", url])
    assert done.exit_code == 0, done.output
    assert done.output == "made 4 partitions, dropped 0, deleted 0 old rows\n"
    days = {f"sample_{at:%Y%m%d}" for at in (begun, datetime.now(UTC))}  # two where midnight passes meanwhile
    _, names = query(url, "select inhrelid::regclass::text from pg_inherits where inhparent = 'sample'::regclass", 9)
    assert days & {str(name) for (name,) in names}
    refused = CliRunner().invoke(cli, ["db", "partition", "--ahead", "0d", "--store", url])
    assert refused.exit_code == 2
    assert "at least one" in refused.output


def test_sqlite_has_no_partitions_and_no_roles_and_says_what_to_do(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    open_store(url).close()
    with pytest.raises(StoreError, match="no partitions"):
        partition(url, ahead_days=1, drop_older_days=None)
    with pytest.raises(StoreError, match="no roles"):
        grant(url, writer="w", reader=None)


def test_rows_of_before_are_carried_into_the_partitioned_tables(postgresql: Server) -> None:
    url = postgresql.new_database()
    database = parse_url(url)
    engine = open_engine(database)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with writing(engine, "test") as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        for statement in (
            "insert into experiment values (1, 'e', '', '', '', '{}', now())",
            "insert into host values (1, 'h1', now())",
            "insert into run (run_id, experiment_id, state, reason, design, control_arm, seed, plan, launched_by, "
            "fleet, versions, created_at) values (1, 1, 'completed', '', '', '', 1, '{}', '', '', '{}', now())",
            "insert into assignment values (1, 1, '', null, 0)",
            "insert into period (period_id, run_id, host_id, position, attempt, kind, arm, block, stage, "
            "planned_seconds, state, reason) values (1, 1, 1, 0, 0, 'measure', 'a', 0, 0, 1, 'complete', '')",
            "insert into sample (period_id, sequence, taken_at, boottime_seconds, pgfault) "
            "select 1, n, timestamptz '2026-02-02 10:00:00.123456+00' + n * interval '1 second', 1000 + n, n * 10 "
            "from generate_series(1, 5) n",
            "insert into measurement values (1, 101, '2026-02-02 10:00+00', 'access_seconds', 1.5)",
        ):
            connection.exec_driver_sql(statement)
    engine.dispose()
    upgrade(url)
    assert schema_version(url) == SCHEMA_VERSION
    assert check(url) == []
    assert in_partitions(url) == {"sample_default": 5}
    with contextlib.closing(open_store(url)) as store:
        readings = store.period_readings(1)
        assert readings.samples["pgfault"].values.tolist() == [10.0, 20.0, 30.0, 40.0, 50.0]
        assert readings.measured["access_seconds"].values.tolist() == [1.5]
        assert store.append("h1", [sample(1, 5), sample(1, 6)]) == 1
    partition(url, ahead_days=1, drop_older_days=None, today=date(2026, 2, 3))
    with psycopg.connect(url) as connection, pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("insert into sample values (77, 1, '2026-02-03 10:00+00', 1)")


# ---------------------------------------------------------------------------- roles
@pytest.fixture
def as_role(url: str, postgresql: Server, request: pytest.FixtureRequest) -> dict[str, str]:
    """Make a writer and a reader that hold nothing but what `grant` gives, as at a careful site."""
    database = url.rpartition("/")[2]
    names = {"writer": f"writer_{database}", "reader": f"reader_{database}"}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"revoke all on database {database} from public")
        connection.execute("revoke all on schema public from public")
        for name in names.values():
            connection.execute(f"create role {name} login")
    grant(url, writer=names["writer"], reader=names["reader"])

    def drop() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for name in names.values():
                connection.execute(f"drop owned by {name}")
                connection.execute(f"drop role {name}")

    request.addfinalizer(drop)
    return {kind: url.replace("postgres@", f"{name}@") for kind, name in names.items()}


def test_a_writer_can_do_all_of_a_run(as_role: dict[str, str]) -> None:
    with contextlib.closing(open_store(as_role["writer"])) as store:
        run_id = new_run(store)
        period_id = store.periods(run_id)[0].period_id
        store.set_run_state(run_id, RunState.RUNNING)
        record_host_facts(store, run_id, facts())
        store.record_knob_changes(run_id, "h1", [knob_change("inherit", "always")])
        start_period(store, period_id, NOW, "boot-1")
        batch: list[Reading] = [sample(period_id, 1), measurement(period_id, 2), host_event(period_id, 3)]
        assert store.append("h1", batch) == 3
        assert store.append("h1", [*batch, sample(period_id, 4)]) == 1
        end_period(store, period_id, NOW, PeriodState.COMPLETE)
        for _ in range(2):
            save_observations(store, period_id, {"pgfault": SUMMARY})
            store.save_findings(run_id, findings())
        store.request(run_id, RunRequest.PAUSE, "ann")
        assert store.requested(run_id) == ("pause", "ann")
        store.set_run_state(run_id, RunState.COMPLETED)
    assert check(as_role["writer"]) == []
    for view in VIEWS:
        query(as_role["writer"], f"select * from {view.name}", 1)  # noqa: S608


@pytest.mark.parametrize(
    "statement",
    [
        "alter table run add column mine text",
        "drop table sample",
        "drop view effects",
        "create table mine (x int)",
        "truncate sample",
        "delete from sample",
        "update sample set pgfault = 0",
        "update knob_change set after = before",
        "delete from event",
        "update alembic_version set version_num = '9999'",
    ],
)
def test_a_writer_cannot_alter_the_schema_or_what_was_read(as_role: dict[str, str], statement: str) -> None:
    with psycopg.connect(as_role["writer"]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_reader_can_read_everything(as_role: dict[str, str], url: str) -> None:
    with contextlib.closing(open_store(url)) as owner:
        run_id = new_run(owner)
        owner.append("h1", [sample(owner.periods(run_id)[0].period_id, 1)])
    with contextlib.closing(open_store(as_role["reader"], create=False)) as store:
        assert store.run(run_id).state is RunState.PLANNED
        assert len(store.samples(run_id)) == 1
        assert store.observations(run_id).empty
    for view in VIEWS:
        assert query(as_role["reader"], f"select * from {view.name}", 1)[0] == list(view.columns)  # noqa: S608


@pytest.mark.parametrize(
    "statement",
    [
        "insert into host (name, first_seen_at) values ('evil', now())",
        "update run set state = 'completed'",
        "delete from run",
        "truncate sample",
        "create table mine (x int)",
        "create temporary table mine (x int)",
        "drop view effects",
        "select nextval('run_run_id_seq')",
    ],
)
def test_a_reader_cannot_write(as_role: dict[str, str], statement: str) -> None:
    with psycopg.connect(as_role["reader"]) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(statement)


def test_a_readers_store_refuses_writes_with_a_remedy(as_role: dict[str, str], url: str) -> None:
    with contextlib.closing(open_store(url)) as owner:
        run_id = new_run(owner)
    with contextlib.closing(open_store(as_role["reader"], create=False)) as store:
        for act in (lambda: new_run(store), lambda: store.request(run_id, RunRequest.ABORT, "eve")):
            with pytest.raises(StoreError, match="not permitted"):
                act()
        assert store.requested(run_id) is None


def test_the_command_prints_the_grants_or_makes_them_and_names_what_is_missing(url: str) -> None:
    printed = CliRunner().invoke(cli, ["db", "grant", "--reader", 'odd"name', "--print", "--store", url])
    assert printed.exit_code == 0
    assert 'TO "odd""name";' in printed.output
    missing = CliRunner().invoke(cli, ["db", "grant", "--reader", "not_there", "--store", url])
    assert missing.exit_code == 1
    assert "created first" in missing.output
    assert CliRunner().invoke(cli, ["db", "grant", "--store", url]).exit_code == 2
