"""Rows of a run that was imported: its hosts, periods and their sums, what it was read from; all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, insert, select, update

from analysis.aggregate import FIGURES
from fleetexp.domain import BrokenBy, Origin, PeriodKind, PeriodState, Plan, RunState
from fleetexp.errors import StoreError
from fleetexp.store import runs
from fleetexp.store.bulk import BulkWriter
from fleetexp.store.rows import INSTANT, ColumnRows, Target
from fleetexp.store.tables import Host, ImportSource, Run, StoredAssignment, StoredExperiment, StoredPeriod

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
NOTHING_READ = "nothing was read of this host here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What was read: the place, a hash of what stood there (of a query, of its rows), and how large it was."""

    name: str
    sha256: str
    rows: int
    size_bytes: int | None = None  # of a file
    question: str = ""  # the SQL, where rows were asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedPeriods:
    """The same stretches of time of every host: arrays are [host, position], hosts by their place in the plan."""

    seconds: float
    kinds: Sequence[PeriodKind]  # by position
    spans: Sequence[tuple[datetime | None, datetime | None]]  # by position, begin and end; None: values have no times
    arms: NDArray[np.object_]  # names
    measured: NDArray[np.bool_]

    def columns(self, hosts: Sequence[object]) -> dict[str, NDArray[np.object_]]:
        """Return what there is to say of each period, host by host; `hosts` is what a host is called there."""
        said = {
            "host": np.array(hosts, dtype=object)[:, np.newaxis],
            "position": range(len(self.kinds)),
            "attempt": 0,
            "kind": [kind.value for kind in self.kinds],
            "arm": self.arms,
            "block": OUTSIDE_ANY_BLOCK,
            "stage": 0,
            "seconds": self.seconds,
            "state": np.where(self.measured, PeriodState.COMPLETE.value, PeriodState.INVALID.value),
            "reason": np.where(self.measured, "", NOTHING_READ),
            "broken_by": BrokenBy.NOTHING.value,
        }
        shape = self.measured.shape
        return {name: np.broadcast_to(np.array(cells, dtype=object), shape).ravel() for name, cells in said.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportedSums:
    """One entry an observation: the place of its period (host by host) and of its metric, and its figures.

    By period, then by the metric's name: rows are put at the end of the index of the store's key.
    """

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
    periods: ImportedPeriods
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
    bulk.write(connection, _PERIODS, _period_rows(bulk, run_id, numbers, run.periods))
    of_run = select(StoredPeriod.period_id).where(StoredPeriod.run_id == run_id)
    by_number = connection.scalars(of_run.order_by(StoredPeriod.host_id, StoredPeriod.position))
    ids = np.fromiter(by_number, np.int64).reshape(run.periods.measured.shape)[np.argsort(np.argsort(numbers))]
    bulk.write(connection, _OBSERVATIONS, _sum_rows(ids.ravel(), run.metrics, run.sums))
    ended = {
        "state": RunState.COMPLETED.value,
        "started_at": run.periods.spans[0][0],
        "ended_at": run.periods.spans[-1][1],
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


def _period_rows(bulk: BulkWriter, run_id: int, numbers: Sequence[int], periods: ImportedPeriods) -> ColumnRows:
    said = periods.columns(numbers)
    said |= {"run_id": np.full_like(said["host"], run_id), "host_id": said["host"], "planned_seconds": said["seconds"]}
    for end, name in enumerate(("started_at", "ended_at")):
        instants = [None if (at := span[end]) is None else bulk.instant(at) for span in periods.spans]
        said[name] = np.tile(np.array(instants, dtype=object), len(numbers))
    return ColumnRows([said[name] for name in _PERIODS.columns])


def _sum_rows(ids: NDArray[np.int64], metrics: Sequence[str], sums: ImportedSums) -> ColumnRows:
    figures = (sums.figures[name] for name in _SUMMED)
    return ColumnRows([ids[sums.period], np.array(metrics, dtype=object)[sums.metric], *figures])
