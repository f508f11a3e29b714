"""What the agent holds of a workload that runs."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, TypeAlias

from agents.messages import WorkloadState

Measured: TypeAlias = tuple[datetime, str, float]  # taken at (UTC), metric, value in the metric's unit


class RunningWorkload(Protocol):
    """A process of ours, or a service that we only watch. May be used from several threads."""

    @property
    def pid(self) -> int | None:
        """Leader of a process group and session of its own; None where the process is not ours."""
        ...

    @property
    def cgroup(self) -> str | None:
        """Path of the service's cgroup below its hierarchy."""
        ...

    def poll(self) -> tuple[WorkloadState, str]:
        """Return the state now, and why it failed or how it ended."""
        ...

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """Wait until it could measure at once; WorkloadError where it fails first, or takes too long."""
        ...

    def go(self) -> None:
        """Let one that was started with `hold` begin. A user's command is not held: it runs from its start."""
        ...

    def measurements(self) -> list[Measured]:
        """Return what was reported since the last call, oldest first."""
        ...

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        """End it (SIGTERM to its group, then SIGKILL to all it started), keep what it still said; a service runs on.

        Idempotent. False where it hangs in the kernel and is still there: it may be asked for again.
        """
        ...
