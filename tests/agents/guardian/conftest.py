"""Agents that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.sysroot import FolderRoot
from tests.agents.guardian.agent_process import LEASE_SECONDS, Agent
from tests.agents.guardian.own_tree import COMMAND, OwnTree
from tests.host_tree import build_host


@pytest.fixture
def host_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FolderRoot]:
    """Return a builder of hosts in folders, whose processes are this machine's own."""
    monkeypatch.setattr("agents.guardian_start.default_command", lambda: COMMAND)
    return lambda name="host", **what: OwnTree(build_host(tmp_path / name, **what).root)


@pytest.fixture
def agent_on(no_guardian_left: None) -> Iterator[Callable[..., Agent]]:
    """Start agents, and end them with the test."""
    agents: list[Agent] = []

    def start(root: FolderRoot, *, lease_seconds: float = LEASE_SECONDS) -> Agent:
        agents.append(Agent(root, lease_seconds))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.communicate()
