"""The observations of a run as columns of NumPy, by the quickest way of each database: most of a read is unpacking.

SQLite's driver makes a tuple of each row, which goes straight into one array. PostgreSQL packs each column of many
periods into one binary array: a message and a tuple for each row would take twice as long as the query.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
import psycopg
from numpy.typing import NDArray
from sqlalchemy import ColumnElement, Connection, Select, func, select

from fleetexp.domain import PeriodState
from fleetexp.store.tables import Observation, StoredPeriod

_KEY = ("period_id", "metric")
_TYPES = {"period_id": "i8", "metric": "O", "n": "i8"}  # all else is f8, NULL is NaN
_PERIODS_AT_ONCE = 4_096  # of one PostgreSQL array: some hundred thousand rows
_ARRAY_HEAD_BYTES = 20  # one dimension: their number, a flag, the type, the length, the first index


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """One entry per observation, in no order: `metric` is the place of its name in `names`, which are sorted."""

    period_id: NDArray[np.int64]
    metric: NDArray[np.intp]
    names: tuple[str, ...]
    figures: dict[str, NDArray[np.generic]]


def observed(
    connection: Connection,
    run_id: int,
    period_ids: NDArray[np.int64],
    *,
    metrics: Sequence[str] | None,
    figures: Sequence[str],
    complete_only: bool,
) -> Observed:
    """Read these figures of a run's observations; `period_ids` are its periods, sorted."""
    chosen = [StoredPeriod.run_id == run_id]
    if complete_only:
        chosen.append(StoredPeriod.state == PeriodState.COMPLETE.value)
    if metrics is not None:
        chosen.append(Observation.metric.in_(list(metrics)))
    joined = (
        select(Observation.period_id).join(StoredPeriod, StoredPeriod.period_id == Observation.period_id).where(*chosen)
    )
    if connection.dialect.name == "postgresql":
        parts = list(_from_postgresql(connection, joined, (*_KEY, *figures), period_ids))
    else:
        parts = [_from_sqlite(connection, joined, (*_KEY, *figures))]
    columns = {
        name: np.concatenate([np.empty(0, _type_of(name)), *(part[name] for part in parts)])
        for name in (*_KEY, *figures)
    }
    metric, names = pd.factorize(columns["metric"], sort=True)
    return Observed(
        period_id=columns["period_id"],
        metric=metric,
        names=tuple(names),
        figures={name: columns[name] for name in figures},
    )


def _type_of(name: str) -> str:
    return _TYPES.get(name, "f8")


def _from_sqlite(connection: Connection, joined: Select[int], names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    result = connection.execute(joined.with_only_columns(*(getattr(Observation, name) for name in names)))
    # The driver's own rows: nothing here needs a type of ours.
    driver = cast("Iterable[tuple[object, ...]]", result.cursor)
    rows = np.fromiter(driver, np.dtype([(name, _type_of(name)) for name in names]))
    return {name: np.ascontiguousarray(rows[name]) for name in names}


def _from_postgresql(
    connection: Connection, joined: Select[int], names: Sequence[str], period_ids: NDArray[np.int64]
) -> Iterator[dict[str, NDArray[np.generic]]]:
    driver = connection.connection.driver_connection
    assert isinstance(driver, psycopg.Connection)  # noqa: S101 - the one driver of open_engine
    packed = [_packed(name) for name in names]
    for start in range(0, len(period_ids), _PERIODS_AT_ONCE):
        piece = period_ids[start : start + _PERIODS_AT_ONCE]
        statement = joined.with_only_columns(*packed).where(
            StoredPeriod.period_id.between(int(piece[0]), int(piece[-1]))
        )
        compiled = statement.compile(connection, compile_kwargs={"render_postcompile": True})
        with driver.cursor(binary=True) as cursor:
            (row,) = cursor.execute(compiled.string.encode(), compiled.params)
        if row[0] is not None:
            yield {name: _unpacked(name, value) for name, value in zip(names, row, strict=True)}


def _packed(name: str) -> ColumnElement[Any]:
    """One array of a column's values; of numbers its bytes, where NULL would have no place."""
    column = getattr(Observation, name)
    if name == "metric":
        return func.array_agg(column)
    return func.array_send(func.array_agg(func.coalesce(column, float("nan")) if name == "rise" else column))


def _unpacked(name: str, value: bytes | list[str]) -> NDArray[np.generic]:
    """Take the values out of an array as PostgreSQL sends it: each after its length, high byte first."""
    if not isinstance(value, bytes):
        return np.array(value, dtype=object)
    own = _type_of(name)
    cells = np.frombuffer(value, np.dtype([("length", ">i4"), ("value", f">{own}")]), offset=_ARRAY_HEAD_BYTES)
    return cells["value"].astype(own)
