"""Simulated hosts for tests, their journals in a folder of the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.simulated import Fault, HostClock, MachineFiles, ModelParameters, PlainModel, SimulatedHost, SimulatedRoot

EPOCH = datetime(2026, 2, 2, tzinfo=UTC)
Build = Callable[..., SimulatedHost]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Return `build(name="h0", machine=..., response_model=ModelParameters(...), seed=1, faults=(...))`."""

    made_hosts: list[SimulatedHost] = []

    def make(
        name: str = "h0",
        *,
        machine: MachineFiles | None = None,
        response_model: ModelParameters | None = None,
        seed: int = 1,
        faults: tuple[Fault, ...] = (),
    ) -> SimulatedHost:
        machine = machine or MachineFiles()
        made = PlainModel(response_model or ModelParameters(), machine, seed=seed, host=name)
        root = SimulatedRoot(machine, made, host=name, clock=HostClock(EPOCH), state_dir=tmp_path / name)
        made_hosts.append(SimulatedHost(root, host=name, run="1-x", faults=faults))
        return made_hosts[-1]

    yield make
    for host in made_hosts:
        host.close()
