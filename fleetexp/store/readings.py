"""What hosts read: into the database each reading once, and out again as one series per metric."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, Double, Text, cast, literal, null, or_, select

from agents.messages import HostEvent, Measurement, Reading, Sample
from fleetexp.errors import NoSuchRun, StoreError
from fleetexp.store import runs
from fleetexp.store.bulk import BulkWriter
from fleetexp.store.directory import Directory
from fleetexp.store.records import Floats, PeriodReadings, Series
from fleetexp.store.rows import EVENTS, MEASUREMENTS, SAMPLES, SampleRows, measurement_rows
from fleetexp.store.table_base import table
from fleetexp.store.tables import METRIC_COLUMNS, MeasurementRow, SampleRow, StoredPeriod, column_of
from fleetexp.store.values import Row, clean_text


def append(
    connection: Connection, bulk: BulkWriter, directory: Directory, batches: Mapping[str, Sequence[Reading]]
) -> int:
    """Write readings by host; those that are there already stay. Returns how many were new."""
    samples: list[Sample] = []
    measurements: list[Measurement] = []
    events: list[tuple[str, HostEvent]] = []
    _require_theirs(connection, directory, batches)
    for host, batch in batches.items():
        for reading in batch:
            if isinstance(reading, Sample):
                samples.append(reading)
            elif isinstance(reading, Measurement):
                measurements.append(reading)
            else:
                events.append((host, reading))
    new = bulk.write(connection, SAMPLES, SampleRows(samples, bulk.instant, bulk.json))
    new += bulk.write(connection, MEASUREMENTS, list(measurement_rows(measurements, bulk.instant)))
    return new + bulk.write(connection, EVENTS, _event_rows(connection, bulk, directory, events))


def _event_rows(
    connection: Connection, bulk: BulkWriter, directory: Directory, events: Sequence[tuple[str, HostEvent]]
) -> list[Row]:
    host_ids = directory.hosts(connection, {host for host, _ in events})
    held_by = runs.holding(connection, {host for host, event in events if not event.period_id})
    places = directory.periods(connection, {event.period_id for _, event in events if event.period_id})
    return [
        (
            places[event.period_id].run_id if event.period_id else held_by.get(host),
            host_ids[host],
            event.period_id or None,
            event.sequence,
            bulk.instant(event.taken_at),
            event.kind.value,
            clean_text(event.detail),
            clean_text(event.metric) or None,
        )
        for host, event in events
    ]


def _require_theirs(connection: Connection, directory: Directory, batches: Mapping[str, Sequence[Reading]]) -> None:
    """Refuse readings of a period that is not there, or is another host's."""
    named = {reading.period_id for batch in batches.values() for reading in batch} - {0}
    who = next(iter(batches)) if len(batches) == 1 else f"{len(batches)} hosts"
    places = directory.periods(connection, named, f"readings of {who}")
    for host, batch in batches.items():
        for reading in batch:
            period_id = reading.period_id
            if period_id and places[period_id].host != host:
                raise StoreError(
                    f"period {period_id} is one of {places[period_id].host}",
                    f"readings of {host}",
                    "two hosts answer to each other's names: give each its own",
                )


def of_periods(
    connection: Connection, period_ids: Sequence[int], metrics: Collection[str] | None = None
) -> list[PeriodReadings]:
    """Read periods back, in the order given, each in the order in which it was read; with `metrics` these alone."""
    began = _began(connection, period_ids)
    for period_id in period_ids:
        if period_id not in began:
            raise NoSuchRun(f"there is no period {period_id}", f"period {period_id}", "it belongs to another database")
    samples, measured = _samples(connection, period_ids, metrics), _measured(connection, period_ids, metrics)
    return [
        PeriodReadings(
            period_id=period_id,
            samples=samples.get(period_id, {}),
            measured=measured.get(period_id, {}),
            began=began[period_id],
        )
        for period_id in period_ids
    ]


def _began(connection: Connection, period_ids: Sequence[int]) -> dict[int, tuple[datetime, float] | None]:
    """When the first sample of each of these periods that are there was taken, by both clocks."""
    columns = table(SampleRow).columns
    first = select().where(columns.period_id == StoredPeriod.period_id).order_by(columns.sequence).limit(1)
    instants = (first.add_columns(columns[name]).scalar_subquery() for name in ("taken_at", "boottime_seconds"))
    rows = connection.execute(select(StoredPeriod.period_id, *instants).where(StoredPeriod.period_id.in_(period_ids)))
    return {period_id: None if taken_at is None else (taken_at, boottime) for period_id, taken_at, boottime in rows}


def decoded(extra: str | Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the metrics without a column: text from SQLite, parsed from PostgreSQL."""
    if extra is None:
        return {}
    found: Mapping[str, float] = json.loads(extra) if isinstance(extra, str) else extra
    return found


def _samples(
    connection: Connection, period_ids: Sequence[int], metrics: Collection[str] | None
) -> dict[int, dict[str, Series]]:
    columns = table(SampleRow).columns
    names = [name for name in METRIC_COLUMNS if metrics is None or name in metrics]
    values: list[ColumnElement[Any]] = [columns[column_of(name)] for name in names]
    statement = select(columns.period_id, columns.boottime_seconds).where(columns.period_id.in_(period_ids))
    if metrics is None:
        statement = statement.add_columns(columns.extra)
    else:  # of a document only what is asked for, and nothing of a sample that has nothing of it
        others = [name for name in metrics if name not in METRIC_COLUMNS]
        names, values = names + others, values + [_in_extra(connection.dialect.name, name) for name in others]
        statement = statement.add_columns(null()).where(or_(*(value.is_not(None) for value in values)))
    rows = connection.execute(statement.add_columns(*values).order_by(columns.period_id, columns.sequence))
    return {period_id: _series(names, list(own)) for period_id, own in groupby(rows, key=itemgetter(0))}


def _in_extra(dialect: str, metric: str) -> ColumnElement[Any]:
    key = f'$."{metric}"' if dialect == "sqlite" else metric
    return cast(table(SampleRow).columns.extra.op("->>")(literal(key, Text())), Double())


def _series(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, Series]:
    """Turn the samples of one period into a series for each metric: `names` are of the values behind the document."""
    seconds = np.array([row[1] for row in rows])
    out = {}
    common = np.array([row[3:] for row in rows], dtype=np.float64)  # None becomes NaN
    for place in np.flatnonzero(~np.isnan(common).all(axis=0)).tolist():
        there = ~np.isnan(common[:, place])
        out[names[place]] = Series(seconds=seconds[there], values=common[there, place])
    others: defaultdict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        for name, value in decoded(row[2]).items():
            at, values = others[name]
            at.append(row[1])
            values.append(value)
    for name, (at, values) in others.items():
        out[name] = Series(seconds=np.array(at), values=np.array(values, dtype=np.float64))
    return out


def _measured(
    connection: Connection, period_ids: Sequence[int], metrics: Collection[str] | None
) -> dict[int, dict[str, Series]]:
    row = MeasurementRow
    statement = select(row.period_id, row.metric, row.taken_at, row.value).where(row.period_id.in_(period_ids))
    if metrics is not None:
        statement = statement.where(row.metric.in_(metrics))
    found: dict[int, dict[str, tuple[list[float], list[float]]]] = {}
    for period_id, metric, taken_at, value in connection.execute(statement.order_by(row.period_id, row.sequence)):
        at, values = found.setdefault(period_id, {}).setdefault(metric, ([], []))
        at.append(taken_at.timestamp())
        values.append(value)
    return {
        period_id: {
            metric: Series(seconds=_rising(np.array(at)), values=np.array(values))
            for metric, (at, values) in of_period.items()
        }
        for period_id, of_period in found.items()
    }


def _rising(seconds: Floats) -> Floats:
    """Move instants that don't rise (many at once, a clock set back) to a microsecond after the one before."""
    steps = np.arange(seconds.size) * 1e-6
    rising: Floats = np.maximum.accumulate(seconds - steps) + steps
    return rising
