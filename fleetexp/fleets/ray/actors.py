"""Agents as Ray actors, one pinned to each node. Ray errors end here: past this file a host has answered or is lost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.job_config import JobConfig

from agents.actor import start_actor
from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import AgentError
from agents.messages import Request, Survey
from fleetexp.fleets.base import HostReply


class OwnCode(JobConfig):  # type: ignore[misc]
    """What a driver says of itself, without the current folder: Ray's workers would look there before all else."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHost:
    """Where a host's agent goes: the Ray node, and the root that the agent works on ('': as the node says)."""

    node_id: str
    root: str = "/"
    labels: Mapping[str, str]
    language: str = ""  # what the agent must speak, '' where it is our own installation


class RayActors:
    """A fleet on the Ray cluster that this process is connected to. A host without a node is lost whenever asked."""

    name = "ray"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, nodes: Mapping[str, RayHost | None], *, run: str) -> None:
        self._nodes = dict(nodes)
        self._run = run
        self._under_way: dict[Any, tuple[str, Request, float]] = {}
        self._failed_to_send: list[HostReply] = []
        self._actors = {host: self._actor(host) for host, node in nodes.items() if node is not None}

    def _actor(self, host: str) -> Any:  # noqa: ANN401 - Ray's handle has no type of its own
        node = self._nodes[host]
        if node is None:
            raise KeyError(host)
        return start_actor(
            node_id=node.node_id,
            root=node.root,
            host=host,
            run=self._run,
            labels=node.labels,
            language=node.language,
        )

    def hosts(self) -> Sequence[str]:
        return tuple(self._nodes)

    def node_of(self, host: str) -> RayHost | None:
        """Return where a host's agent is, or was last."""
        return self._nodes.get(host)

    def move(self, host: str, node: RayHost) -> None:
        """Say where a host's next agent goes: its node has come back as another."""
        self._nodes[host] = node

    def lose(self, host: str, reason: str) -> None:
        """Answer everything under way to a host as lost: its node is known to be dead."""
        for ref, (owner, request, _) in list(self._under_way.items()):
            if owner == host:
                del self._under_way[ref]
                self._lost(host, request, ConnectionError(reason))

    def _lost(self, host: str, request: Request, error: Exception) -> None:
        self._failed_to_send.append(HostReply(host=host, request=request, error=error, lost=True))

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        actor = self._actors.get(host)
        if actor is None:
            self._lost(host, request, ConnectionError("no node of the cluster is this host"))
            return
        try:
            ref = actor.handle.remote(request)
        except RayError as error:
            self._lost(host, request, error)
            return
        self._under_way[ref] = (host, request, time.monotonic() + timeout_seconds)

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        out, self._failed_to_send = self._failed_to_send, []
        if not self._under_way:
            if not out:
                time.sleep(max(0.0, timeout_seconds))
            return out
        refs = list(self._under_way)
        wait = 0.0 if out else max(0.0, timeout_seconds)
        ready, _ = ray.wait(refs, num_returns=1, timeout=wait)
        if ready:
            more, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
            out += [self._answer(ref) for ref in more]
        now = time.monotonic()
        for ref, (host, request, deadline) in list(self._under_way.items()):
            if now > deadline:
                del self._under_way[ref]
                error = TimeoutError(f"no answer to {type(request).__name__} in time")
                out.append(HostReply(host=host, request=request, error=error, lost=True))
        return out

    def _answer(self, ref: Any) -> HostReply:  # noqa: ANN401
        host, request, _ = self._under_way.pop(ref)
        try:
            return HostReply(host=host, request=request, reply=ray.get(ref, timeout=10))
        except RayTaskError as error:  # the agent answered, with an error of its own
            cause = error.cause if isinstance(error.cause, Exception) else error
            return HostReply(host=host, request=request, error=cause, lost=not isinstance(cause, (AgentError, OSError)))
        except RayError as error:
            return HostReply(host=host, request=request, error=error, lost=True)

    def forget(self, host: str) -> None:
        self._failed_to_send = [answer for answer in self._failed_to_send if answer.host != host]
        for ref, (owner, _, _) in list(self._under_way.items()):
            if owner == host:
                del self._under_way[ref]

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        self.renew(host)
        self.send(host, Survey(), timeout_seconds)

    def renew(self, host: str) -> None:
        """Put a new agent in the place of the old one, if that still lives."""
        self.forget(host)
        self._end(host)
        if self._nodes[host] is not None:
            self._actors[host] = self._actor(host)

    def _end(self, host: str) -> None:
        actor = self._actors.pop(host, None)
        if actor is None:
            return
        try:
            ray.kill(actor, no_restart=True)
        except (RayError, ValueError):  # it is gone already
            return

    def close(self) -> None:
        for host in self._nodes:
            self._end(host)


def collect(looks: Sequence[Any]) -> list[tuple[Any, Mapping[str, Any] | None, str]]:
    """Return (reference, what was seen, error) of the looks that are done; waits for nothing."""
    if not looks:
        return []
    done, _ = ray.wait(list(looks), num_returns=len(looks), timeout=0)
    out: list[tuple[Any, Mapping[str, Any] | None, str]] = []
    for ref in done:
        try:
            out.append((ref, ray.get(ref, timeout=10), ""))
        except RayTaskError as error:
            out.append((ref, None, f"looking it over failed: {error.cause or said(error)}"))
        except RayError as error:
            out.append((ref, None, said(error)))
    return out


def said(error: Exception) -> str:
    """Return the one line of an error of Ray's that says most."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line or "error" in line]
    return (telling or lines or [type(error).__name__])[-1 if telling else 0]
