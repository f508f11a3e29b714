"""Memory that is held on a host beside its workload: filled before anything is written, and missed when it is gone."""

from __future__ import annotations

from collections.abc import Callable

from agents.clock import Clock
from agents.errors import WorkloadError
from agents.messages import WorkloadState
from agents.workloads import RunningWorkload

AT_MOST_SECONDS = 30 * 86400.0  # it ends with the claim, its agent or the guardian, whichever is first
_FILLED_WITHIN_SECONDS = 540.0
_LOOK_AGAIN_SECONDS = 0.2


def wait_until_full(pressure: RunningWorkload, clock: Clock, renew: Callable[[], None]) -> None:
    """Wait until memory is filled, renewing the lease; WorkloadError where that fails, or takes more than 9 minutes."""
    full_by = clock.monotonic() + _FILLED_WITHIN_SECONDS
    while True:
        try:
            pressure.wait_until_ready(_LOOK_AGAIN_SECONDS)
            break
        except WorkloadError:
            if pressure.poll()[0] is not WorkloadState.STARTING or clock.monotonic() > full_by:
                raise
        renew()
    pressure.go()


def why_gone(pressure: RunningWorkload | None) -> str:
    """Say why memory is no longer held as the run wants it; '' where it is, or nobody wants it to be."""
    if pressure is None:
        return ""
    state, detail = pressure.poll()
    return "" if state is WorkloadState.RUNNING else f"memory was no longer under pressure: {detail or state}"
