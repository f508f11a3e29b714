"""What the orchestrator and the process that talks to Ray for it say to each other, over one socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from agents.messages import Reply, Request
from fleetexp.fleets.inventory import FoundHost

REJOIN_SECONDS = 15.0  # a node that is started again needs about ten to be back in its cluster


# ------------------------------------------------------------------ to the bridge
@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyNodes:
    """Look over every candidate node; `Seen` comes once all have answered, or after this time."""

    within_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Put an agent of this run on each of these hosts. One that is on no node is lost whenever it is asked."""

    hosts: tuple[str, ...]
    run: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Pass a request on; its answer comes as `BridgeReply` with the same number."""

    number: int
    host: str
    request: Request
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejoin:
    """Put a new agent on a host, on the node that it is on now, and pass the request on to it."""

    number: int
    host: str
    request: Request
    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forget:
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismiss:
    """End the agents."""


Order: TypeAlias = SurveyNodes | Open | Send | Rejoin | Forget | Dismiss


# ------------------------------------------------------------------ from the bridge
@dataclass(frozen=True, slots=True, kw_only=True)
class Connected:
    """The cluster has taken us; `address` is that of its head."""

    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """There is no connection, or no longer: why, and the remedy. Nothing more comes."""

    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeAlive:
    """The head of the cluster has answered just now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    found: tuple[FoundHost, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class BridgeReply:
    """The answer to a request, as in `base.HostReply`; errors of Ray come as ConnectionError, readable without Ray."""

    number: int
    reply: Reply | None = None
    error: Exception | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Dismissed:
    pass


BridgeEvent: TypeAlias = Connected | Broken | BridgeAlive | Seen | BridgeReply | Dismissed
