"""What a metrics' server was asked in a run, and which periods have a value by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

from sqlalchemy import Connection, insert, select

from fleetexp.domain import CentralGap, CentralOutcome
from fleetexp.store.inserts import insert_new
from fleetexp.store.records import CentralRequest, CentralValue
from fleetexp.store.table_base import table
from fleetexp.store.tables import CentralAnswerRow, CentralValueRow, StoredPeriod
from fleetexp.store.values import clean_text

_OF_REQUEST = tuple(field.name for field in fields(CentralRequest))


def add_requests(connection: Connection, run_id: int, asked: Sequence[CentralRequest]) -> None:
    rows = [
        {
            **asdict(one),
            "run_id": run_id,
            "outcome": one.outcome.value,
            "detail": clean_text(one.detail),
            "warnings": [clean_text(text) for text in one.warnings],
        }
        for one in asked
    ]
    if rows:
        connection.execute(insert(table(CentralAnswerRow)), rows)


def requests(connection: Connection, run_id: int) -> list[CentralRequest]:
    row = CentralAnswerRow
    statement = select(*(getattr(row, name) for name in _OF_REQUEST)).where(row.run_id == run_id)
    return [
        CentralRequest(
            **{**found, "outcome": CentralOutcome(found["outcome"]), "warnings": tuple(found["warnings"] or ())}
        )
        for found in connection.execute(statement.order_by(row.central_answer_id)).mappings()
    ]


def add_values(connection: Connection, found: Sequence[CentralValue]) -> None:
    insert_new(connection, CentralValueRow, [{**asdict(one), "gap": one.gap.value} for one in found])


def values(connection: Connection, run_id: int) -> list[CentralValue]:
    row = CentralValueRow
    statement = (
        select(row.period_id, row.metric, row.due, row.read, row.gap)
        .join(StoredPeriod, StoredPeriod.period_id == row.period_id)
        .where(StoredPeriod.run_id == run_id)
        .order_by(row.period_id, row.metric)
    )
    return [
        CentralValue(**{**found, "gap": CentralGap(found["gap"])}) for found in connection.execute(statement).mappings()
    ]
