"""The store: everything a run plans, does, reads and finds, in one SQL database.

Each method is one transaction, or part of one inside `together`: all of it is stored, or nothing, and a StoreError
says why. What a broken connection leaves in doubt can be sent again: readings, writes to knobs, periods and states
are not doubled.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine, text

from agents.catalogue.table import COUNTED_ALWAYS
from agents.conformance.verdict import ScenarioResult, Trial
from agents.messages import CountedEvent, HostFacts, KnobChange, Reading
from agents.survey.figures import PageSurvey
from agents.traced_calls import TracedCalls
from analysis.aggregate import Summary
from analysis.plan import Crossing, GuardrailPlan
from analysis.results import Findings, GuardrailResult
from fleetexp.domain import BrokenBy, EventKind, PeriodPlan, PeriodRecord, Plan, RunCause, RunRequest, RunState
from fleetexp.store import audit, central, checks, conformance, imported, periods, readings, results, runs, series
from fleetexp.store.bulk import BulkWriter, PostgresqlBulk, SqliteBulk
from fleetexp.store.directory import Directory
from fleetexp.store.engine import Database, StoreUrl, open_engine, parse_url, reading
from fleetexp.store.read_only.query import query, reader
from fleetexp.store.records import (
    AnyKind,
    CentralRequest,
    CentralValue,
    CountedRecord,
    EventRecord,
    PageSizeRecord,
    PeriodEnd,
    PeriodReadings,
    PeriodStart,
    RunRecord,
    Series,
)
from fleetexp.store.schema import check, migrate, require_current, schema_version, upgrade, version_of
from fleetexp.store.sqlite_file import WAIT_SECONDS, require_readable
from fleetexp.store.surveys import add_surveys
from fleetexp.store.transactions import Transactions

if TYPE_CHECKING:
    from pandas import DataFrame

DEFAULT_URL = "sqlite:///fleetexp.db"

__all__ = [
    "DEFAULT_URL",
    "EventRecord",
    "PeriodEnd",
    "PeriodReadings",
    "PeriodStart",
    "RunRecord",
    "Series",
    "Store",
    "check",
    "open_store",
    "query",
    "reader",
    "schema_version",
    "upgrade",
]


def open_store(
    url: StoreUrl = DEFAULT_URL, create: bool = True, *, wait_seconds: float = WAIT_SECONDS, read_only: bool = False
) -> Store:
    """Open a store; a new or empty database is given the schema, unless `create` is false or it is `read_only`.

    With `read_only` the database itself refuses every write. A write waits at most
    `wait_seconds` for another writer. WrongSchema where the database has another version: nothing is changed.
    StoreUnreachable, StoreDamaged or BadStoreUrl where there is nothing to open.
    """
    database = parse_url(url)
    create = create and not read_only
    if not create:
        require_readable(database)
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
        self._directory = Directory()
        self._transactions = Transactions(engine, database.name, self._directory.forget)

    @property
    def url(self) -> str:
        """The URL, fit to be shown: without a password."""
        return self._where

    def close(self) -> None:
        """Close every connection; the store can't be used afterwards."""
        self._engine.dispose()

    def together(self) -> AbstractContextManager[None]:
        """Make everything written inside one transaction: all of it is stored at the end, or nothing.

        Once a write has failed, the others and the end fail with its error, even where that was caught. Inside another
        `together`, that one's end counts.
        """
        return self._transactions.together()

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
        with self._transactions.writing() as connection:
            runs.enter_experiment(
                connection,
                experiment_name=experiment_name,
                hypothesis=hypothesis,
                spec_text=spec_text,
                spec_json=spec_json,
                plan=plan,
            )
        with self._transactions.writing() as connection:
            return runs.create(
                connection,
                experiment_name=experiment_name,
                spec_text=spec_text,
                plan=plan,
                launched_by=launched_by,
                versions=versions,
                fleet=fleet,
            )

    def import_run(self, run: imported.ImportedRun) -> int:
        """Enter data that somebody brought as a run that is over; return its number.

        StoreError where the same data are there already, by the same mapping: nothing is entered twice.
        """
        with self._transactions.writing() as connection:
            return imported.enter(connection, self._bulk, run)

    def import_sources(self, run_id: int) -> list[imported.Provenance]:
        """Return what an imported run was read from, in order."""
        with self._transactions.reading() as connection:
            return imported.sources_of(connection, run_id)

    def changed_at(self, run_id: int) -> dict[str, datetime]:
        """Return host -> since when it is changed, of an import, for the hosts that are."""
        with self._transactions.reading() as connection:
            return imported.changed_at(connection, run_id)

    def run(self, run_id: int) -> RunRecord:
        """Return a run; NoSuchRun where there is none of that number."""
        with self._transactions.reading() as connection:
            return runs.one(connection, run_id)

    def runs(self) -> list[RunRecord]:
        """Return every run, the oldest first."""
        with self._transactions.reading() as connection:
            return runs.every(connection)

    def set_run_state(
        self,
        run_id: int,
        state: RunState,
        reason: str = "",
        cause: RunCause = RunCause.NONE,
        *,
        at: datetime | None = None,
    ) -> None:
        """Note the state of a run, now or `at`; its start and end are stamped, and a change of state is an event."""
        with self._transactions.writing() as connection:
            runs.enter_state(connection, run_id, state, reason=reason, cause=cause, now=at or datetime.now(UTC))

    def request(self, run_id: int, how: RunRequest, who: str) -> None:
        """Leave a request for the process that drives a run."""
        with self._transactions.writing() as connection:
            runs.ask(connection, run_id, how, who)

    def asked(self, run_id: int) -> tuple[RunRequest, str] | None:
        """Return what is asked of a run and by whom, for as long as nobody has taken it."""
        with self._transactions.reading() as connection:
            return runs.waiting_request(connection, run_id)

    def requested(self, run_id: int) -> tuple[RunRequest, str] | None:
        """Return what was asked of a run and by whom, once; None where nothing was."""
        with self._transactions.reading() as connection:
            if runs.waiting_request(connection, run_id) is None:
                return None
        with self._transactions.writing() as connection:
            return runs.take_request(connection, run_id)

    def hosts_busy(self, hosts: Collection[str]) -> dict[str, int]:
        """Return host -> run, of these hosts, for those that a run holds."""
        with self._transactions.reading() as connection:
            return runs.holding(connection, hosts)

    # ------------------------------------------------------------------ periods
    def periods(self, run_id: int) -> list[PeriodRecord]:
        """Return the periods of a run by host, place in its schedule, and attempt."""
        with self._transactions.reading() as connection:
            return periods.listed(connection, run_id)

    def add_periods(self, run_id: int, host: str, plans: Sequence[PeriodPlan]) -> list[int]:
        """Enter periods (of a repeated block) and return their numbers in the same order; none is entered twice."""
        with self._transactions.writing() as connection:
            return periods.add(connection, run_id, self._directory.hosts(connection, [host])[host], plans)

    def start_periods(self, starts: Sequence[PeriodStart]) -> None:
        """Note the start of many periods; NoSuchRun, and none is noted, where one is not there."""
        with self._transactions.writing() as connection:
            self._directory.periods(connection, {one.period_id for one in starts})
            periods.start(connection, starts)

    def end_periods(self, ends: Sequence[PeriodEnd]) -> None:
        """Note the end of many periods; NoSuchRun, and none is noted, where one is not there."""
        with self._transactions.writing() as connection:
            self._directory.periods(connection, {one.period_id for one in ends})
            periods.end(connection, ends)

    def void_block(  # noqa: PLR0917 - what it names, then why and when
        self, run_id: int, host: str, block: int, attempt: int, reason: str, broken_by: BrokenBy, at: datetime
    ) -> None:
        """Strike out one attempt at a block of a host: its periods are invalid, those without an end ended `at`.

        `broken_by` broke the period that was under way, the others broke with their block.
        """
        with self._transactions.writing() as connection:
            host_id = self._directory.hosts(connection, [host])[host]
            periods.void_block(
                connection, run_id, host_id, block=block, attempt=attempt, reason=reason, broken_by=broken_by, at=at
            )

    # ------------------------------------------------------------------ what hosts say
    def append(self, host: str, batch: Sequence[Reading]) -> int:
        """Store a batch of one host's readings and return how many were new.

        Once this returns, they are on the disk: they may be acknowledged. Those told apart by (period_id, sequence)
        as there already stay as they are. Nothing is stored where an error is raised.
        """
        return self.append_many({host: batch})

    def append_many(self, batches: Mapping[str, Sequence[Reading]]) -> int:
        """Store the readings of many hosts, by host, as `append` does: all of them in one transaction."""
        if not any(batches.values()):
            return 0
        with self._transactions.writing() as connection:
            return readings.append(connection, self._bulk, self._directory, batches)

    def period_readings(self, period_id: int) -> PeriodReadings:
        """Return everything read in a period, one series per metric."""
        return self.many_period_readings([period_id])[0]

    def many_period_readings(
        self, period_ids: Sequence[int], metrics: Collection[str] | None = None
    ) -> list[PeriodReadings]:
        """Return everything read in each of these periods; keep them few, for all of it is in memory.

        With `metrics` these alone are read, as they were read: no derived one.
        """
        with self._transactions.reading() as connection:
            return readings.of_periods(connection, period_ids, metrics)

    def record_knob_changes(self, run_id: int, host: str, changes: Sequence[KnobChange]) -> None:
        """Enter writes to kernel settings, each once."""
        self.record_many_knob_changes(run_id, {host: changes})

    def record_many_knob_changes(self, run_id: int, changes: Mapping[str, Sequence[KnobChange]]) -> None:
        """Enter writes to kernel settings of many hosts, by host, each once."""
        with self._transactions.writing() as connection:
            audit.add_knob_changes(connection, self._directory, run_id, changes)

    def knob_changes(self, run_id: int) -> list[tuple[str, KnobChange]]:
        """Return (host, write) of a run in the order of time."""
        with self._transactions.reading() as connection:
            return audit.knob_changes(connection, run_id)

    def record_many_host_facts(
        self, run_id: int, facts: Sequence[HostFacts], events: Collection[str] = COUNTED_ALWAYS
    ) -> None:
        """Enter what many hosts were when the run surveyed them, each once; `events`: metrics, and what they count."""
        with self._transactions.writing() as connection:
            audit.add_host_facts(connection, self._directory, run_id, facts, events)

    def record_counted_events(self, run_id: int, counted: Mapping[str, Mapping[str, CountedEvent]]) -> None:
        """Enter what metrics of perf events count, by host and metric, each once."""
        with self._transactions.writing() as connection:
            audit.add_counted_events(connection, self._directory, run_id, counted)

    def counted_events(self, run_id: int) -> list[CountedRecord]:
        """Return what metrics of perf events really counted on the hosts of a run, by host and metric."""
        with self._transactions.reading() as connection:
            return audit.counted_events(connection, run_id)

    def record_traced_calls(self, calls: Mapping[int, Sequence[TracedCalls]]) -> None:
        """Enter what was traced in periods that have ended, by period, each once."""
        with self._transactions.writing() as connection:
            audit.add_traced_calls(connection, calls)

    def page_bytes(self, run_id: int) -> dict[str, tuple[int, int]]:
        """Return the sizes of a base page and of a PMD's huge page, 0 where not known, of each host of a run."""
        with self._transactions.reading() as connection:
            return audit.page_bytes(connection, run_id)

    def host_facts(self, run_id: int) -> list[HostFacts]:
        """Return the newest facts of each host of a run, by host."""
        with self._transactions.reading() as connection:
            return audit.host_facts(connection, run_id)

    def record_page_surveys(self, surveys: Sequence[PageSurvey]) -> None:
        """Enter what surveys found huge pages would do on hosts, each survey once; they belong to no run."""
        with self._transactions.writing() as connection:
            add_surveys(connection, self._directory, surveys)

    def record_event(
        self,
        run_id: int,
        kind: EventKind,
        detail: str = "",
        host: str = "",
        *,
        at: datetime | None = None,
        stage: int | None = None,
    ) -> None:
        """Enter something that happened, now or `at`; the same event at the same instant is entered once."""
        event = EventRecord(at=at or datetime.now(UTC), host=host, kind=kind, detail=detail, stage=stage)
        self.record_events(run_id, [event])

    def record_events(self, run_id: int, events: Sequence[EventRecord]) -> None:
        """Enter many things that happened; the same event at the same instant is entered once."""
        with self._transactions.writing() as connection:
            audit.add_events(connection, self._directory, run_id, events)

    def events(self, run_id: int, *, kinds: Collection[AnyKind] | None = None) -> list[EventRecord]:
        """Return the events of a run, of these kinds where any are given, in the order of time."""
        with self._transactions.reading() as connection:
            return audit.events(connection, run_id, kinds)

    # ------------------------------------------------------------------ how page sizes behave
    def begin_conformance(self, trial: Trial, begun_by: str) -> int:
        """Enter a trial of a huge page size that begins; return its number."""
        with self._transactions.writing() as connection:
            return conformance.begin(connection, trial, begun_by)

    def record_conformance(self, conformance_id: int, result: ScenarioResult) -> None:
        """Enter the verdict on one scenario of a trial, once."""
        with self._transactions.writing() as connection:
            conformance.add_result(connection, conformance_id, result)

    def end_conformance(self, conformance_id: int, ended_at: datetime, given_up: str) -> None:
        """Enter the end of a trial; `given_up`: why the host was given up, '' where it was not."""
        with self._transactions.writing() as connection:
            conformance.end(connection, conformance_id, ended_at, given_up)

    def conformance(self, hosts: Collection[str], size_kib: int) -> list[PageSizeRecord]:
        """Return how a page size behaved on these hosts, for each kernel that it was tried under."""
        with self._transactions.reading() as connection:
            return conformance.of_hosts(connection, hosts, size_kib)

    # ------------------------------------------------------------------ what a metrics' server keeps
    def record_central_requests(self, run_id: int, requests: Sequence[CentralRequest]) -> None:
        """Enter requests to a metrics' server."""
        with self._transactions.writing() as connection:
            central.add_requests(connection, run_id, requests)

    def central_requests(self, run_id: int) -> list[CentralRequest]:
        """Return the requests to a metrics' server in the order in which they were made."""
        with self._transactions.reading() as connection:
            return central.requests(connection, run_id)

    def save_central_values(self, values: Mapping[CentralValue, Summary | None]) -> None:
        """Enter what a metrics' server gave for periods that have ended, each once, with its summary where it has one.

        Whatever else was observed in the periods stays.
        """
        with self._transactions.writing() as connection:
            central.add_values(connection, list(values))
            found: dict[int, dict[str, Summary]] = {}
            for value, summary in values.items():
                if summary is not None:
                    found.setdefault(value.period_id, {})[value.metric] = summary
            results.add_observations(connection, found)

    def central_values(self, run_id: int) -> list[CentralValue]:
        """Return what a metrics' server gave for the periods of a run, by period and metric."""
        with self._transactions.reading() as connection:
            return central.values(connection, run_id)

    # ------------------------------------------------------------------ what was found
    def save_many_observations(self, summaries: Mapping[int, Mapping[str, Summary]]) -> None:
        """Enter summaries of many periods, by period and metric, in place of those there are."""
        with self._transactions.writing() as connection:
            results.replace_observations(connection, summaries)

    def save_findings(
        self, run_id: int, findings: Findings, *, look: int | None = None, at: datetime | None = None
    ) -> None:
        """Enter what the analysis found, in place of what it found before. `look`: which planned look this was."""
        with self._transactions.writing() as connection:
            results.replace_findings(connection, run_id, findings, look=look, at=at or datetime.now(UTC))

    def save_guardrail_checks(
        self, run_id: int, found: Sequence[GuardrailResult], *, stage: int, look: int | None, at: datetime
    ) -> None:
        """Enter what the guardrails said at the end of a stage, in place of what they said before."""
        with self._transactions.writing() as connection:
            checks.replace_checks(connection, run_id, found, stage, look, at)

    def record_crossing(
        self, run_id: int, guardrail: GuardrailPlan, crossing: Crossing, *, stage: int, at: datetime
    ) -> None:
        """Enter that a host crossed a tripwire; the same one at the same instant is entered once."""
        with self._transactions.writing() as connection:
            host_id = self._directory.hosts(connection, [crossing.host])[crossing.host]
            checks.add_crossing(connection, run_id, host_id, guardrail, crossing, stage, at)

    def crossings(self, run_id: int) -> tuple[Crossing, ...]:
        """Return the tripwires that hosts of a run crossed, in the order of time."""
        with self._transactions.reading() as connection:
            return checks.crossings(connection, run_id)

    def findings(self, run_id: int) -> Findings | None:
        """Return what the analysis found, None before it has."""
        with self._transactions.reading() as connection:
            return results.findings_of(connection, run_id)

    def select(self, sql: str) -> list[tuple[Any, ...]]:
        """Answer a SELECT of our own, written for both databases; what people ask goes through `query`."""
        with self._transactions.reading() as connection:
            return [tuple(row) for row in connection.execute(text(sql.replace(":", "\\:")))]

    def series(self, run_id: int, metric: str, *, counter: bool = False) -> list[tuple[str, float, float]]:
        """Return (arm, seconds since the start, mean over the arm's hosts) of a metric, in stretches of time.

        `counter`: it only rises, though the catalogue doesn't know it.
        """
        with self._transactions.reading() as connection:
            return series.series(connection, run_id, metric, counter=counter)

    # ------------------------------------------------------------------ frames
    def observations(
        self,
        run_id: int,
        metrics: Sequence[str] | None = None,
        *,
        figures: Sequence[str] | None = None,
        complete_only: bool = True,
    ) -> DataFrame:
        """Return one row per period and metric: period_id, host, stratum, arm, kind, stage, block, attempt, position,
        seconds, metric, n, mean, variance, minimum, maximum, p50, p99, rise. Of complete periods, unless told
        otherwise; with `figures` only those from `n` to `rise` that are named, which takes a third of the time."""
        from fleetexp.store import frames  # noqa: PLC0415 - pandas takes half a second

        with self._transactions.reading() as connection:
            return frames.observations(
                connection, run_id, metrics=metrics, figures=figures, complete_only=complete_only
            )

    def periods_frame(self, run_id: int) -> DataFrame:
        """Return one row per period, of every state: what `observations` says of it, and state, reason, what broke
        it, instants."""
        from fleetexp.store import frames  # noqa: PLC0415

        with self._transactions.reading() as connection:
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

        with self._transactions.reading() as connection:
            return frames.samples(connection, run_id, host=host, period_ids=period_ids, extra=extra)
