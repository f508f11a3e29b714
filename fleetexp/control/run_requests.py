"""Ask the process that drives a run to pause it, to end it, or to open its next stage; and find out if it has heard.

A request lies in the store. Whoever drives the run takes it from there within a second, so one that stays there for
long says that nobody does.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from datetime import UTC, datetime

from fleetexp.control.run_recovery import awaits_approval
from fleetexp.domain import EventKind, RunRequest, RunState
from fleetexp.errors import RunError
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store, open_store
from fleetexp.store.url import StoreUrl

HEARD_WITHIN_SECONDS = 15.0  # a driver that is alive listens every second, but may be summing up
ON_RESUME = {
    RunRequest.PAUSE: "takes it up again",
    RunRequest.ABORT: "ends it",
}  # what `resume` does with a request nobody has heard
_LOOK_EVERY_SECONDS = 0.25


def stop(store_url: StoreUrl, run_id: int, how: RunRequest, who: str) -> bool:
    """Ask a run to pause or to end, and wait until that is heard.

    False where the run is paused: then `resume` will hear it.
    RunError where the run is over, or is under way and nobody hears: the request stays, for whoever resumes the run.
    """
    with contextlib.closing(open_store(store_url, create=False)) as store:
        _state_to_ask(store, run_id)
        store.request(run_id, how, who)
        paused = False

        def heard_or_ended() -> bool:
            nonlocal paused
            if store.asked(run_id) is None:
                return True
            paused = _state_to_ask(store, run_id) is RunState.PAUSED  # it may end before it listens again
            return paused

        if not _comes_true(heard_or_ended):
            raise RunError(
                f"nobody has heard the {how} in {HEARD_WITHIN_SECONDS:.0f} s: no process seems to drive this run",
                where=f"run {run_id}",
                remedy="its hosts undo themselves when their lease runs out; "
                f"'fleetexp resume {run_id}' {ON_RESUME[how]}",
            )
    return not paused


def approve(store: Store, record: RunRecord, who: str) -> str | None:
    """Let the next stage of a run open that waits for it; return which, None where no process is there to hear that."""
    asked_at = datetime.now(UTC)
    store.request(record.run_id, RunRequest.APPROVE, who)

    def heard() -> list[str]:
        return [
            event.detail for event in store.events(record.run_id, kinds=[EventKind.APPROVED]) if event.at >= asked_at
        ]

    _comes_true(lambda: bool(heard()) or not awaits_approval(store.run(record.run_id)))
    return next(reversed(heard()), None)


def _state_to_ask(store: Store, run_id: int) -> RunState:
    state = store.run(run_id).state
    if state.is_terminal:
        raise RunError(f"run {run_id} is over: {state.value}", where=f"run {run_id}", remedy="nothing to do")
    return state


def _comes_true(true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + HEARD_WITHIN_SECONDS
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_EVERY_SECONDS)
    return True
