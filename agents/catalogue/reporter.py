"""Who reports metrics that nobody reads from the host: what each workload declares of them."""

from __future__ import annotations

from dataclasses import dataclass

from agents.catalogue.metric import Better
from agents.registry import declared_in


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


def reporters() -> tuple[Reporter, ...]:
    """Return every kind of workload."""
    return declared_in("agents.workloads.kinds", Reporter)
