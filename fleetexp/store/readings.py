"""What hosts read: into the database each reading once, and out again as one series per metric."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np
from sqlalchemy import Connection, select

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


def of_periods(connection: Connection, period_ids: Sequence[int]) -> list[PeriodReadings]:
    """Read periods back, in the order given, each in the order in which it was read."""
    known = set(
        connection.execute(select(StoredPeriod.period_id).where(StoredPeriod.period_id.in_(period_ids))).scalars()
    )
    for period_id in period_ids:
        if period_id not in known:
            raise NoSuchRun(f"there is no period {period_id}", f"period {period_id}", "it belongs to another database")
    samples, measured = _samples(connection, period_ids), _measured(connection, period_ids)
    return [
        PeriodReadings(period_id=period_id, samples=samples.get(period_id, {}), measured=measured.get(period_id, {}))
        for period_id in period_ids
    ]


def decoded(extra: str | Mapping[str, float] | None) -> Mapping[str, float]:
    """Return the metrics without a column: text from SQLite, parsed from PostgreSQL."""
    if extra is None:
        return {}
    found: Mapping[str, float] = json.loads(extra) if isinstance(extra, str) else extra
    return found


def _samples(connection: Connection, period_ids: Sequence[int]) -> dict[int, dict[str, Series]]:
    columns = table(SampleRow).columns
    names = ("period_id", "boottime_seconds", "extra", *map(column_of, METRIC_COLUMNS))
    statement = select(*(columns[name] for name in names)).where(columns.period_id.in_(period_ids))
    rows = connection.execute(statement.order_by(columns.period_id, columns.sequence))
    return {period_id: _series(list(own)) for period_id, own in groupby(rows, key=itemgetter(0))}


def _series(rows: Sequence[Sequence[Any]]) -> dict[str, Series]:
    """Turn the samples of one period into a series for each metric."""
    seconds = np.array([row[1] for row in rows])
    out = {}
    common = np.array([row[3:] for row in rows], dtype=np.float64)  # None becomes NaN
    for place in np.flatnonzero(~np.isnan(common).all(axis=0)).tolist():
        there = ~np.isnan(common[:, place])
        out[METRIC_COLUMNS[place]] = Series(seconds=seconds[there], values=common[there, place])
    others: defaultdict[str, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
    for row in rows:
        for name, value in decoded(row[2]).items():
            at, values = others[name]
            at.append(row[1])
            values.append(value)
    for name, (at, values) in others.items():
        out[name] = Series(seconds=np.array(at), values=np.array(values, dtype=np.float64))
    return out


def _measured(connection: Connection, period_ids: Sequence[int]) -> dict[int, dict[str, Series]]:
    row = MeasurementRow
    statement = select(row.period_id, row.metric, row.taken_at, row.value).where(row.period_id.in_(period_ids))
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
