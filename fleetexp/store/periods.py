"""Rows of the schedule: planned periods, when they ran, how they ended."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from fleetexp.domain import PeriodKind, PeriodPlan, PeriodRecord, PeriodState
from fleetexp.errors import NoSuchRun
from fleetexp.store.audit import host_number
from fleetexp.store.inserts import insert_new
from fleetexp.store.tables import Host, Period


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
        }
        for host_id, periods in schedules
        for period in periods
    ]
    insert_new(connection, Period, rows)


def add(connection: Connection, run_id: int, host: str, periods: Sequence[PeriodPlan]) -> list[int]:
    """Enter periods of one host and return their numbers, in the order given."""
    host_id = host_number(connection, host)
    enter(connection, run_id, [(host_id, periods)])
    statement = select(Period.position, Period.attempt, Period.period_id).where(
        Period.run_id == run_id, Period.host_id == host_id
    )
    numbers = {(found.position, found.attempt): found.period_id for found in connection.execute(statement)}
    return [numbers[period.index, period.attempt] for period in periods]


def listed(connection: Connection, run_id: int) -> list[PeriodRecord]:
    """Return the periods of a run by host, place in its schedule, and attempt."""
    row = Period
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
        )
        for found in connection.execute(statement)
    ]


def start(connection: Connection, period_id: int, started_at: datetime, boot_id: str) -> None:
    values = {"state": PeriodState.RUNNING.value, "started_at": started_at, "boot_id": boot_id}
    _change(connection, period_id, values)


def end(connection: Connection, period_id: int, ended_at: datetime, state: PeriodState, reason: str) -> None:
    _change(connection, period_id, {"state": state.value, "ended_at": ended_at, "reason": reason})


def _change(connection: Connection, period_id: int, values: Mapping[str, Any]) -> None:
    if connection.execute(update(Period).where(Period.period_id == period_id).values(**values)).rowcount == 0:
        raise NoSuchRun(f"there is no period {period_id}", f"period {period_id}", "it belongs to another database")
