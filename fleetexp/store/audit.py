"""Rows that say who did what: writes to kernel settings, facts of hosts, events."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sqlalchemy import Connection, insert, select

from agents.messages import HostFacts, KnobChange, KnobReason
from fleetexp.errors import NoSuchRun
from fleetexp.store.documents import from_document, to_document
from fleetexp.store.inserts import insert_new
from fleetexp.store.records import EventRecord
from fleetexp.store.tables import Event, Host, HostFactsRow, KnobChangeRow


def host_number(connection: Connection, host: str) -> int:
    """Return the number of a host; NoSuchRun where no plan ever named it."""
    found = connection.execute(select(Host.host_id).where(Host.name == host)).scalar()
    if found is None:
        raise NoSuchRun(f"no run has a host {host!r}", host, "check the name; 'fleetexp runs' lists the runs")
    return found


def add_knob_changes(connection: Connection, run_id: int, host: str, changes: Sequence[KnobChange]) -> None:
    host_id = host_number(connection, host)
    rows = [
        {
            "run_id": run_id,
            "host_id": host_id,
            "knob": change.knob,
            "before": change.before,
            "wanted": change.wanted,
            "after": change.after,
            "reason": change.reason.value,
            "error": change.error,
            "changed_at": change.changed_at,
        }
        for change in changes
    ]
    insert_new(connection, KnobChangeRow, rows)


def knob_changes(connection: Connection, run_id: int) -> list[tuple[str, KnobChange]]:
    row = KnobChangeRow
    statement = (
        select(Host.name, row.knob, row.before, row.wanted, row.after, row.reason, row.error, row.changed_at)
        .join(Host, Host.host_id == row.host_id)
        .where(row.run_id == run_id)
        .order_by(row.changed_at, row.knob_change_id)
    )
    return [
        (
            found.name,
            KnobChange(
                knob=found.knob,
                before=found.before,
                wanted=found.wanted,
                after=found.after,
                reason=KnobReason(found.reason),
                error=found.error,
                changed_at=found.changed_at,
            ),
        )
        for found in connection.execute(statement)
    ]


def add_host_facts(connection: Connection, run_id: int, facts: HostFacts) -> None:
    row = {
        "run_id": run_id,
        "host_id": host_number(connection, facts.host),
        "taken_at": facts.taken_at,
        "boot_id": facts.boot_id,
        "kernel": facts.kernel,
        "architecture": facts.architecture,
        "cpu_model": facts.cpu_model,
        "cpus": facts.cpus,
        "numa_nodes": facts.numa_nodes,
        "memory_total_bytes": facts.memory_total_bytes,
        "virtualisation": facts.virtualisation,
        "facts": to_document(facts),
    }
    insert_new(connection, HostFactsRow, [row])


def host_facts(connection: Connection, run_id: int) -> list[HostFacts]:
    """Return the newest facts of each host of a run, by host."""
    row = HostFactsRow
    statement = select(row.host_id, row.facts).where(row.run_id == run_id).order_by(row.taken_at)
    newest = {found.host_id: found.facts for found in connection.execute(statement)}
    return sorted((from_document(HostFacts, facts) for facts in newest.values()), key=lambda facts: facts.host)


def add_event(
    connection: Connection, run_id: int, kind: str, detail: str, *, host: str | None = None, at: datetime | None = None
) -> None:
    """Enter an event once: the same one with the same instant is not entered again."""
    host_id = host_number(connection, host) if host is not None else None
    found = select(Event.event_id).where(
        Event.run_id == run_id,
        Event.host_id == host_id if host_id is not None else Event.host_id.is_(None),
        Event.kind == kind,
        Event.detail == detail,
    )
    if at is not None and connection.execute(found.where(Event.at == at)).first() is not None:
        return
    values = {"run_id": run_id, "host_id": host_id, "kind": kind, "detail": detail, "at": at or datetime.now(UTC)}
    connection.execute(insert(Event).values(**values))


def events(connection: Connection, run_id: int) -> list[EventRecord]:
    statement = (
        select(Event.at, Host.name, Event.period_id, Event.kind, Event.detail)
        .join(Host, Host.host_id == Event.host_id, isouter=True)
        .where(Event.run_id == run_id)
        .order_by(Event.at, Event.event_id)
    )
    return [
        EventRecord(
            at=found.at,
            host=found.name or "",
            period_id=found.period_id or 0,
            kind=found.kind,
            detail=found.detail,
        )
        for found in connection.execute(statement)
    ]
