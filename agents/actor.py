"""The agent as a Ray actor: the one file of `agents` that knows Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray

from agents.host_agent import HostAgent
from agents.messages import Reply, Request
from agents.sysroot import FolderRoot

# A poll must be answered while an apply is at work, hence threads; four leave room for a survey beside both.
_THREADS = 4


class HostActor:
    """A `HostAgent` behind Ray. Never restarted by Ray: what a new agent must do first is the machine's to say."""

    def __init__(self, root: str, host: str, run: str, labels: Mapping[str, str]) -> None:
        self._agent = HostAgent(root=FolderRoot(root), host=host, run=run, labels=labels)

    def handle(self, request: Request) -> Reply:
        return self._agent.handle(request)


def start_actor(*, node_id: str, root: str, host: str, run: str, labels: Mapping[str, str]) -> Any:  # noqa: ANN401
    """Start the agent's actor on one Ray node; returns Ray's handle at once, before the actor is alive."""
    remote = ray.remote(
        num_cpus=0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=_THREADS,
        label_selector={"ray.io/node-id": node_id},
    )(HostActor)
    return remote.remote(root, host, run, dict(labels))
