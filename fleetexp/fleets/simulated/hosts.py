"""Many simulated hosts in one process: what a simulation is made of, and how its hosts are served by the turn."""

from __future__ import annotations

import resource
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias

from agents.messages import HostFacts, Request
from agents.simulated import (
    Fault,
    Handled,
    HostClock,
    MachineFiles,
    ModelParameters,
    PlainModel,
    SimulatedHost,
    SimulatedRoot,
)
from fleetexp.errors import RunError

_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
_DESCRIPTORS_PER_HOST, _DESCRIPTORS_OF_OURS = 4, 256  # a claim keeps its journal, lease and note open, and its spool

Order: TypeAlias = tuple[str, Request | None]  # a request to a host; None for a new agent and its survey


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Everything that a simulated fleet follows from: equal ones give equal runs, but for their `epoch`."""

    hosts: tuple[str, ...]
    seed: int = 1
    machine: MachineFiles = field(default_factory=MachineFiles)
    machines: Mapping[str, MachineFiles] = field(default_factory=dict)  # of the hosts that have another
    response_model: ModelParameters = field(default_factory=ModelParameters)
    faults: Mapping[str, tuple[Fault, ...]] = field(default_factory=dict)
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    epoch: datetime = field(default_factory=lambda: datetime.now(UTC))  # when virtual time begins

    @classmethod
    def of(cls, count: int, **what: object) -> Simulation:
        """Make one of so many hosts, named sim-0001 and so on."""
        digits = max(4, len(str(count)))
        return cls(hosts=tuple(f"sim-{number:0{digits}}" for number in range(1, count + 1)), **what)  # type: ignore[arg-type]


class HostPool:
    """The hosts of a simulation, or some of them, in this process. Nothing happens between turns."""

    def __init__(self, simulation: Simulation, hosts: Sequence[str], run: str) -> None:
        make_room(len(hosts))
        self._folder = Path(tempfile.mkdtemp(prefix="fleetexp-simulated-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self.hosts = {host: self._host(simulation, host, run) for host in hosts}

    def _host(self, simulation: Simulation, host: str, run: str) -> SimulatedHost:
        machine = simulation.machines.get(host, simulation.machine)
        response_model = PlainModel(simulation.response_model, machine, seed=simulation.seed, host=host)
        clock = HostClock(simulation.epoch)
        root = SimulatedRoot(machine, response_model, host=host, clock=clock, state_dir=self._folder / host)
        labels, faults = simulation.labels.get(host, {}), simulation.faults.get(host, ())
        return SimulatedHost(root, host=host, run=run, labels=labels, faults=faults)

    def turn(self, at_seconds: float, orders: Sequence[Order]) -> list[Handled | None]:
        """Serve requests that reach their hosts at this instant, in order; None for a host out of reach."""
        return [
            self.hosts[host].reconnect(at_seconds) if request is None else self.hosts[host].handle(request, at_seconds)
            for host, request in orders
        ]

    def facts(self) -> list[HostFacts]:
        """Return what each host is, in order."""
        return [host.facts() for host in self.hosts.values()]

    def changed(self, at_seconds: float) -> list[str]:
        """Let time come to this instant everywhere; return the hosts with a knob that isn't as a boot leaves it."""
        for host in self.hosts.values():
            host.advance(at_seconds)
        return [name for name, host in self.hosts.items() if host.root.changed]

    def close(self) -> None:
        """End the agents and remove their journals."""
        for host in self.hosts.values():
            host.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def make_room(hosts: int) -> None:
    """Raise the limit of open files where so many hosts need it; RunError where it can't be raised so far."""
    needed = hosts * _DESCRIPTORS_PER_HOST + _DESCRIPTORS_OF_OURS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise RunError(
            f"{hosts} simulated hosts in one process keep {needed} files open, and {hard} are allowed",
            where="ulimit -n",
            remedy="spread them over more actors, or raise the hard limit of open files",
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
