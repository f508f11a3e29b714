"""Limits that act at once, on the stream of readings: a sick kernel, and the spec's tripwires."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample
from analysis.plan import Direction, GuardrailPlan
from fleetexp.orchestrator.messages import GuardrailBreached

# Data loss or a kernel that can't be trusted any more: no experiment is worth going on with.
SICK_KERNEL = frozenset({HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE, HostEventKind.TAINT})


class Tripwires:
    """Watch readings for limits that are crossed. Counters count from the first sample seen on the host in this run."""

    def __init__(self, plans: Iterable[GuardrailPlan], *, counters: frozenset[str]) -> None:
        self._plans = [(plan, plan.tripwire) for plan in plans if plan.tripwire is not None]
        self._counters = counters
        self._first: dict[tuple[str, str], float] = {}

    def watch(self, host: str, readings: Sequence[Reading]) -> GuardrailBreached | None:
        """Return the first breach among these readings of one host, or None."""
        for reading in readings:
            match reading:
                case HostEvent(kind=kind, detail=detail) if kind in SICK_KERNEL:
                    return GuardrailBreached(metric=kind.value, detail=detail, host=host)
                case Sample(values=values):
                    for plan, limit in self._plans:
                        if plan.metric in values and (breach := self._over(host, plan, limit, values[plan.metric])):
                            return breach
                case Measurement(metric=metric, value=value):
                    for plan, limit in self._plans:
                        if plan.metric == metric and (breach := self._over(host, plan, limit, value)):
                            return breach
                case _:
                    pass
        return None

    def _over(self, host: str, plan: GuardrailPlan, limit: float, value: float) -> GuardrailBreached | None:
        amount = value
        if plan.metric in self._counters:
            # A counter that fell has begun anew: a service that was restarted, a host that was rebooted.
            first = min(value, self._first.get((host, plan.metric), value))
            self._first[host, plan.metric] = first
            amount = value - first
        crossed = amount >= limit if plan.worse is Direction.INCREASE else amount <= limit
        if not crossed:
            return None
        return GuardrailBreached(metric=plan.metric, detail=f"{amount:g} reached the tripwire {limit:g}", host=host)
