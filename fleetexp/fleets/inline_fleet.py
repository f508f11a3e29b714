"""Agents inside this process, one per root: rehearsals, tests, and hosts too small for Ray."""

from __future__ import annotations

import logging
import platform
import queue
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from agents.claim import claim_status
from agents.clock import SYSTEM_CLOCK, Clock
from agents.errors import JournalError
from agents.facts import survey
from agents.host_agent import HostAgent
from agents.messages import Reply, Request, Survey
from agents.sysroot import FolderRoot, SysRoot
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.inventory import FoundHost

log = logging.getLogger(__name__)


class InlineInventory:
    """Hosts that are roots of this process, by name, with the labels that they are given here."""

    name = "inline"
    address = ""

    def __init__(self, roots: Mapping[str, SysRoot], labels: Mapping[str, Mapping[str, str]] | None = None) -> None:
        self._roots = dict(roots)
        self._labels = dict(labels or {})
        self.one_machine = len(self._roots) == 1

    def survey(self) -> Sequence[FoundHost]:
        return [look_over(host, root, self._labels.get(host, {})) for host, root in self._roots.items()]

    def open(self, hosts: Sequence[str], run: str) -> InlineFleet:
        return InlineFleet({host: self._roots[host] for host in hosts}, run=run, labels=self._labels)

    def close(self) -> None:
        """There is nothing to let go of."""


def look_over(host: str, root: SysRoot, labels: Mapping[str, str]) -> FoundHost:
    """Find a host whose root this process can read; one whose state can't be read or trusted is of no use."""
    facts = survey(root, host=host, labels=labels)
    try:
        return FoundHost(host=host, labels=labels, facts=facts, claim=claim_status(root))
    except JournalError as error:
        return FoundHost(host=host, labels=labels, facts=facts, unusable=str(error))


class InlineFleet:
    """A fleet of `HostAgent`s in threads of this process. A SIGKILL of it leaves their hosts to the guardians."""

    name = "inline"
    clock: Clock = SYSTEM_CLOCK

    def __init__(self, roots: Mapping[str, SysRoot], *, run: str, labels: Mapping[str, Mapping[str, str]]) -> None:
        self._roots = dict(roots)
        self._run = run
        self._labels = labels
        self._agents = {host: self._agent(host) for host in roots}
        self._threads = ThreadPoolExecutor(max_workers=4 * len(roots) + 2, thread_name_prefix="host")
        self._answers: queue.SimpleQueue[HostReply] = queue.SimpleQueue()
        self._under_way: dict[Future[Reply], tuple[str, Request, float]] = {}

    def _agent(self, host: str) -> HostAgent:
        return HostAgent(root=self._roots[host], host=host, run=self._run, labels=self._labels.get(host))

    def hosts(self) -> Sequence[str]:
        return tuple(self._roots)

    def send(self, host: str, request: Request, timeout_seconds: float) -> None:
        future = self._threads.submit(self._agents[host].handle, request)
        self._under_way[future] = (host, request, time.monotonic() + timeout_seconds)
        future.add_done_callback(lambda done: self._answers.put(_answer(host, request, done)))

    def receive(self, timeout_seconds: float) -> list[HostReply]:
        out: list[HostReply] = []
        try:
            out.append(self._answers.get(timeout=max(0.0, timeout_seconds)))
            while True:
                out.append(self._answers.get_nowait())
        except queue.Empty:
            pass
        answered = {id(answer.request) for answer in out}
        now = time.monotonic()
        known: list[HostReply] = []
        for future, (host, request, deadline) in list(self._under_way.items()):
            if id(request) in answered and future.done():
                known += [answer for answer in out if answer.request is request]
                del self._under_way[future]
            elif now > deadline and not future.done():
                known.append(HostReply(host=host, request=request, error=TimeoutError("no answer in time"), lost=True))
                del self._under_way[future]
        return known  # answers to forgotten requests are dropped

    def forget(self, host: str) -> None:
        for future, (owner, _, _) in list(self._under_way.items()):
            if owner == host:
                del self._under_way[future]

    def reconnect(self, host: str, timeout_seconds: float) -> None:
        self.forget(host)
        self._threads.submit(self._agents[host].abandon).add_done_callback(partial(_say_failure, host))
        self._agents[host] = self._agent(host)
        self.send(host, Survey(), timeout_seconds)

    def close(self) -> None:
        for agent in self._agents.values():
            agent.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _say_failure(host: str, done: Future[None]) -> None:
    if not done.cancelled() and (error := done.exception()) is not None:
        log.error("%s: letting go of its last agent failed: %r", host, error, extra={"host": host})


def _answer(host: str, request: Request, done: Future[Reply]) -> HostReply:
    error = done.exception()
    if error is not None:
        return HostReply(
            host=host, request=request, error=error if isinstance(error, Exception) else RuntimeError(error)
        )
    return HostReply(host=host, request=request, reply=done.result())


def inventory(_address: str, root: SysRoot | None) -> InlineInventory:
    """Return this machine, its agent to be in this process."""
    return InlineInventory({platform.node(): root or FolderRoot()})
