"""The store: everything a run plans, does, reads and finds, in one SQL database.

Each method is one transaction: all of it is stored, or nothing, and a StoreError says why. What a broken connection
leaves in doubt can be sent again: readings, writes to knobs, periods and states are not doubled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from agents.messages import HostFacts, KnobChange, Reading
from analysis.aggregate import Summary
from analysis.results import Findings
from fleetexp.domain import PeriodPlan, PeriodRecord, PeriodState, Plan, RunState
from fleetexp.store import audit, periods, readings, results, runs
from fleetexp.store.bulk import BulkWriter, PostgresqlBulk, SqliteBulk
from fleetexp.store.engine import WAIT_SECONDS, Database, open_engine, parse_url, reading, writing
from fleetexp.store.query import query
from fleetexp.store.records import EventRecord, PeriodReadings, RunRecord, Series
from fleetexp.store.schema import check, migrate, require_current, require_file, schema_version, upgrade, version_of

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_URL = "sqlite:///fleetexp.db"

__all__ = [
    "DEFAULT_URL",
    "EventRecord",
    "PeriodReadings",
    "RunRecord",
    "Series",
    "Store",
    "check",
    "open_store",
    "query",
    "schema_version",
    "upgrade",
]


def open_store(
    url: str = DEFAULT_URL, create: bool = True, *, wait_seconds: float = WAIT_SECONDS, read_only: bool = False
) -> Store:
    """Open a store; a new or empty database is given the schema, unless `create` is false or it is `read_only`.

    A write waits at most `wait_seconds` for another writer. WrongSchema where the database has another version:
    nothing is changed. StoreUnreachable, StoreDamaged or BadStoreUrl where there is nothing to open.
    """
    database = parse_url(url)
    create = create and not read_only
    if not create:
        require_file(database)
    engine = open_engine(database, wait_seconds=wait_seconds, read_only=read_only)
    try:
        with reading(engine, database.name) as connection:
            found = version_of(connection, database)
        if found is None and create:
            migrate(engine, database)
        else:
            require_current(found, database)
    except BaseException:
        engine.dispose()
        raise
    return Store(engine, database)


class Store:
    """An open store, made by `open_store`. Used from one thread at a time; other processes may use the database too."""

    def __init__(self, engine: Engine, database: Database) -> None:
        self._engine = engine
        self._where = database.name
        self._bulk: BulkWriter = SqliteBulk() if database.is_sqlite else PostgresqlBulk()

    @property
    def url(self) -> str:
        """The URL, fit to be shown: without a password."""
        return self._where

    def close(self) -> None:
        """Close every connection; the store can't be used afterwards."""
        self._engine.dispose()

    # ------------------------------------------------------------------ runs
    def create_run(
        self,
        *,
        experiment_name: str,
        hypothesis: str,
        spec_text: str,
        spec_json: Any,  # noqa: ANN401 - JSON is anything
        plan: Plan,
        launched_by: str,
        versions: Mapping[str, str],
        fleet: str,
    ) -> int:
        """Enter a run in state planned, with its hosts, assignment and every planned period; return its number."""
        with writing(self._engine, self._where) as connection:
            return runs.create(
                connection,
                experiment_name=experiment_name,
                hypothesis=hypothesis,
                spec_text=spec_text,
                spec_json=spec_json,
                plan=plan,
                launched_by=launched_by,
                versions=versions,
                fleet=fleet,
            )

    def run(self, run_id: int) -> RunRecord:
        """Return a run; NoSuchRun where there is none of that number."""
        with reading(self._engine, self._where) as connection:
            return runs.one(connection, run_id)

    def runs(self) -> list[RunRecord]:
        """Return every run, the oldest first."""
        with reading(self._engine, self._where) as connection:
            return runs.every(connection)

    def set_run_state(self, run_id: int, state: RunState, reason: str = "") -> None:
        """Note the state of a run; its start and end are stamped, and a change of state is an event."""
        with writing(self._engine, self._where) as connection:
            runs.enter_state(connection, run_id, state, reason)

    def request(self, run_id: int, how: str, who: str) -> None:
        """Leave a request ('pause' or 'abort') for the process that drives a run."""
        with writing(self._engine, self._where) as connection:
            runs.ask(connection, run_id, how, who)

    def requested(self, run_id: int) -> tuple[str, str] | None:
        """Return what was asked of a run and by whom, once; None where nothing was."""
        with reading(self._engine, self._where) as connection:
            if runs.asked(connection, run_id) is None:
                return None
        with writing(self._engine, self._where) as connection:
            asked = runs.asked(connection, run_id)
            runs.forget_request(connection, run_id)
            return asked

    def host_busy(self, host: str) -> int | None:
        """Return the run that holds a host (it is under way and neither paused nor over), None where it is free."""
        with reading(self._engine, self._where) as connection:
            return runs.holding(connection, host)

    # ------------------------------------------------------------------ periods
    def periods(self, run_id: int) -> list[PeriodRecord]:
        """Return the periods of a run by host, place in its schedule, and attempt."""
        with reading(self._engine, self._where) as connection:
            return periods.listed(connection, run_id)

    def add_periods(self, run_id: int, host: str, plans: Sequence[PeriodPlan]) -> list[int]:
        """Enter periods (of a repeated block) and return their numbers in the same order; none is entered twice."""
        with writing(self._engine, self._where) as connection:
            return periods.add(connection, run_id, host, plans)

    def start_period(self, period_id: int, started_at: datetime, boot_id: str) -> None:
        """Note that sampling has begun, and in which boot of the host."""
        with writing(self._engine, self._where) as connection:
            periods.start(connection, period_id, started_at, boot_id)

    def end_period(self, period_id: int, ended_at: datetime, state: PeriodState, reason: str = "") -> None:
        """Note the end of a period and whether it may be used; `reason` says why not."""
        with writing(self._engine, self._where) as connection:
            periods.end(connection, period_id, ended_at, state, reason)

    # ------------------------------------------------------------------ what hosts say
    def append(self, host: str, batch: Sequence[Reading]) -> int:
        """Store a batch of one host's readings and return how many were new.

        Once this returns, they are on the disk: they may be acknowledged. Those told apart by (period_id, sequence)
        as there already stay as they are. Nothing is stored where an error is raised.
        """
        if not batch:
            return 0
        with writing(self._engine, self._where) as connection:
            return readings.append(connection, self._bulk, host, batch)

    def period_readings(self, period_id: int) -> PeriodReadings:
        """Return everything read in a period, one series per metric."""
        with reading(self._engine, self._where) as connection:
            return readings.of_period(connection, period_id)

    def record_knob_changes(self, run_id: int, host: str, changes: Sequence[KnobChange]) -> None:
        """Enter writes to kernel settings, each once."""
        with writing(self._engine, self._where) as connection:
            audit.add_knob_changes(connection, run_id, host, changes)

    def knob_changes(self, run_id: int) -> list[tuple[str, KnobChange]]:
        """Return (host, write) of a run in the order of time."""
        with reading(self._engine, self._where) as connection:
            return audit.knob_changes(connection, run_id)

    def record_host_facts(self, run_id: int, facts: HostFacts) -> None:
        """Enter what a host was when the run surveyed it."""
        with writing(self._engine, self._where) as connection:
            audit.add_host_facts(connection, run_id, facts)

    def host_facts(self, run_id: int) -> list[HostFacts]:
        """Return the newest facts of each host of a run, by host."""
        with reading(self._engine, self._where) as connection:
            return audit.host_facts(connection, run_id)

    def record_event(
        self, run_id: int, kind: str, detail: str, host: str | None = None, at: datetime | None = None
    ) -> None:
        """Enter something that happened, now or `at`; the same event at the same instant is entered once."""
        with writing(self._engine, self._where) as connection:
            audit.add_event(connection, run_id, kind, detail, host=host, at=at)

    def events(self, run_id: int) -> list[EventRecord]:
        """Return the events of a run in the order of time."""
        with reading(self._engine, self._where) as connection:
            return audit.events(connection, run_id)

    # ------------------------------------------------------------------ what was found
    def save_observations(self, period_id: int, summaries: Mapping[str, Summary]) -> None:
        """Enter one summary per metric of a period, in place of those there are."""
        with writing(self._engine, self._where) as connection:
            results.replace_observations(connection, period_id, summaries)

    def save_findings(self, run_id: int, findings: Findings) -> None:
        """Enter what the analysis found, in place of what it found before."""
        with writing(self._engine, self._where) as connection:
            results.replace_findings(connection, run_id, findings)

    def findings(self, run_id: int) -> Findings | None:
        """Return what the analysis found, None before it has."""
        with reading(self._engine, self._where) as connection:
            return results.findings_of(connection, run_id)

    # ------------------------------------------------------------------ frames
    def observations(
        self, run_id: int, metrics: Sequence[str] | None = None, *, complete_only: bool = True
    ) -> DataFrame:
        """Return one row per period and metric: period_id, host, stratum, arm, kind, stage, block, attempt, position,
        seconds, metric, n, mean, variance, minimum, maximum, p50, p99. Of complete periods, unless told otherwise."""
        from fleetexp.store import frames  # noqa: PLC0415 - pandas takes half a second

        with reading(self._engine, self._where) as connection:
            return frames.observations(connection, run_id, metrics=metrics, complete_only=complete_only)

    def periods_frame(self, run_id: int) -> DataFrame:
        """Return one row per period, of every state: what `observations` says of it, and state, reason, instants."""
        from fleetexp.store import frames  # noqa: PLC0415

        with reading(self._engine, self._where) as connection:
            return frames.periods(connection, run_id)

    def samples(
        self,
        run_id: int,
        *,
        host: str | None = None,
        period_ids: Sequence[int] | None = None,
        extra: bool = False,
    ) -> DataFrame:
        """Return one row per sample with the common metrics, with `extra` all of them. NaN: unavailable there."""
        from fleetexp.store import frames  # noqa: PLC0415

        with reading(self._engine, self._where) as connection:
            return frames.samples(connection, run_id, host=host, period_ids=period_ids, extra=extra)
