"""The hosts of a run as the machine sees them, and the one place where they are counted.

Every question that an event raises about the whole fleet (is anybody left? how many have failed? whose time is up?)
is answered from the counts and the alarms here: it costs the same for ten hosts and for ten thousand.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from fleetexp.control.messages import ApplyArm, RevertHost, Snapshot
from fleetexp.domain import PeriodPlan, Plan, UnitPlan, UnitState

Change = Snapshot | ApplyArm | RevertHost


class HostCounts(NamedTuple):
    """What is counted of a unit (0 or 1, periods apart); of the whole registry, the sums."""

    unheard: int = 0  # preflight has had no answer yet
    open: int = 0  # it is, or may be, changed
    to_measure: int = 0  # it has periods to go, and takes part
    failed: int = 0
    troubled: int = 0  # it failed or was lost at some time: what the cap counts
    claimed: int = 0
    unrestored: int = 0
    changing: int = 0
    periods_left: int = 0


@dataclass(slots=True)
class HostState:
    """One host as the machine sees it."""

    plan: UnitPlan
    queue: deque[PeriodPlan]
    state: UnitState = field(init=False, default=UnitState.IDLE)
    current: PeriodPlan | None = field(init=False, default=None)
    holds: tuple[str, int, int] | None = field(init=False, default=None)  # (arm, block, attempt) that was applied last
    deadline: float | None = field(init=False, default=None)  # when the current period ends; infinite at a gate
    remaining_seconds: float = field(init=False, default=0.0)  # of the current period, when the gate was reached
    begun: bool = field(init=False, default=False)  # its measurement has begun once
    checked: bool = field(init=False, default=False)
    claimed: bool = field(init=False, default=False)  # a Snapshot was sent: from here on only a Revert is the way out
    troubled: bool = field(init=False, default=False)  # it failed or was lost at some time
    failed: str = field(init=False, default="")  # why this host takes no further part
    tripped: str = field(init=False, default="")  # the tripwire that took it out
    unrestored: str = field(init=False, default="")  # why its knobs can't be said to read as found
    under_way: Change | None = field(init=False, default=None)  # the change that the host is at work on
    waiting: Change | None = field(init=False, default=None)  # the change that it will be asked for when its turn comes
    reconnects: int = field(init=False, default=0)
    reconnect_at: float | None = field(init=False, default=None)

    @property
    def host(self) -> str:
        return self.plan.host

    @property
    def done(self) -> bool:
        """Nothing more can or need be done with this host."""
        return self.state is UnitState.REVERTED or bool(self.unrestored)

    @property
    def awaited(self) -> bool:
        """It takes part, and its measurement has not begun yet."""
        return not (self.begun or self.failed or self.done)

    @property
    def counts(self) -> HostCounts:
        return HostCounts(
            unheard=not (self.checked or self.failed),
            open=not self.done,
            to_measure=bool(self.queue) and not self.failed,
            failed=bool(self.failed),
            troubled=self.troubled,
            claimed=self.claimed,
            unrestored=bool(self.unrestored),
            changing=self.under_way is not None,
            periods_left=len(self.queue) + (self.current is not None),
        )


@dataclass(slots=True)
class HostRegistry:
    """Every unit by its host. Whoever changes a unit says so with `count`."""

    units: dict[str, HostState]
    periods_planned: int = 0
    counts: HostCounts = field(init=False, default_factory=HostCounts)
    states: Counter[UnitState] = field(init=False, default_factory=Counter)
    awaited: Counter[int] = field(init=False, default_factory=Counter)  # stage -> its hosts that don't measure yet
    _known: dict[str, tuple[HostCounts, UnitState, bool]] = field(init=False, default_factory=dict)
    _alarms: list[tuple[float, str]] = field(init=False, default_factory=list)
    _line: deque[str] = field(init=False, default_factory=deque)  # hosts whose change waits for its turn

    @classmethod
    def of(cls, plan: Plan) -> HostRegistry:
        registry = cls(
            units={unit.host: HostState(plan=unit, queue=deque(unit.periods)) for unit in plan.units},
            periods_planned=sum(len(unit.periods) for unit in plan.units),
        )
        registry.count_all()
        return registry

    def count(self, unit: HostState) -> None:
        """Take note of what has become of a unit."""
        new, state, awaited = unit.counts, unit.state, unit.awaited
        old, was, was_awaited = self._known.get(unit.host, (HostCounts(), None, False))
        self.awaited[unit.plan.stage] += awaited - was_awaited
        if state is not was:
            self.states[state] += 1
            if was is not None:
                self.states[was] -= 1
        if new != old:
            self.counts = HostCounts(*(a + b - c for a, b, c in zip(self.counts, new, old, strict=True)))
        self._known[unit.host] = (new, state, awaited)

    def count_all(self) -> None:
        for unit in self.units.values():
            self.count(unit)

    # ------------------------------------------------------------------ whose time is up
    def alarm(self, unit: HostState, at: float) -> None:
        """Look at the unit again at this instant."""
        heapq.heappush(self._alarms, (at, unit.host))

    def due(self, now: float) -> Iterator[HostState]:
        """Yield the units whose alarm has rung; what it was for may have passed meanwhile."""
        while self._alarms and self._alarms[0][0] <= now:
            yield self.units[heapq.heappop(self._alarms)[1]]

    # ------------------------------------------------------------------ whose turn it is
    def queue_up(self, unit: HostState, change: Change) -> None:
        """Let a change wait for its turn; where the unit has let go of it by then, the turn passes."""
        unit.waiting = change
        self._line.append(unit.host)

    def next_in_line(self) -> HostState | None:
        """Return the unit that has waited longest, None where nobody waits."""
        while self._line:
            unit = self.units[self._line.popleft()]
            if unit.waiting is not None:
                return unit
        return None


def names(hosts: Iterable[str], *, shown: int = 10) -> str:
    """Write a list of hosts, the first of them by name."""
    known = list(hosts)
    more = f" and {len(known) - shown} more" if len(known) > shown else ""
    return ", ".join(known[:shown]) + more
