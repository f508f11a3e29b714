"""Rows of the schedule: planned periods, when they ran, how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, literal, select, update

from fleetexp.domain import BrokenBy, PeriodKind, PeriodPlan, PeriodRecord, PeriodState
from fleetexp.store.column_types import Instant
from fleetexp.store.inserts import chunks, insert_new
from fleetexp.store.records import PeriodEnd, PeriodStart
from fleetexp.store.table_base import table
from fleetexp.store.tables import Host, StoredPeriod


def enter(connection: Connection, run_id: int, schedules: Iterable[tuple[int, Sequence[PeriodPlan]]]) -> None:
    """Enter planned periods, given as (number of the host, its periods); those that are there stay as they are."""
    rows = [
        {
            "run_id": run_id,
            "host_id": host_id,
            "position": period.index,
            "attempt": period.attempt,
            "kind": period.kind.value,
            "arm": period.arm,
            "block": period.block,
            "stage": period.stage,
            "planned_seconds": period.seconds,
            "state": PeriodState.PLANNED.value,
            "reason": "",
            "broken_by": BrokenBy.NOTHING.value,
        }
        for host_id, periods in schedules
        for period in periods
    ]
    insert_new(connection, StoredPeriod, rows)


def add(connection: Connection, run_id: int, host_id: int, periods: Sequence[PeriodPlan]) -> list[int]:
    """Enter periods of one host and return their numbers, in the order given."""
    enter(connection, run_id, [(host_id, periods)])
    statement = select(StoredPeriod.position, StoredPeriod.attempt, StoredPeriod.period_id).where(
        StoredPeriod.run_id == run_id, StoredPeriod.host_id == host_id
    )
    numbers = {(found.position, found.attempt): found.period_id for found in connection.execute(statement)}
    return [numbers[period.index, period.attempt] for period in periods]


def listed(connection: Connection, run_id: int) -> list[PeriodRecord]:
    """Return the periods of a run by host, place in its schedule, and attempt."""
    row = StoredPeriod
    statement = (
        select(
            row.period_id,
            Host.name,
            row.position,
            row.attempt,
            row.kind,
            row.arm,
            row.block,
            row.stage,
            row.planned_seconds,
            row.state,
            row.reason,
            row.started_at,
            row.ended_at,
            row.broken_by,
        )
        .join(Host, Host.host_id == row.host_id)
        .where(row.run_id == run_id)
        .order_by(Host.name, row.position, row.attempt)
    )
    return [
        PeriodRecord(
            period_id=found.period_id,
            host=found.name,
            plan=PeriodPlan(
                index=found.position,
                kind=PeriodKind(found.kind),
                arm=found.arm,
                block=found.block,
                stage=found.stage,
                seconds=found.planned_seconds,
                attempt=found.attempt,
            ),
            state=PeriodState(found.state),
            reason=found.reason,
            started_at=found.started_at,
            ended_at=found.ended_at,
            broken_by=BrokenBy(found.broken_by),
        )
        for found in connection.execute(statement)
    ]


def start(connection: Connection, starts: Sequence[PeriodStart]) -> None:
    rows = [
        {"key": one.period_id, "state": PeriodState.RUNNING.value, "started_at": one.started_at, "boot_id": one.boot_id}
        for one in starts
    ]
    _change(connection, rows)


def end(connection: Connection, ends: Sequence[PeriodEnd]) -> None:
    rows = [
        {
            "key": one.period_id,
            "state": one.state.value,
            "ended_at": one.ended_at,
            "reason": one.reason,
            "broken_by": one.broken_by.value,
        }
        for one in ends
    ]
    _change(connection, rows)


def _change(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Set the same columns of many periods; `key` says which."""
    if not rows:
        return
    columns = table(StoredPeriod).columns
    values: dict[str, Any] = {name: bindparam(name) for name in rows[0] if name != "key"}
    statement = update(table(StoredPeriod)).where(columns.period_id == bindparam("key")).values(**values)
    for piece in chunks(rows):
        connection.execute(statement, list(piece))


def void_block(
    connection: Connection,
    run_id: int,
    host_id: int,
    *,
    block: int,
    attempt: int,
    reason: str,
    broken_by: BrokenBy,
    at: datetime,
) -> None:
    """Strike out a block of a host in one statement; what is invalid already keeps its reason and what broke it.

    `broken_by` broke the period that was under way; the others are whole or were not begun: their block broke.
    """
    row = StoredPeriod
    ours = (row.run_id == run_id, row.host_id == host_id, row.block == block, row.attempt == attempt)
    statement = (
        update(row)
        .where(*ours, row.state != PeriodState.INVALID.value)
        .values(
            state=PeriodState.INVALID.value,
            reason=reason,
            broken_by=case((row.state == PeriodState.RUNNING.value, broken_by.value), else_=BrokenBy.BLOCK.value),
            ended_at=func.coalesce(row.ended_at, literal(at, Instant())),
        )
    )
    connection.execute(statement)
