"""Ask the process that drives a run to pause it, to end it, or to open its next stage; and find out if it has heard.

A request lies in the store. Whoever drives the run takes it from there within a second, so one that stays there for
long says that nobody does.
"""

from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime

from fleetexp.domain import RunState
from fleetexp.errors import RunError
from fleetexp.orchestrator.history import awaits_approval
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store, open_store

HEARD_WITHIN_SECONDS = 15.0  # a driver that is alive listens every second, but may be summing up
_LOOK_EVERY_SECONDS = 0.25


def request_stop(store_url: str, run_id: int, how: str, who: str) -> None:
    """Leave a request to pause a run ('pause') or to end it ('abort'). RunError where the run is over."""
    with contextlib.closing(open_store(store_url, create=False)) as store:
        _leave(store, run_id, how, who)


def stop(store_url: str, run_id: int, how: str, who: str) -> bool:
    """As `request_stop`, and wait until that is heard; False where the run is paused: then `resume` will hear it.

    RunError also where the run is under way and nobody hears: the request stays, for whoever resumes the run.
    """
    with contextlib.closing(open_store(store_url, create=False)) as store:
        if _leave(store, run_id, how, who) is RunState.PAUSED:
            return False
        if not _is_heard(store, run_id):
            raise RunError(
                f"nobody has heard the {how} in {HEARD_WITHIN_SECONDS:.0f} s: no process seems to drive this run",
                where=f"run {run_id}",
                remedy=f"its hosts undo themselves when their lease runs out; 'fleetexp resume {run_id}' "
                + ("ends it" if how == "abort" else "takes it up again"),
            )
    return True


def approve(store: Store, record: RunRecord, who: str) -> str | None:
    """Let the next stage of a run open that waits for it; return which, None where no process is there to hear that."""
    asked_at = datetime.now(UTC)
    store.request(record.run_id, "approve", who)
    deadline = time.monotonic() + HEARD_WITHIN_SECONDS
    while time.monotonic() < deadline:
        heard = [event for event in store.events(record.run_id, kinds=["approved"]) if event.at >= asked_at]
        if heard:
            return heard[-1].detail
        if not awaits_approval(store.run(record.run_id)):
            break
        time.sleep(_LOOK_EVERY_SECONDS)
    return None


def _leave(store: Store, run_id: int, how: str, who: str) -> RunState:
    state = store.run(run_id).state
    if state.is_terminal:
        raise RunError(f"run {run_id} is over: {state.value}", where=f"run {run_id}", remedy="nothing to do")
    store.request(run_id, how, who)
    return state


def _is_heard(store: Store, run_id: int) -> bool:
    deadline = time.monotonic() + HEARD_WITHIN_SECONDS
    while store.asked(run_id) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_SECONDS)
    return True
