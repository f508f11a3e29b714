"""Rows of experiments, runs and hosts: entering a run, its states, what is asked of it."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, insert, select, update

from analysis.results import Decision
from fleetexp.domain import EventKind, Origin, Plan, RunCause, RunState
from fleetexp.errors import NoSuchRun
from fleetexp.store import periods
from fleetexp.store.audit import add_event
from fleetexp.store.documents import from_document, to_document
from fleetexp.store.inserts import chunks, insert_new
from fleetexp.store.records import LIVE, EventRecord, RunRecord
from fleetexp.store.tables import Host, Run, StoredAssignment, StoredExperiment


def enter_experiment(
    connection: Connection,
    *,
    experiment_name: str,
    hypothesis: str,
    spec_text: str,
    spec_json: Any,  # noqa: ANN401 - JSON is anything
    plan: Plan,
) -> None:
    """Enter what several runs share, as far as it is not there: the experiment, by name and spec, and the hosts.

    Whoever enters the same at the same time waits for the end of the transaction: so it is a short one of its own, and
    hosts go in by name, because two who wait for each other would wait for ever.
    """
    now = datetime.now(UTC)
    experiment = {
        "name": experiment_name,
        "hypothesis": hypothesis,
        "spec_hash": _hash(spec_text),
        "spec_text": spec_text,
        "spec": spec_json,
        "created_at": now,
    }
    insert_new(connection, StoredExperiment, [experiment])
    names = sorted({unit.host for unit in plan.units})
    insert_new(connection, Host, [{"name": name, "first_seen_at": now} for name in names])


def _hash(spec_text: str) -> str:
    return hashlib.sha256(spec_text.encode()).hexdigest()


def create(
    connection: Connection,
    *,
    experiment_name: str,
    spec_text: str,
    plan: Plan,
    launched_by: str,
    versions: Mapping[str, str],
    fleet: str,
    origin: Origin = Origin.FLEET,
    changed: Mapping[str, datetime] | None = None,
) -> int:
    """Enter a run with everything that is planned; its experiment and hosts are there already.

    `changed`, of an import: host -> since when it is changed.
    """
    now = datetime.now(UTC)
    experiment_id = connection.execute(
        select(StoredExperiment.experiment_id).where(
            StoredExperiment.name == experiment_name, StoredExperiment.spec_hash == _hash(spec_text)
        )
    ).scalar_one()
    values = {
        "experiment_id": experiment_id,
        "state": RunState.PLANNED.value,
        "reason": "",
        "origin": origin.value,
        "design": plan.design.value,
        "control_arm": plan.control,
        "seed": plan.seed,
        "plan": to_document(plan),
        "launched_by": launched_by,
        "fleet": fleet,
        "versions": dict(versions),
        "created_at": now,
    }
    run_id = connection.execute(insert(Run).values(**values).returning(Run.run_id)).scalar_one()
    hosts = host_numbers(connection, [unit.host for unit in plan.units])
    assigned = [
        {
            "run_id": run_id,
            "host_id": hosts[unit.host],
            "stratum": unit.stratum,
            "arm": unit.arm,
            "stage": unit.stage,
            "changed_at": (changed or {}).get(unit.host),
        }
        for unit in plan.units
    ]
    insert_new(connection, StoredAssignment, assigned)
    periods.enter(connection, run_id, [(hosts[unit.host], unit.periods) for unit in plan.units])
    kind = EventKind.LAUNCHED if origin is Origin.FLEET else EventKind.IMPORTED
    add_event(connection, run_id, EventRecord(at=now, kind=kind, detail=f"by {launched_by}"))
    return run_id


def host_numbers(connection: Connection, names: list[str]) -> dict[str, int]:
    """Return the number of each of these hosts."""
    return {
        found.name: found.host_id
        for piece in chunks(names)
        for found in connection.execute(select(Host.name, Host.host_id).where(Host.name.in_(piece)))
    }


def one(connection: Connection, run_id: int) -> RunRecord:
    found = connection.execute(_records().where(Run.run_id == run_id)).first()
    if found is None:
        raise no_such_run(run_id)
    return _record(found)


def every(connection: Connection) -> list[RunRecord]:
    return [_record(found) for found in connection.execute(_records().order_by(Run.run_id))]


def no_such_run(run_id: int) -> NoSuchRun:
    return NoSuchRun(f"there is no run {run_id}", f"run {run_id}", "'fleetexp runs' lists those there are")


def _records() -> Select[*tuple[Any, ...]]:
    return select(
        Run.run_id,
        StoredExperiment.name,
        StoredExperiment.hypothesis,
        StoredExperiment.spec_text,
        Run.state,
        Run.cause,
        Run.reason,
        Run.origin,
        Run.created_at,
        Run.started_at,
        Run.ended_at,
        Run.plan,
        Run.launched_by,
        Run.fleet,
        Run.versions,
        Run.decision,
        Run.decision_reason,
    ).join(StoredExperiment, StoredExperiment.experiment_id == Run.experiment_id)


def _record(found: Row[*tuple[Any, ...]]) -> RunRecord:
    return RunRecord(
        run_id=found.run_id,
        experiment=found.name,
        hypothesis=found.hypothesis,
        state=RunState(found.state),
        cause=RunCause(found.cause or ""),
        reason=found.reason,
        origin=Origin(found.origin),
        created_at=found.created_at,
        started_at=found.started_at,
        ended_at=found.ended_at,
        spec_text=found.spec_text,
        plan=from_document(Plan, found.plan),
        launched_by=found.launched_by,
        fleet=found.fleet,
        versions=found.versions,
        decision=Decision(found.decision) if found.decision is not None else None,
        decision_reason=found.decision_reason or "",
    )


def enter_state(
    connection: Connection, run_id: int, state: RunState, *, reason: str, cause: RunCause, now: datetime
) -> None:
    """Note the state of a run, and when it began and ended.

    A run that starts again forgets a pause or an approval that nobody was there to hear; an abort still holds.
    """
    row = _locked(connection, run_id)
    if row is None:
        raise no_such_run(run_id)
    values: dict[str, Any] = {
        "state": state.value,
        "cause": cause.value or None,
        "reason": reason,
        "ended_at": now if state.is_terminal else None,
    }
    if state is RunState.RUNNING and row.started_at is None:
        values["started_at"] = now
    if state is RunState.PREFLIGHT and row.request in {"pause", "approve"}:
        values |= {"request": None, "requested_by": None}
    connection.execute(update(Run).where(Run.run_id == run_id).values(**values))
    if (row.state, row.reason) != (state.value, reason):
        said = f"{state.value}: {reason}" if reason else state.value
        add_event(connection, run_id, EventRecord(at=now, kind=EventKind.STATE, detail=said, state=state, cause=cause))


def ask(connection: Connection, run_id: int, how: str, who: str) -> None:
    """Leave a request for the process that drives a run; an abort is not weakened to a pause."""
    row = _locked(connection, run_id)
    if row is None:
        raise no_such_run(run_id)
    if row.request != "abort":
        connection.execute(update(Run).where(Run.run_id == run_id).values(request=how, requested_by=who))
    event = EventRecord(at=datetime.now(UTC), kind=EventKind(f"{how}_requested"), detail=f"by {who}")
    add_event(connection, run_id, event)


def waiting_request(connection: Connection, run_id: int) -> tuple[str, str] | None:
    """Return what is asked of a run and by whom, and leave it there; no lock is taken for that."""
    row = connection.execute(select(Run.request, Run.requested_by).where(Run.run_id == run_id)).first()
    return None if row is None or row.request is None else (row.request, row.requested_by or "")


def take_request(connection: Connection, run_id: int) -> tuple[str, str] | None:
    """Return what was asked of a run and by whom, and forget it."""
    row = _locked(connection, run_id)
    if row is None or row.request is None:
        return None
    connection.execute(update(Run).where(Run.run_id == run_id).values(request=None, requested_by=None))
    return row.request, row.requested_by or ""


def _locked(connection: Connection, run_id: int) -> Row[*tuple[Any, ...]] | None:
    """Read what may change under us, and keep other writers of this run out until the transaction ends."""
    columns = (Run.state, Run.reason, Run.started_at, Run.request, Run.requested_by)
    return connection.execute(select(*columns).where(Run.run_id == run_id).with_for_update(key_share=True)).first()


def holding(connection: Connection, hosts: Collection[str]) -> dict[str, int]:
    """Return, of these hosts, those that a run holds, and the newest run that does."""
    live = [state.value for state in LIVE]
    return {
        found.name: found.run_id
        for piece in chunks(list(hosts))
        for found in connection.execute(
            select(Host.name, Run.run_id)
            .join(StoredAssignment, StoredAssignment.run_id == Run.run_id)
            .join(Host, Host.host_id == StoredAssignment.host_id)
            .where(Host.name.in_(piece), Run.state.in_(live))
            .order_by(Run.run_id)
        )
    }
