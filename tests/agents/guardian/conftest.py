"""Agents that end with their test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agents.sysroot import FolderRoot
from tests.agents.guardian.agent_process import Agent


@pytest.fixture
def agent_on(no_guardian_left: None) -> Iterator[Callable[..., Agent]]:
    """Start agents, and end them with the test."""
    agents: list[Agent] = []

    def start(root: FolderRoot, *, lease_seconds: float = 1.0) -> Agent:
        agents.append(Agent(root, lease_seconds))
        return agents[-1]

    yield start
    for agent in agents:
        agent.process.kill()
        agent.process.communicate()
