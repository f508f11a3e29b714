"""Which metrics each kind of workload reports."""

from __future__ import annotations

from typing import TypeAlias

from agents.messages import WorkloadSpec
from agents.workloads.workload import workloads

Named: TypeAlias = tuple[str, str, str | None]  # name, unit, direction that is better


def metric_names(spec: WorkloadSpec) -> tuple[Named, ...]:
    """Return (name, unit, better) of what a workload reports; empty where only its own output can tell."""
    kind = workloads()[spec.kind]
    if kind.run is None:
        return ()
    return tuple(sorted((one.name, one.unit, one.better) for one in kind.reports))
