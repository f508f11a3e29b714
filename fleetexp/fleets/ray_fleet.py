"""The nodes of an existing Ray cluster as a fleet: one agent a node, all by way of a process that talks to Ray."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Sequence

from agents.clock import SYSTEM_CLOCK, Clock
from agents.messages import Request, Survey
from agents.sysroot import SysRoot
from agents.timeouts import timeout_factor
from fleetexp.errors import RunError
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.inventory import FoundHost
from fleetexp.fleets.ray.link import RayLink
from fleetexp.fleets.ray.protocol import (
    REJOIN_SECONDS,
    BridgeReply,
    Dismiss,
    Dismissed,
    Forget,
    Open,
    Rejoin,
    Seen,
    Send,
    SurveyNodes,
)

SURVEY_SECONDS = 60.0 * timeout_factor()
RESTART_EVERY_SECONDS = 5.0  # a cluster that is gone is looked for so often, however many hosts are to be found there
_LATE_SECONDS = 2.0  # how much later than the bridge we give a request up
_DISMISS_SECONDS = 10.0


class RayInventory:
    """The living nodes of a Ray cluster, but for its head and our own node where those have no pool label."""

    name = "ray"
    one_machine = False

    def __init__(self, address: str) -> None:
        self._link = RayLink(address)

    @property
    def address(self) -> str:
        return self._link.address

    def survey(self) -> Sequence[FoundHost]:
        """Look over the nodes; RunError where the cluster doesn't let us in or is gone."""
        link = self._link
        link.tell(SurveyNodes(within_seconds=SURVEY_SECONDS))
        deadline = time.monotonic() + 2 * SURVEY_SECONDS
        while link.broken is None and time.monotonic() < deadline:
            if isinstance(word := link.hear(0.25), Seen):
                return word.found
        raise link.refuse()

    def open(self, hosts: Sequence[str], run: str) -> RayFleet:
        return RayFleet(self._link, hosts, run=run)

    def close(self) -> None:
        self._link.close()


class RayFleet:
    """A fleet over a link. Where the cluster is gone every host is lost; it is looked for while one is to come back."""

    name = "ray"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, link: RayLink, hosts: Sequence[str], *, run: str) -> None:
        self._link = link
        self._hosts = tuple(hosts)
        self._run = run
        self._last = 0
        self._under_way: dict[int, tuple[str, Request, float]] = {}
        self._rejoins: dict[int, tuple[Rejoin, float]] = {}  # what is asked, until when the cluster may come back
        self._link.tell(Open(hosts=self._hosts, run=run))

    def hosts(self) -> Sequence[str]:
        return self._hosts

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        number = self._note(host, request, timeout_seconds)
        self._link.tell(Send(number=number, host=host, request=request, timeout_seconds=timeout_seconds))

    def _note(self, host: str, request: Request, timeout_seconds: float) -> int:
        self._last += 1
        self._under_way[self._last] = (host, request, time.monotonic() + timeout_seconds + _LATE_SECONDS)
        return self._last

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        if self._link.broken is not None and not self._under_way:
            time.sleep(max(0.0, timeout_seconds))
            return []
        out = self._given_up()
        self._look_for_the_cluster()
        until = time.monotonic() + (0.0 if out else timeout_seconds)
        while (word := self._link.hear(0.0 if out else until - time.monotonic())) is not None:
            if isinstance(word, BridgeReply) and (noted := self._under_way.pop(word.number, None)) is not None:
                host, request, _ = noted
                self._rejoins.pop(word.number, None)
                out.append(HostReply(host=host, request=request, reply=word.reply, error=word.error, lost=word.lost))
        return out + self._given_up()

    def _given_up(self) -> list[HostReply]:
        """What is overdue, or everything where the cluster is gone."""
        now, broken = time.monotonic(), self._link.broken
        out = []
        for number, (host, request, deadline) in list(self._under_way.items()):
            _, patient_until = self._rejoins.get(number, (None, 0.0))
            if now <= (deadline if broken is None else patient_until):
                continue
            del self._under_way[number]
            self._rejoins.pop(number, None)
            error = (
                TimeoutError(f"no answer to {type(request).__name__} in time")
                if broken is None
                else ConnectionError(broken.what)
            )
            out.append(HostReply(host=host, request=request, error=error, lost=True))
        return out

    def _look_for_the_cluster(self) -> None:
        """Try to connect again, now and then, while a host is waited for."""
        link = self._link
        if link.broken is None or not self._rejoins or time.monotonic() < link.started_at + RESTART_EVERY_SECONDS:
            return
        link.restart()
        link.tell(Open(hosts=self._hosts, run=self._run))
        for order, _ in self._rejoins.values():
            link.tell(order)

    def forget(self, host: str) -> None:
        self._rejoins = {number: kept for number, kept in self._rejoins.items() if kept[0].host != host}
        self._under_way = {number: noted for number, noted in self._under_way.items() if noted[0] != host}
        self._link.tell(Forget(host=host))

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        self.forget(host)
        request = Survey()
        number = self._note(host, request, timeout_seconds)
        order = Rejoin(number=number, host=host, request=request, timeout_seconds=timeout_seconds)
        self._rejoins[number] = (order, time.monotonic() + min(timeout_seconds, REJOIN_SECONDS))
        self._link.tell(order)

    def close(self) -> None:
        self._link.tell(Dismiss())
        deadline = time.monotonic() + _DISMISS_SECONDS
        while self._link.broken is None and time.monotonic() < deadline:
            if isinstance(self._link.hear(0.25), Dismissed):
                return


def inventory(address: str, _root: SysRoot | None) -> RayInventory:
    """Return the nodes of the cluster at an address, or of the one that Ray finds."""
    _require_ray()
    return RayInventory(address or os.environ.get("RAY_ADDRESS") or "auto")


def _require_ray() -> None:
    """Refuse where Ray is not installed: only its own process imports it, which could only end."""
    try:
        there = importlib.util.find_spec("ray") is not None
    except ImportError:
        there = False
    if not there:
        raise RunError(
            "a fleet on a cluster needs the package ray, which is not installed",
            where="--fleet ray",
            remedy="install it: pip install ray; --fleet inline needs none: this host, its agent in this process",
        )
