"""Rows as pandas frames: what the analysis and a notebook start from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sqlalchemy import Connection, CursorResult, select

from analysis.aggregate import FIGURES
from fleetexp.domain import PeriodState
from fleetexp.errors import StoreError
from fleetexp.store.observed import observed
from fleetexp.store.readings import decoded
from fleetexp.store.table_base import table
from fleetexp.store.tables import METRIC_COLUMNS, Host, SampleRow, StoredAssignment, StoredPeriod, column_of

if TYPE_CHECKING:
    from pandas import DataFrame

_OF_PERIOD = ["period_id", "host", "stratum", "arm", "kind", "stage", "block", "attempt", "position", "seconds"]


def periods(connection: Connection, run_id: int) -> DataFrame:
    """Return the periods of a run, one row each, by host and place.

    `seconds` is how long it was sampled (NaN where it was not), `planned_seconds` how long it should have been.
    """
    row = StoredPeriod
    statement = (
        select(
            row.period_id,
            Host.name.label("host"),
            StoredAssignment.stratum,
            row.arm,
            row.kind,
            row.stage,
            row.block,
            row.attempt,
            row.position,
            row.planned_seconds,
            row.state,
            row.reason,
            row.broken_by,
            row.started_at,
            row.ended_at,
            row.boot_id,
        )
        .join(Host, Host.host_id == row.host_id)
        .join(StoredAssignment, (StoredAssignment.run_id == row.run_id) & (StoredAssignment.host_id == row.host_id))
        .where(row.run_id == run_id)
        .order_by(Host.name, row.position, row.attempt)
    )
    frame = _frame(connection.execute(statement), plain=True)
    for name in ("started_at", "ended_at"):  # SQLite's are text
        frame[name] = pd.to_datetime(frame[name], utc=True, format="ISO8601")
    frame.insert(
        list(frame.columns).index("planned_seconds"),
        "seconds",
        (frame["ended_at"] - frame["started_at"]).dt.total_seconds(),
    )
    return frame


def observations(
    connection: Connection,
    run_id: int,
    *,
    metrics: Sequence[str] | None,
    figures: Sequence[str] | None,
    complete_only: bool,
) -> DataFrame:
    """Return one row per period and metric, with what the period was."""
    wanted = FIGURES if figures is None else tuple(name for name in FIGURES if name in figures)
    if unknown := sorted(set(figures or ()) - set(FIGURES)):
        raise StoreError(f"observations have no {unknown[0]}", "figures", f"they have {', '.join(FIGURES)}")
    frame = periods(connection, run_id)
    if complete_only:
        frame = frame[frame["state"] == PeriodState.COMPLETE.value]
    ids = frame["period_id"].to_numpy(dtype=np.int64)
    by_id = np.argsort(ids)
    found = observed(connection, run_id, ids[by_id], metrics=metrics, figures=wanted, complete_only=complete_only)
    # The order is the schedule's, then the metric's name; the databases give it nearly so, without being asked.
    place = by_id[np.searchsorted(ids, found.period_id, sorter=by_id)]
    key = place * len(found.names) + found.metric
    metric, values = found.metric, found.figures
    if (key[1:] < key[:-1]).any():
        order = np.argsort(key, kind="stable")
        place, metric = place[order], metric[order]
        values = {name: column[order] for name, column in values.items()}
    names = pd.Series(found.names, dtype=frame["host"].dtype)
    of_period = {name: frame[name].array.take(place) for name in _OF_PERIOD}
    return pd.DataFrame({**of_period, "metric": names.array.take(metric), **values}, copy=False)


def samples(
    connection: Connection, run_id: int, *, host: str | None, period_ids: Sequence[int] | None, extra: bool
) -> DataFrame:
    """Return one row per sample, metrics by their own names; `extra`: also those without a column of their own."""
    columns = table(SampleRow).columns
    names = [*map(column_of, METRIC_COLUMNS)]
    statement = (
        select(
            columns.period_id,
            Host.name.label("host"),
            StoredPeriod.arm,
            StoredPeriod.kind,
            columns.sequence,
            columns.taken_at,
            columns.boottime_seconds,
            *(columns[name] for name in names),
            *([columns.extra] if extra else []),
        )
        .join(StoredPeriod, StoredPeriod.period_id == columns.period_id)
        .join(Host, Host.host_id == StoredPeriod.host_id)
        .where(StoredPeriod.run_id == run_id)
        .order_by(columns.period_id, columns.sequence)
    )
    if host is not None:
        statement = statement.where(Host.name == host)
    if period_ids is not None:
        statement = statement.where(columns.period_id.in_(list(period_ids)))
    frame = _frame(connection.execute(statement))
    frame = frame.rename(columns=dict(zip(names, METRIC_COLUMNS, strict=True)))
    frame["taken_at"] = pd.to_datetime(frame["taken_at"], utc=True)
    frame[list(METRIC_COLUMNS)] = frame[list(METRIC_COLUMNS)].astype(float)
    if not extra:
        return frame
    others = pd.DataFrame([decoded(one) for one in frame.pop("extra")], index=frame.index, dtype=float)
    return pd.concat([frame, others], axis=1)


def _frame(result: CursorResult[Any], *, plain: bool = False) -> DataFrame:
    """Make a frame column by column: given SQLAlchemy's rows, pandas takes ten times as long, asking each what it is.

    `plain` takes the driver's own tuples: for numbers and text, that no type of ours has to translate.
    """
    names = list(result.keys())
    rows: Sequence[Sequence[object]] = result.cursor.fetchall() if plain and result.cursor else result.all()
    columns: Sequence[Sequence[object]] = list(zip(*rows, strict=True)) or [()] * len(names)
    return pd.DataFrame(dict(zip(names, columns, strict=True)), columns=names)
