"""Where simulated hosts are found: they exist for as long as a run needs them, and nothing real is touched."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from fleetexp.fleets.inventory import FoundHost
from fleetexp.fleets.simulated.hosts import HostPool, Simulation
from fleetexp.fleets.simulated_fleet import Pool, SimulatedFleet


class SimulatedInventory:
    """The hosts of a simulation, in this process or spread over so many Ray actors.

    Each fleet that is opened begins anew, at virtual time 0.
    """

    name = "simulated"
    one_machine = False

    def __init__(self, simulation: Simulation, *, address: str = "", actors: int = 0) -> None:
        self.simulation = simulation
        self.address = address
        self._actors = actors

    def survey(self) -> Sequence[FoundHost]:
        with contextlib.closing(self._pool(self.simulation.hosts, "")) as pool:
            return [FoundHost(host=facts.host, labels=facts.labels, facts=facts) for facts in pool.facts()]

    def open(self, hosts: Sequence[str], run: str) -> SimulatedFleet:
        return SimulatedFleet(self._pool(hosts, run), hosts, epoch=self.simulation.epoch)

    def _pool(self, hosts: Sequence[str], run: str) -> Pool:
        if not self._actors:
            return HostPool(self.simulation, hosts, run)
        from fleetexp.fleets.simulated.actors import ActorPools  # noqa: PLC0415 - Ray takes a second to import

        return ActorPools(self.simulation, hosts, run, actors=self._actors)

    def close(self) -> None:
        """There is nothing to let go of."""
