"""Which metrics each kind of workload reports."""

from __future__ import annotations

from typing import TypeAlias

from agents.catalogue import CATALOGUE
from agents.messages import WorkloadSpec

Reported: TypeAlias = tuple[str, str, str | None]  # name, unit, direction that is better

_OF_THE_USER = ("command", "service")


def metric_names(spec: WorkloadSpec) -> tuple[Reported, ...]:
    """Return (name, unit, better) of what a workload reports; empty where only its own output can tell."""
    if spec.kind in _OF_THE_USER:
        return ()
    metrics = sorted((one for one in CATALOGUE.values() if spec.kind in one.reporters), key=lambda one: one.name)
    return tuple((one.name, one.unit, one.better) for one in metrics)
