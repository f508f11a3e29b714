"""What the audit trail says of a run: where a halt was heading, who is out for good, who was never seen restored."""

from __future__ import annotations

from collections.abc import Iterable

from fleetexp.domain import RunState
from fleetexp.orchestrator.machine import AWAITING_APPROVAL, HALTING_TO, NOT_RESTORED, RESTORED, Gate
from fleetexp.orchestrator.resumption import Past
from fleetexp.store.records import LIVE, EventRecord, RunRecord
from fleetexp.store.store import Store

_TROUBLE = frozenset({"host_failed", "host_lost", "tripwire", "restore_failed"})
# Who asked for what, and who let a run go on: what `fleetexp status` shows of the audit trail.
PEOPLE = frozenset(
    {"launched", "resumed", AWAITING_APPROVAL, "approve_requested", "approved", "pause_requested", "abort_requested"}
)


def past_of(store: Store, record: RunRecord) -> Past:
    """Return what a run that goes on must not forget."""
    events = store.events(record.run_id)
    return Past(
        goal=halt_under_way(record, events),
        tripped={one.host: f"{one.metric}: {one.detail}" for one in store.crossings(record.run_id)},
        troubled=_troubled(events),
    )


def halt_under_way(record: RunRecord, events: Iterable[EventRecord]) -> tuple[RunState, str] | None:
    """Return where a halt was heading that the orchestrator did not live to finish: a sick kernel, an abort."""
    if record.state not in (*LIVE, RunState.RESTORE_INCOMPLETE):
        return None
    last = [event for event in events if event.kind in {HALTING_TO, "resumed"}][-1:]
    if not last or last[0].kind != HALTING_TO:
        return None
    state, _, reason = last[0].detail.partition(": ")
    return None if state == RunState.PAUSED.value else (RunState(state), reason)


def _troubled(events: Iterable[EventRecord]) -> frozenset[str]:
    """The hosts that failed or were lost; where somebody lets a paused run go on, the count begins anew.

    Also a run that was to pause and could not reach every host: a lost Ray head takes all of them with it, and hosts
    that are still away are lost, and counted, again.
    """
    found: set[str] = set()
    rests: tuple[str, ...] = (RunState.PAUSED.value,)
    for event in events:
        if event.kind == HALTING_TO:
            pausing = event.detail.startswith(RunState.PAUSED.value)
            rests = (RunState.PAUSED.value, *([RunState.RESTORE_INCOMPLETE.value] if pausing else []))
        elif event.kind == "state" and event.detail.startswith(rests):
            found.clear()
        elif event.kind in _TROUBLE and event.host:
            found.add(event.host)
    return frozenset(found)


def awaits_approval(record: RunRecord) -> bool:
    """Whether a stage waits for somebody to let the next one open."""
    return record.state is RunState.RUNNING and record.reason.startswith(Gate.WAITING.value)


def unrestored(events: Iterable[EventRecord]) -> dict[str, str]:
    """Return the hosts that were not seen as they were found, each with the reason."""
    found: dict[str, str] = {}
    for event in events:
        if event.kind == NOT_RESTORED:
            found[event.host] = event.detail
        elif event.kind == RESTORED:
            found.pop(event.host, None)
    return found
