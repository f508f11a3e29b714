"""Metrics that are declared where they are measured: by each workload, and by each collector of files of its own."""

from __future__ import annotations

from dataclasses import dataclass

from agents.catalogue.metric import Better, Metric
from agents.registry import Group, added, ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Reported:
    """A metric of a reporter: its name is this one's alone, or shared with others that declare the same."""

    name: str
    unit: str
    meaning: str
    better: Better | None = None


THROUGHPUT = Reported(
    name="throughput",
    unit="operations per second",
    meaning="work done, as the workload counts it",
    better="increase",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reporter:
    """A kind of workload, as far as its metrics go."""

    name: str
    reports: tuple[Reported, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """A collector, as far as its metrics go."""

    metrics: tuple[Metric, ...]


def own_collectors() -> tuple[Collected, ...]:
    """Return every collector of fleetexp's that has files of its own."""
    return ours(Group.COLLECTORS, Collected)


def added_collectors() -> tuple[Collected, ...]:
    """Return those of users' packages."""
    return added(Group.COLLECTORS, Collected)


def reporters() -> tuple[Reporter, ...]:
    """Return every kind of workload, fleetexp's before those of users' packages."""
    return (*ours(Group.WORKLOADS, Reporter), *added(Group.WORKLOADS, Reporter))
