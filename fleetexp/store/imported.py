"""Rows of a run that was imported: its hosts, periods and their sums, what it was read from; all of it or nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select, update

from analysis.aggregate import FIGURES
from fleetexp.domain import BrokenBy, Origin, PeriodKind, PeriodState, Plan, RunState
from fleetexp.errors import StoreError
from fleetexp.store import runs
from fleetexp.store.bulk import BulkWriter
from fleetexp.store.rows import INSTANT, Target
from fleetexp.store.tables import Host, ImportSource, Run, StoredAssignment, StoredExperiment, StoredPeriod

_ROWS_AT_ONCE = 50_000
_PERIODS = Target(
    table="period",
    columns={
        "run_id": "int8",
        "host_id": "int8",
        "position": "int8",
        "attempt": "int8",
        "kind": "text",
        "arm": "text",
        "block": "int8",
        "stage": "int8",
        "planned_seconds": "float8",
        "state": "text",
        "reason": "text",
        "broken_by": "text",
        "started_at": INSTANT,
        "ended_at": INSTANT,
    },
)
_SUMMED = tuple(figure for figure in FIGURES if figure != "rise")  # of counters; what is imported are none
_OBSERVATIONS = Target(
    table="observation",
    columns={"period_id": "int8", "metric": "text", "n": "int8", **dict.fromkeys(_SUMMED[1:], "float8")},
)
OUTSIDE_ANY_BLOCK = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What was read: the place, a hash of what stood there (of a query, of its rows), and how large it was."""

    name: str
    sha256: str
    rows: int
    size_bytes: int | None = None  # of a file
    question: str = ""  # the SQL, where rows were asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPeriod:
    """A stretch of time of a host; `host` is its place in the plan. `reason` '' where something was measured."""

    host: int
    position: int
    kind: PeriodKind
    arm: str
    seconds: float
    started_at: datetime | None
    ended_at: datetime | None
    reason: str = ""

    @property
    def state(self) -> PeriodState:
        return PeriodState.INVALID if self.reason else PeriodState.COMPLETE


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSums:
    """One entry an observation: the place of its period and of its metric in the lists beside, and its figures."""

    period: NDArray[np.int64]
    metric: NDArray[np.int64]
    figures: Mapping[str, NDArray[np.generic]]  # n, mean, variance, minimum, maximum, p50, p99


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedRun:
    """A run as it is entered. `changed`: host -> since when it is changed, for those that are."""

    plan: Plan
    hypothesis: str
    mapping_text: str
    mapping: Any  # as JSON
    experiment: str
    launched_by: str
    versions: Mapping[str, str]
    changed: Mapping[str, datetime]
    sources: Sequence[Provenance]
    metrics: Sequence[str]
    periods: Sequence[ImportedPeriod]
    sums: ImportedSums


def enter(connection: Connection, bulk: BulkWriter, run: ImportedRun) -> int:
    """Enter a run that is over; return its number. StoreError where the same data are there under the same mapping."""
    runs.enter_experiment(
        connection,
        experiment_name=run.experiment,
        hypothesis=run.hypothesis,
        spec_text=run.mapping_text,
        spec_json=run.mapping,
        plan=run.plan,
    )
    refuse_twice(connection, run)
    run_id = runs.create(
        connection,
        experiment_name=run.experiment,
        spec_text=run.mapping_text,
        plan=run.plan,
        launched_by=run.launched_by,
        versions=run.versions,
        fleet="",
        origin=Origin.IMPORT,
        changed=run.changed,
    )
    for place, source in enumerate(run.sources):
        values = {"run_id": run_id, "position": place, "name": source.name, "sha256": source.sha256}
        values |= {"size_bytes": source.size_bytes, "question": source.question, "rows": source.rows}
        connection.execute(insert(ImportSource).values(**values))
    hosts = runs.host_numbers(connection, [unit.host for unit in run.plan.units])
    numbers = [hosts[unit.host] for unit in run.plan.units]
    _write(connection, bulk, _PERIODS, _period_rows(bulk, run_id, numbers, run.periods))
    place_of = {(numbers[period.host], period.position): place for place, period in enumerate(run.periods)}
    found = connection.execute(
        select(StoredPeriod.period_id, StoredPeriod.host_id, StoredPeriod.position).where(StoredPeriod.run_id == run_id)
    )
    ids = np.empty(len(run.periods), np.int64)
    for period_id, host_id, position in found:
        ids[place_of[host_id, position]] = period_id
    _write(connection, bulk, _OBSERVATIONS, _sum_rows(ids, run.metrics, run.sums))
    timed = [period for period in run.periods if period.started_at is not None and period.ended_at is not None]
    ended = {
        "state": RunState.COMPLETED.value,
        "started_at": min((period.started_at for period in timed if period.started_at), default=None),
        "ended_at": max((period.ended_at for period in timed if period.ended_at), default=None),
    }
    connection.execute(update(Run).where(Run.run_id == run_id).values(**ended))
    return run_id


def refuse_twice(connection: Connection, run: ImportedRun) -> None:
    """Refuse what is there already: the same hashes in the same order, under the same text of a mapping."""
    hashes = [source.sha256 for source in run.sources]
    rows = connection.execute(
        select(ImportSource.run_id, ImportSource.sha256)
        .join(Run, Run.run_id == ImportSource.run_id)
        .join(StoredExperiment, StoredExperiment.experiment_id == Run.experiment_id)
        .where(StoredExperiment.name == run.experiment, StoredExperiment.spec_text == run.mapping_text)
        .order_by(ImportSource.run_id, ImportSource.position)
    )
    there: dict[int, list[str]] = {}
    for run_id, sha256 in rows:
        there.setdefault(run_id, []).append(sha256)
    for run_id, known in there.items():
        if known == hashes:
            raise StoreError(
                f"the same data are there already, by the same mapping: run {run_id}",
                ", ".join(source.name for source in run.sources),
                f"'fleetexp report {run_id}' shows it; another mapping of the same data is another import",
            )


def sources_of(connection: Connection, run_id: int) -> list[Provenance]:
    """Return what a run was read from, in order; nothing for a run that was not imported."""
    row = ImportSource
    statement = select(row.name, row.sha256, row.rows, row.size_bytes, row.question).where(row.run_id == run_id)
    return [Provenance(**found._mapping) for found in connection.execute(statement.order_by(row.position))]


def changed_at(connection: Connection, run_id: int) -> dict[str, datetime]:
    """Return host -> since when it is changed, for those of a run that are."""
    row = StoredAssignment
    statement = select(Host.name, row.changed_at).join(Host, Host.host_id == row.host_id)
    found = connection.execute(statement.where(row.run_id == run_id, row.changed_at.is_not(None)))
    return {name: at for name, at in found if at is not None}


def _write(connection: Connection, bulk: BulkWriter, target: Target, rows: Iterable[tuple[Any, ...]]) -> None:
    waiting = iter(rows)
    while piece := list(islice(waiting, _ROWS_AT_ONCE)):
        bulk.write(connection, target, piece)


def _period_rows(
    bulk: BulkWriter, run_id: int, hosts: Sequence[int], periods: Sequence[ImportedPeriod]
) -> Iterator[tuple[Any, ...]]:
    instants: dict[datetime | None, object] = {None: None}  # the same for every host
    words = {kind: kind.value for kind in PeriodKind}
    invalid, complete, nothing = PeriodState.INVALID.value, PeriodState.COMPLETE.value, BrokenBy.NOTHING.value
    for one in periods:
        for at in (one.started_at, one.ended_at):
            if at is not None and at not in instants:
                instants[at] = bulk.instant(at)
        kind, state = words[one.kind], invalid if one.reason else complete
        yield (
            run_id,
            hosts[one.host],
            one.position,
            0,
            kind,
            one.arm,
            OUTSIDE_ANY_BLOCK,
            0,
            one.seconds,
            state,
            one.reason,
            nothing,
            instants[one.started_at],
            instants[one.ended_at],
        )


def _sum_rows(ids: NDArray[np.int64], metrics: Sequence[str], sums: ImportedSums) -> Iterator[tuple[Any, ...]]:
    rank = np.argsort(np.argsort(metrics))
    order = np.lexsort((rank[sums.metric], ids[sums.period]))  # as the key has it: rows are put at the end of the index
    for first in range(0, len(order), _ROWS_AT_ONCE):
        piece = order[first : first + _ROWS_AT_ONCE]
        names = [metrics[place] for place in sums.metric[piece].tolist()]
        figures = (sums.figures[name][piece].tolist() for name in _SUMMED)
        yield from zip(ids[sums.period[piece]].tolist(), names, *figures, strict=True)
