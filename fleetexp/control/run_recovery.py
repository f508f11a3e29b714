"""What the audit trail says of a run: where a halt was heading, who is out for good, who was never seen restored."""

from __future__ import annotations

from collections.abc import Iterable

from fleetexp.control.resumption import Past
from fleetexp.domain import EventKind, Goal, RunCause, RunState
from fleetexp.store.records import LIVE, EventRecord, RunRecord
from fleetexp.store.store import Store

_TROUBLE = frozenset({EventKind.HOST_FAILED, EventKind.HOST_LOST, EventKind.TRIPWIRE, EventKind.RESTORE_FAILED})
# Who asked for what, and who let a run go on: what `fleetexp status` shows of the audit trail.
PEOPLE = frozenset(
    {
        EventKind.LAUNCHED,
        EventKind.RESUMED,
        EventKind.AWAITING_APPROVAL,
        EventKind.APPROVE_REQUESTED,
        EventKind.APPROVED,
        EventKind.PAUSE_REQUESTED,
        EventKind.ABORT_REQUESTED,
    }
)


def past_of(store: Store, record: RunRecord) -> Past:
    """Return what a run that goes on must not forget."""
    events = store.events(record.run_id)
    return Past(
        goal=halt_under_way(record, events),
        tripped={one.host: f"{one.metric}: {one.detail}" for one in store.crossings(record.run_id)},
        troubled=_troubled(events),
    )


def halt_under_way(record: RunRecord, events: Iterable[EventRecord]) -> Goal | None:
    """Return where a halt was heading that the orchestrator did not live to finish: a sick kernel, an abort."""
    if record.state not in (*LIVE, RunState.RESTORE_INCOMPLETE):
        return None
    last = [event for event in events if event.kind in {EventKind.HALTING_TO, EventKind.RESUMED}][-1:]
    if not last or last[0].state in {None, RunState.PAUSED}:
        return None
    return Goal(state=last[0].state, cause=last[0].cause, reason=last[0].detail)


def _troubled(events: Iterable[EventRecord]) -> frozenset[str]:
    """The hosts that failed or were lost; where somebody lets a paused run go on, the count begins anew.

    Also a run that was to pause and could not reach every host: a lost Ray head takes all of them with it, and hosts
    that are still away are lost, and counted, again.
    """
    found: set[str] = set()
    rests = {RunState.PAUSED}
    for event in events:
        if event.kind is EventKind.HALTING_TO:
            pausing = event.state is RunState.PAUSED
            rests = {RunState.PAUSED, *([RunState.RESTORE_INCOMPLETE] if pausing else [])}
        elif event.kind is EventKind.STATE and event.state in rests:
            found.clear()
        elif event.kind in _TROUBLE and event.host:
            found.add(event.host)
    return frozenset(found)


def awaits_approval(record: RunRecord) -> bool:
    """Whether a stage waits for somebody to let the next one open."""
    return record.state is RunState.RUNNING and record.cause is RunCause.APPROVAL


def unrestored(events: Iterable[EventRecord]) -> dict[str, str]:
    """Return the hosts that were not seen as they were found, each with the reason."""
    found: dict[str, str] = {}
    for event in events:
        if event.kind is EventKind.NOT_RESTORED:
            found[event.host] = event.detail
        elif event.kind is EventKind.RESTORED:
            found.pop(event.host, None)
    return found
