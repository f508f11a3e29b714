"""What is known of one metric."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

Better: TypeAlias = Literal["increase", "decrease"]


class MetricKind(StrEnum):
    """How values of a metric are compared over time."""

    COUNTER = "counter"  # only rises while the host is up: a period's value is last minus first
    GAUGE = "gauge"  # a level: a period's value is the mean of its samples


class CataloguePage(StrEnum):
    """What a metric counts whose size is the host's own: two hosts may mean different amounts by one number."""

    BASE = "base page"
    HUGE = "huge page"  # of a PMD


class Owner(StrEnum):
    """Who measures a metric: nobody else's value ever stands under its name."""

    KERNEL = "kernel"
    PERF = "perf"
    DERIVED = "derived"
    FLEETEXP = "fleetexp"
    WORKLOAD = "workload"  # of the kinds in `Metric.reporters`
    SOURCE = "source"  # of `metrics.sources`: no metric of the catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric: its unit, where it is read, what it means.

    `column` gives it a column of its own in the store's sample table. `better` is the direction that is good for the
    host whatever the experiment, None where that depends on what is tried. `reporters` are the kinds of workload whose
    output it is. `page` is what is counted, where that has another size on another host.
    """

    name: str
    unit: str
    kind: MetricKind
    source: str
    meaning: str
    column: bool = False
    better: Better | None = None
    owner: Owner = Owner.KERNEL
    reporters: tuple[str, ...] = ()
    page: CataloguePage | None = None
