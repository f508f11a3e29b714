"""One simulated host: its agent and guardian, and everything that happens there in the order of virtual time."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from agents.errors import AgentError
from agents.facts import survey
from agents.host_agent import HostAgent
from agents.host_services import HostServices
from agents.messages import Claimed, HostFacts, Reply, Request, Survey
from agents.simulated.faults import Fault, Lie, Oops, Reboot, Refuse, Rewrite, Vanish
from agents.simulated.guardian import SimulatedGuardian
from agents.simulated.kernel import SimulatedRoot
from agents.simulated.metric_sources import SimulatedFeeds, check_simulated_sources
from agents.simulated.workload import check_simulated, restart_simulated, start_simulated

_LEAST_WAIT_SECONDS = 1e-6  # the guardian looks again just after its lease has run out, not just before


@dataclass(frozen=True, slots=True)
class Handled:
    """What a request came to, and when: a reply, an error of the agent, or no agent (`lost`)."""

    at_seconds: float
    reply: Reply | None = None
    error: Exception | None = None
    lost: bool = False


class SimulatedHost:
    """Driven from outside: nothing happens here but in `advance`, `handle` and `reconnect`."""

    def __init__(
        self,
        root: SimulatedRoot,
        *,
        host: str,
        run: str,
        labels: Mapping[str, str] | None = None,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.root = root
        self._host = host
        self._run = run
        self._labels = dict(labels or {})
        self._numbers = itertools.count()
        self._timeline: list[tuple[float, int, Callable[[], None]]] = []
        self._reachable = True
        self._boot = 0  # ticks and guardians of an earlier boot are dead
        self._guarding = False
        self._agent: HostAgent | None = self._new_agent()
        for fault in faults:
            self.plant(fault)

    def _new_agent(self) -> HostAgent:
        services = HostServices(
            timer=self._timer,
            guardian_command=(),
            check_workload=check_simulated,
            start_workload=start_simulated,
            restart_service=restart_simulated,
            check_sources=check_simulated_sources,
            metric_sources=SimulatedFeeds,
        )
        return HostAgent(root=self.root, host=self._host, run=self._run, labels=self._labels, services=services)

    # ------------------------------------------------------------------ requests
    def handle(self, request: Request, at_seconds: float) -> Handled | None:
        """Serve a request that reaches the host at this instant; None where it does not reach it."""
        self.advance(at_seconds)
        if not self._reachable:
            return None
        if self._agent is None:
            return Handled(at_seconds, error=ConnectionError("the agent has died"), lost=True)
        try:
            reply = self._agent.handle(request)
        except (AgentError, OSError) as error:
            return Handled(self.root.clock.monotonic(), error=error)
        if isinstance(reply, Claimed):
            self._guard()
        return Handled(self.root.clock.monotonic(), reply=reply)

    def reconnect(self, at_seconds: float) -> Handled | None:
        """Put a new agent in the place of the old one and survey the host; None where it can't be reached."""
        self.advance(at_seconds)
        if not self._reachable:
            return None
        if self._agent is not None:
            self._agent.abandon()
        self._agent = self._new_agent()
        return self.handle(Survey(), at_seconds)

    def facts(self) -> HostFacts:
        """Look the host over, without its agent."""
        return survey(self.root, host=self._host, labels=self._labels)

    def close(self) -> None:
        """End the agent as it ends by itself: what it still holds is put back."""
        if self._agent is not None:
            self._agent.close()
            self._agent = None

    # ------------------------------------------------------------------ time
    def advance(self, to_seconds: float) -> None:
        """Let everything happen that is due up to this instant."""
        clock = self.root.clock
        while self._timeline and self._timeline[0][0] <= to_seconds:
            at, _, act = heapq.heappop(self._timeline)
            clock.reach(at)
            act()
        clock.reach(to_seconds)

    def schedule(self, seconds: float, act: Callable[[], None]) -> None:
        """Let something happen on this host at an instant of virtual time."""
        heapq.heappush(self._timeline, (seconds, next(self._numbers), act))

    def _timer(self, every_seconds: float, act: Callable[[], None], _: str) -> _Timer:
        return _Timer(self, every_seconds, act)

    def _guard(self) -> None:
        """Have a guardian watch the claim that was just taken."""
        guardian, boot = SimulatedGuardian(self.root), self._boot

        def wake() -> None:
            if boot != self._boot:
                return
            seconds = guardian.wake()
            self._guarding = seconds is not None
            if seconds is not None:
                self.schedule(self.root.clock.monotonic() + max(seconds, _LEAST_WAIT_SECONDS), wake)

        if not self._guarding:  # else the one that watches looks after the host's new claim too
            wake()

    # ------------------------------------------------------------------ what goes wrong
    def plant(self, fault: Fault) -> None:
        """Let something go wrong in its time; UnknownKnob, ValueError where it can't on this machine."""
        match fault:
            case Refuse() | Lie():
                self.root.plant(fault)
            case Rewrite(knob=knob, value=value, at_seconds=at):
                self.schedule(at, lambda: self.root.set(knob, value))
            case Oops(message=message, at_seconds=at):
                self.schedule(at, lambda: self.root.oops(message))
            case Vanish(at_seconds=at, until_seconds=until):
                self.schedule(at, lambda: self._reach(to_be=False))
                self.schedule(until, lambda: self._reach(to_be=True))
            case Reboot(at_seconds=at, down_seconds=down):
                self.schedule(at, self._go_down)
                self.schedule(at + down, self._come_up)

    def _reach(self, *, to_be: bool) -> None:
        self._reachable = to_be

    def _go_down(self) -> None:
        self._boot += 1
        self._guarding = False
        self._reachable = False
        if self._agent is not None:
            self._agent.abandon()
            self._agent = None

    def _come_up(self) -> None:
        self.root.reboot()
        self._reachable = True

    @property
    def boot(self) -> int:
        """How often the host has gone down."""
        return self._boot


class _Timer:
    """A period's timer on the host's timeline. It dies with its boot."""

    def __init__(self, host: SimulatedHost, every_seconds: float, act: Callable[[], None]) -> None:
        self._host = host
        self._every = every_seconds
        self._act = act
        self._running = False
        self._boot = host.boot

    def start(self) -> None:
        self._running = True
        self._next()

    def stop(self) -> None:
        self._running = False

    def _next(self) -> None:
        self._host.schedule(self._host.root.clock.monotonic() + self._every, self._timer)

    def _timer(self) -> None:
        if self._running and self._boot == self._host.boot:
            self._act()
            self._next()
