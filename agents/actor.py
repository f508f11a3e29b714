"""The agent as a Ray actor: the one file of `agents` that knows Ray.

Orchestrator and host may run different versions of fleetexp, whose messages may differ: each side says what it speaks,
and a host that speaks something else takes no request but answers what it is.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import ray

from agents.claim import claim_status
from agents.errors import AgentError, JournalError
from agents.facts import survey
from agents.host_agent import HostAgent
from agents.messages import Reply, Request
from agents.node_identity import here, spoken
from agents.sysroot import FolderRoot

# A poll must be answered while an apply is at work, hence threads; four leave room for a survey beside both.
_THREADS = 4


class HostActor:
    """A `HostAgent` behind Ray. Never restarted by Ray: what a new agent must do first is the machine's to say.

    It answers only as the host that it was started for: a node that came back as another must not speak for it.
    """

    def __init__(self, root: str, host: str, run: str, labels: Mapping[str, str], language: str = "") -> None:
        _as_others_are()
        place = here(labels)
        self._refused = difference(language) if language else ""
        if language and not self._refused and place.host != host:
            self._refused = f"this node is the host {place.host} now, not {host}"
        self._host = host
        self._agent = HostAgent(root=FolderRoot(root or place.root), host=host, run=run, labels=labels)

    def handle(self, request: Request) -> Reply:
        if self._refused:
            raise AgentError(self._refused, self._host, "install the same fleetexp there, and restart the node")
        return self._agent.handle(request)


def _as_others_are() -> None:
    """Take back the niceness of 15 that Ray gives its workers: a lease must be renewed and a workload measured on a
    busy host too. Every thread by itself, as Linux has it; what is started later inherits it. Where allowed.
    """
    for thread in os.listdir("/proc/self/task"):
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, int(thread), 0)


def difference(language: str) -> str:
    """Say how this side differs from what the other speaks; '' where it doesn't."""
    ours = spoken()
    return "" if language == ours else f"it runs {ours}, and the orchestrator {language}"


def look_over(labels: Mapping[str, str], language: str) -> dict[str, object]:
    """Look over the host that this process is on; only words that every version understands where that differs."""
    place = here(labels)
    seen: dict[str, object] = {"host": place.host, "root": place.root, "refused": difference(language)}
    if not seen["refused"]:
        root = FolderRoot(place.root)
        seen["facts"] = survey(root, host=place.host, labels=labels)
        try:
            seen["claim"] = claim_status(root)
        except JournalError as error:
            seen["refused"] = str(error)
    return seen


def start_look(*, node_id: str, labels: Mapping[str, str]) -> Any:  # noqa: ANN401 - Ray's reference has no type here
    """Ask one Ray node what host it is; returns the reference of the answer at once."""
    remote = ray.remote(num_cpus=0, max_retries=0, label_selector={"ray.io/node-id": node_id})(look_over)
    return remote.remote(dict(labels), spoken())


def start_actor(*, node_id: str, root: str, host: str, run: str, labels: Mapping[str, str], language: str = "") -> Any:  # noqa: ANN401
    """Start the agent's actor on one Ray node; returns Ray's handle at once, before the actor is alive.

    `language` is what the orchestrator speaks, '' where it is the same installation anyway; a root of '' is the node's.
    """
    remote = ray.remote(
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=_THREADS,
        label_selector={"ray.io/node-id": node_id},
    )(HostActor)
    return remote.remote(root, host, run, dict(labels), language)
