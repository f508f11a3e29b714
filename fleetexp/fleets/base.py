"""A fleet as the runner sees it: requests go out to hosts, answers come in, lost hosts are said to be lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.clock import Clock
from agents.messages import Reply, Request


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReply:
    """What came back for one request: a reply, or an error; `lost` where no agent answered at all."""

    host: str
    request: Request
    reply: Reply | None = None
    error: Exception | None = None
    lost: bool = False


class Fleet(Protocol):
    """Where the agents are. Every wait has an end: a request that is not answered in time comes back as lost."""

    name: str

    @property
    def clock(self) -> Clock:
        """The time that its hosts live in, and with them whoever drives a run on them."""
        ...

    def hosts(self) -> Sequence[str]: ...

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        """Send without waiting. A host answers polls while it is at work on something else."""
        ...

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        """Return what has been answered, waiting at most so long for the first."""
        ...

    def forget(self, host: str) -> None:
        """Drop every request under way to a host: its answers will never be received."""
        ...

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        """Put a new agent on a lost host and survey it; the survey's answer says whether it is back."""
        ...

    def close(self) -> None:
        """End the agents. Hosts that they still hold are undone by them or by their guardians."""
        ...
