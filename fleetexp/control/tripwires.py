"""Limits that act at once, on the stream of readings: a sick kernel, and the spec's tripwires."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from agents.catalogue import DerivedMetric, MetricKind, derive, find_derived
from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample
from analysis.plan import GuardrailPlan
from fleetexp.control.messages import GuardrailBreached, TripwireCrossed

# Data loss or a kernel that can't be trusted any more: no experiment is worth going on with.
SICK_KERNEL = frozenset({HostEventKind.KERNEL_OOPS, HostEventKind.BAD_PAGE, HostEventKind.TAINT})


class Tripwires:
    """Watch readings for limits that are crossed. Counters count from the first sample seen on the host in this run.

    A derived level is computed in each sample, a derived ratio of counters from each sample to the next.
    """

    def __init__(self, plans: Iterable[GuardrailPlan], *, counters: frozenset[str]) -> None:
        self._plans = [plan for plan in plans if plan.tripwire is not None]
        self._counters = counters
        found = {plan.metric: find_derived(plan.metric) for plan in self._plans}
        self._derived = {name: metric for name, metric in found.items() if metric is not None}
        self._first: dict[tuple[str, str], float] = {}
        self._before: dict[tuple[str, str], Mapping[str, float]] = {}

    def watch(self, host: str, readings: Sequence[Reading]) -> GuardrailBreached | TripwireCrossed | None:
        """Return the worst among these readings of one host, or None: a sick kernel before a limit that is crossed."""
        crossed: TripwireCrossed | None = None
        for reading in readings:
            if isinstance(reading, HostEvent):
                if reading.kind in SICK_KERNEL:
                    return GuardrailBreached(metric=reading.kind.value, detail=reading.detail, host=host)
            elif self._plans:
                crossed = self._crossed(host, reading) or crossed
        return crossed

    def _crossed(self, host: str, reading: Sample | Measurement) -> TripwireCrossed | None:
        for plan in self._plans:
            value = self._value(host, plan.metric, reading)
            if value is not None and (crossed := TripwireCrossed.of(host, plan, value)) is not None:
                return crossed
        return None

    def _value(self, host: str, metric: str, reading: Sample | Measurement) -> float | None:
        if isinstance(reading, Measurement):
            return self._amount(host, metric, reading.value) if reading.metric == metric else None
        if metric in reading.values:
            return self._amount(host, metric, reading.values[metric])
        derived = self._derived.get(metric)
        return None if derived is None else self._derive(host, derived, reading.values)

    def _amount(self, host: str, metric: str, value: float) -> float:
        if metric not in self._counters:
            return value
        # A counter that fell has begun anew: a service that was restarted, a host that was rebooted.
        first = min(value, self._first.get((host, metric), value))
        self._first[host, metric] = first
        return value - first

    def _derive(self, host: str, metric: DerivedMetric, values: Mapping[str, float]) -> float | None:
        if metric.kind is MetricKind.GAUGE:
            return derive(metric, values)
        now = {name: values[name] for name in metric.inputs if name in values}
        before = self._before.get((host, metric.name), {})
        self._before[host, metric.name] = now
        risen = {name: value - before[name] for name, value in now.items() if name in before}
        return None if any(rise < 0 for rise in risen.values()) else derive(metric, risen)
