"""Simulated hosts spread over Ray actors, many in each: the requests of a turn are one call to each actor."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from fleetexp.fleets.ray.own_node import start_node  # isort: skip - it goes before Ray

import ray
from ray.exceptions import RayError

from agents.messages import HostFacts
from agents.simulated import Handled
from fleetexp.fleets.simulated.hosts import HostPool, Order, Simulation

_OBJECT_STORE_BYTES = 400_000_000  # a turn's replies of ten thousand hosts pass through it
_TURN_WITHIN_SECONDS = 600.0  # real time; an actor that takes longer is lost with its hosts


def _connect() -> None:
    """Start a node of our own on loopback, with a token, unless this process is connected to a cluster."""
    if ray.is_initialized():
        return
    start_node(_OBJECT_STORE_BYTES)


class ActorPools:
    """As `HostPool`, over actors of the Ray cluster that this process is connected to."""

    def __init__(self, simulation: Simulation, hosts: Sequence[str], run: str, *, actors: int = 0) -> None:
        """Spread the hosts over so many actors, by default one a core; starts a Ray node where there is none."""
        _connect()
        count = min(actors or os.cpu_count() or 1, len(hosts))
        remote = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(HostPool)
        shares = [list(hosts[number::count]) for number in range(count)]
        self._actors: list[Any] = [remote.remote(simulation, share, run) for share in shares]
        self._actor_of = {host: number for number, share in enumerate(shares) for host in share}

    def turn(self, at_seconds: float, orders: Sequence[Order]) -> list[Handled | None]:
        """Serve requests as `HostPool.turn` does; the hosts of an actor that does not answer are lost."""
        places: list[list[int]] = [[] for _ in self._actors]
        for place, (host, _) in enumerate(orders):
            places[self._actor_of[host]].append(place)
        calls = [
            (number, self._actors[number].turn.remote(at_seconds, [orders[place] for place in theirs]))
            for number, theirs in enumerate(places)
            if theirs
        ]
        out: list[Handled | None] = [None] * len(orders)
        for number, call in calls:
            for place, handled in zip(places[number], self._answers(call, at_seconds, places[number]), strict=True):
                out[place] = handled
        return out

    def _answers(self, call: Any, at_seconds: float, places: Sequence[int]) -> Sequence[Handled | None]:  # noqa: ANN401
        try:
            answers: list[Handled | None] = ray.get(call, timeout=_TURN_WITHIN_SECONDS)
        except RayError as error:
            return [Handled(at_seconds, error=error, lost=True)] * len(places)
        return answers

    def facts(self) -> list[HostFacts]:
        found = [facts for share in self._all("facts") for facts in share]
        by_host = {facts.host: facts for facts in found}
        return [by_host[host] for host in self._actor_of if host in by_host]

    def changed(self, at_seconds: float) -> list[str]:
        return [host for share in self._all("changed", at_seconds) for host in share]

    def _all(self, method: str, *arguments: object) -> list[Any]:
        calls = [getattr(actor, method).remote(*arguments) for actor in self._actors]
        return list(ray.get(calls, timeout=_TURN_WITHIN_SECONDS))

    def close(self) -> None:
        """End the agents, then their actors; Ray stays for the next ones."""
        with contextlib.suppress(RayError):  # one has died: its folder is left to the machine's next boot
            self._all("close")
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
