"""Which metrics each kind of workload reports."""

from __future__ import annotations

from typing import TypeAlias

from agents.catalogue import describe
from agents.messages import WorkloadSpec

Reported: TypeAlias = tuple[str, str, str | None]  # name, unit, direction that is better

_NAMES = {
    "pointer_chase": ("access_nanoseconds_per_dereference", "access_seconds", "fault_seconds"),
    "page_fault": ("fault_latency_seconds", "pages_asked", "pages_granted"),
    "acquire": ("acquire_seconds", "pages_asked", "pages_granted"),
}


def metric_names(spec: WorkloadSpec) -> tuple[Reported, ...]:
    """Return (name, unit, better) of what a workload reports; empty where only its own output can tell."""
    metrics = (describe(name) for name in _NAMES.get(spec.kind, ()))
    return tuple((metric.name, metric.unit, metric.better) for metric in metrics)
