"""Rows that say who did what: writes to kernel settings, facts of hosts, events."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Text, insert, literal, select

from agents.messages import CountedEvent, HostEventKind, HostFacts, KnobChange, KnobReason
from agents.traced_calls import TracedCalls
from fleetexp.domain import EventKind, RunCause, RunState
from fleetexp.store.directory import Directory
from fleetexp.store.documents import from_document, to_document
from fleetexp.store.inserts import chunks, insert_new
from fleetexp.store.records import AnyKind, CountedRecord, EventRecord
from fleetexp.store.tables import CountedEventRow, Event, Host, HostFactsRow, KnobChangeRow, TracedCallRow
from fleetexp.store.values import clean_text

_KINDS: dict[str, AnyKind] = {kind.value: kind for kind in (*HostEventKind, *EventKind)}
_OF_EVENT = ("host_id", "period_id", "at", "kind", "detail", "state", "cause", "stage", "metric")


def add_knob_changes(
    connection: Connection, directory: Directory, run_id: int, changes: Mapping[str, Sequence[KnobChange]]
) -> None:
    host_ids = directory.hosts(connection, changes)
    rows = [
        {
            "run_id": run_id,
            "host_id": host_ids[host],
            "knob": change.knob,
            "before": change.before,
            "wanted": change.wanted,
            "after": change.after,
            "reason": change.reason.value,
            "error": change.error,
            "changed_at": change.changed_at,
        }
        for host, of_host in changes.items()
        for change in of_host
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


def add_host_facts(
    connection: Connection,
    directory: Directory,
    run_id: int,
    every_hosts: Sequence[HostFacts],
    events: Collection[str],
) -> None:
    """Enter what hosts were, and what each of the metrics `events` counts there."""
    host_ids = directory.hosts(connection, {facts.host for facts in every_hosts})
    rows = [
        {
            "run_id": run_id,
            "host_id": host_ids[facts.host],
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
        for facts in every_hosts
    ]
    insert_new(connection, HostFactsRow, rows)
    counted = {
        facts.host: {metric: one for metric in events if (one := facts.counted(metric)) is not None}
        for facts in every_hosts
    }
    add_counted_events(connection, directory, run_id, counted)


def add_counted_events(
    connection: Connection, directory: Directory, run_id: int, counted: Mapping[str, Mapping[str, CountedEvent]]
) -> None:
    """Enter what metrics of perf events count, by host and metric, each once."""
    host_ids = directory.hosts(connection, counted)
    rows = [
        {
            "run_id": run_id,
            "host_id": host_ids[host],
            "metric": metric,
            "event": one.event,
            "encoding": one.encoding,
            "pmu": one.pmu,
            "scope": "cgroup" if one.in_cgroup else "host",
            "meaning": one.meaning,
        }
        for host, metrics in counted.items()
        for metric, one in metrics.items()
    ]
    if rows:
        insert_new(connection, CountedEventRow, rows)


def add_traced_calls(connection: Connection, calls: Mapping[int, Sequence[TracedCalls]]) -> None:
    """Enter the calls that were traced, by period; what is there already stays."""
    rows = [
        {
            "period_id": period_id,
            "function": one.function.value,
            "program": clean_text(one.program),
            "cause": "" if one.cause is None else one.cause.value,
            "calls": one.calls,
            "timed": one.timed,
            "seconds": one.seconds,
            "longest_seconds": one.longest_seconds,
        }
        for period_id, of_period in calls.items()
        for one in of_period
    ]
    if rows:
        insert_new(connection, TracedCallRow, rows)


def counted_events(connection: Connection, run_id: int) -> list[CountedRecord]:
    """Return what metrics of perf events counted on the hosts of a run, by host and metric."""
    row = CountedEventRow
    statement = (
        select(Host.name.label("host"), row.metric, row.event, row.encoding, row.pmu, row.scope, row.meaning)
        .join(Host, Host.host_id == row.host_id)
        .where(row.run_id == run_id)
        .order_by(Host.name, row.metric, row.event, row.encoding)
    )
    return [CountedRecord(**found) for found in connection.execute(statement).mappings()]


def host_facts(connection: Connection, run_id: int) -> list[HostFacts]:
    """Return the newest facts of each host of a run, by host."""
    row = HostFactsRow
    statement = select(row.host_id, row.facts).where(row.run_id == run_id).order_by(row.taken_at)
    newest = {found.host_id: found.facts for found in connection.execute(statement)}
    return sorted((from_document(HostFacts, facts) for facts in newest.values()), key=lambda facts: facts.host)


def page_bytes(connection: Connection, run_id: int) -> dict[str, tuple[int, int]]:
    """Return the sizes of a base page and of a PMD's huge page, 0 where not known, of each host of a run."""
    row = HostFactsRow
    base, pmd = (row.facts.op("->>")(literal(name, Text())) for name in ("base_page_bytes", "thp_pmd_kib"))
    statement = select(Host.name, base, pmd).join(Host, Host.host_id == row.host_id).where(row.run_id == run_id)
    rows = connection.execute(statement.order_by(row.taken_at))
    return {host: (int(of_base or 0), int(of_pmd or 0) * 1024) for host, of_base, of_pmd in rows}


def add_event(connection: Connection, run_id: int, event: EventRecord) -> None:
    """Enter something that happened to the whole run."""
    connection.execute(
        insert(Event).values(run_id=run_id, **dict(zip(_OF_EVENT, _event_row(event, None), strict=True)))
    )


def add_events(connection: Connection, directory: Directory, run_id: int, happened: Sequence[EventRecord]) -> None:
    """Enter events, each once: the same one at the same instant is not entered again."""
    host_ids = directory.hosts(connection, {event.host for event in happened if event.host})
    rows = {_event_row(event, host_ids[event.host] if event.host else None): None for event in happened}
    there: set[tuple[Any, ...]] = set()
    columns = [getattr(Event, name) for name in _OF_EVENT]
    for piece in chunks(list({event.at for event in happened})):
        found = connection.execute(select(*columns).where(Event.run_id == run_id, Event.at.in_(piece)))
        there.update(tuple(one) for one in found)
    new = [{"run_id": run_id, **dict(zip(_OF_EVENT, row, strict=True))} for row in rows if row not in there]
    insert_new(connection, Event, new)


def _event_row(event: EventRecord, host_id: int | None) -> tuple[Any, ...]:
    """Return the values of the columns _OF_EVENT."""
    return (
        host_id,
        event.period_id or None,
        event.at,
        event.kind.value,
        clean_text(event.detail),
        None if event.state is None else event.state.value,
        event.cause.value or None,
        event.stage,
        clean_text(event.metric) or None,
    )


def events(connection: Connection, run_id: int, kinds: Collection[AnyKind] | None = None) -> list[EventRecord]:
    event = Event
    statement = (
        select(
            event.at,
            Host.name,
            event.period_id,
            event.kind,
            event.detail,
            event.state,
            event.cause,
            event.stage,
            event.metric,
        )
        .join(Host, Host.host_id == Event.host_id, isouter=True)
        .where(Event.run_id == run_id)
        .order_by(Event.at, Event.event_id)
    )
    if kinds is not None:
        statement = statement.where(Event.kind.in_(sorted(kinds)))
    return [
        EventRecord(
            at=found.at,
            host=found.name or "",
            period_id=found.period_id or 0,
            kind=_KINDS[found.kind],
            detail=found.detail,
            state=RunState(found.state) if found.state is not None else None,
            cause=RunCause(found.cause or ""),
            stage=found.stage,
            metric=found.metric or "",
        )
        for found in connection.execute(statement)
    ]
