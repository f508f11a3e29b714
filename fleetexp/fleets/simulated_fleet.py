"""A fleet of simulated hosts. Time is virtual: it passes only while the runner waits for something."""

from __future__ import annotations

import heapq
import itertools
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Protocol, TypeAlias

from agents.messages import HostFacts, Request, Survey
from agents.simulated import Handled, HostClock
from agents.sysroot import SysRoot
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.inventory import Inventory
from fleetexp.fleets.simulated.hosts import Order

_Limit: TypeAlias = tuple[Request, float, int]  # the request, when it counts as lost, its host's generation
TURN_SECONDS = 0.02  # virtual time that a turn takes at least: the answers that come within it are heard together


class Pool(Protocol):
    """Where the hosts are: `HostPool` in this process, `ActorPools` in Ray actors."""

    def turn(self, at_seconds: float, orders: Sequence[Order]) -> list[Handled | None]: ...
    def facts(self) -> list[HostFacts]: ...
    def changed(self, at_seconds: float) -> list[str]: ...
    def close(self) -> None: ...


class SimulatedFleet:
    """Requests are gathered until `receive`, which has the hosts serve them and lets time pass up to an answer."""

    name = "simulated"

    def __init__(self, pool: Pool, hosts: Sequence[str], *, epoch: datetime) -> None:
        self.clock = HostClock(epoch)
        self._pool = pool
        self._hosts = tuple(hosts)
        self._orders: list[Order] = []
        self._limits: list[_Limit] = []  # of each order
        self._coming: list[tuple[float, int, int, HostReply]] = []  # (when, number, its host's generation, answer)
        self._numbers = itertools.count()
        self._generation: defaultdict[str, int] = defaultdict(int)  # answers to an earlier one were forgotten

    def hosts(self) -> Sequence[str]:
        return self._hosts

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        self._order(host, request, request, timeout_seconds)

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        self.forget(host)
        self._order(host, None, Survey(), timeout_seconds)

    def _order(self, host: str, order: Request | None, request: Request, timeout_seconds: float) -> None:
        self._orders.append((host, order))
        self._limits.append((request, self.clock.monotonic() + timeout_seconds, self._generation[host]))

    def forget(self, host: str) -> None:
        self._generation[host] += 1  # what is still to be sent reaches the host all the same

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        self._serve()
        now = self.clock.monotonic()
        first = self._coming[0][0] if self._coming else float("inf")
        self.clock.reach(max(now + TURN_SECONDS, min(now + timeout_seconds, first)))
        out: list[HostReply] = []
        while self._coming and self._coming[0][0] <= self.clock.monotonic():
            _, _, generation, answer = heapq.heappop(self._coming)
            if generation == self._generation[answer.host]:
                out.append(answer)
        return out

    def _serve(self) -> None:
        """Have the hosts serve what was sent; their answers come when they have done so, or are given up in time."""
        if not self._orders:
            return
        orders, limits = self._orders, self._limits
        self._orders, self._limits = [], []
        handled = self._pool.turn(self.clock.monotonic(), orders)
        for (host, _), (request, limit, generation), one in zip(orders, limits, handled, strict=True):
            if one is None or one.at_seconds > limit:
                error = TimeoutError(f"no answer to {type(request).__name__} in time")
                at, answer = limit, HostReply(host=host, request=request, error=error, lost=True)
            else:
                at = one.at_seconds
                answer = HostReply(host=host, request=request, reply=one.reply, error=one.error, lost=one.lost)
            heapq.heappush(self._coming, (at, next(self._numbers), generation, answer))

    def changed(self) -> list[str]:
        """Return the hosts with a knob that isn't as a boot leaves it: what the model knows, not its agents."""
        return self._pool.changed(self.clock.monotonic())

    def close(self) -> None:
        self._pool.close()


def inventory(address: str, _root: SysRoot | None) -> Inventory:
    """Return the simulation that an address describes."""
    from fleetexp.fleets.simulated.inventory import SimulatedInventory  # noqa: PLC0415
    from fleetexp.fleets.simulated.simulation_spec import SimulationChoice  # noqa: PLC0415 — they import this module

    chosen = SimulationChoice.parse(address)
    return SimulatedInventory(chosen.simulation(), address=str(chosen), actors=chosen.actors)
