"""Trials of huge page sizes: entered as they go on, so that a host that dies of one leaves its trace."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from agents.conformance.verdict import PageVerdict, ScenarioResult, Trial
from fleetexp.store.conformance_tables import ConformanceResultRow, ConformanceRow
from fleetexp.store.documents import to_document
from fleetexp.store.inserts import chunks, insert_new
from fleetexp.store.records import PageSizeRecord


def begin(connection: Connection, trial: Trial, begun_by: str) -> int:
    """Enter a trial that begins; return its number."""
    row = {**to_document(trial), "begun_at": trial.begun_at, "begun_by": begun_by}
    number = connection.execute(insert(ConformanceRow).values(row).returning(ConformanceRow.conformance_id))
    return number.scalar_one()


def add_result(connection: Connection, conformance_id: int, result: ScenarioResult) -> None:
    """Enter the verdict on one scenario, once."""
    whole = to_document(result)
    row = {
        "conformance_id": conformance_id,
        "scenario": result.name,
        "verdict": result.verdict.value,
        "cause": result.cause.value,
        "detail": result.detail,
        "seconds": result.seconds,
        "attempts": result.attempts,
        "found": {name: whole[name] for name in ("checks", "before", "after")},
    }
    insert_new(connection, ConformanceResultRow, [row])


def end(connection: Connection, conformance_id: int, ended_at: datetime, given_up: str) -> None:
    """Enter that a trial has ended, and why it was given up where it was."""
    trial = update(ConformanceRow).where(ConformanceRow.conformance_id == conformance_id)
    connection.execute(trial.values(ended_at=ended_at, given_up=given_up or None))


def of_hosts(connection: Connection, hosts: Collection[str], size_kib: int) -> list[PageSizeRecord]:
    """Return how a page size behaved on these hosts, for each kernel that it was tried under."""
    trial, result = ConformanceRow, ConformanceResultRow
    found: dict[tuple[str, str], PageSizeRecord] = {}
    for piece in chunks(sorted(hosts)):
        statement = (
            select(trial.host, trial.kernel, trial.ended_at, trial.given_up, result.scenario, result.verdict)
            .outerjoin(result, result.conformance_id == trial.conformance_id)
            .where(trial.host.in_(piece), trial.size_kib == size_kib)
            .order_by(trial.conformance_id)
        )
        for row in connection.execute(statement):
            before = found.get((row.host, row.kernel))
            verdicts = dict(before.verdicts) if before is not None else {}
            if row.scenario is not None:
                verdicts[row.scenario] = PageVerdict(row.verdict)
            found[row.host, row.kernel] = PageSizeRecord(
                host=row.host,
                kernel=row.kernel,
                open_trial=row.ended_at is None,
                given_up=row.given_up or "",
                verdicts=verdicts,
            )
    return list(found.values())
