"""What an agent works with beside the host's files: timer, guardian, workloads. A simulation has its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agents.messages import MetricSource, Problem, WorkloadSpec
from agents.metric_sources.check import check_sources
from agents.metric_sources.period_sources import PeriodSources
from agents.period import Fed
from agents.sampling_timer import ThreadTimer, TimerMaker
from agents.sysroot import SysRoot
from agents.workloads import RunningWorkload, check_workload, restart_service, start_workload


class WorkloadStart(Protocol):
    """`agents.workloads.start_workload`."""

    def __call__(
        self, spec: WorkloadSpec, *, root: SysRoot, work_dir: Path, time_limit_seconds: float, hold: bool = False
    ) -> RunningWorkload: ...


class SourcesCheck(Protocol):
    """`agents.metric_sources.check.check_sources`."""

    def __call__(self, sources: Sequence[MetricSource], root: SysRoot, *, host: str) -> tuple[Problem, ...]: ...


class FeedsMaker(Protocol):
    """`agents.metric_sources.period_sources.Feeds`."""

    def __call__(
        self, sources: Sequence[MetricSource], root: SysRoot, *, host: str, sample_every_seconds: float
    ) -> Fed: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HostServices:
    """By default those of a real host: threads, a guardian process, processes, services, addresses asked."""

    timer: TimerMaker = ThreadTimer
    guardian_command: Sequence[str] | None = None  # as `take_claim` takes it; () for no process
    check_workload: Callable[[WorkloadSpec, SysRoot], tuple[Problem, ...]] = check_workload
    start_workload: WorkloadStart = start_workload
    restart_service: Callable[[WorkloadSpec, SysRoot], str] = restart_service
    check_sources: SourcesCheck = check_sources
    metric_sources: FeedsMaker = PeriodSources


REAL_MEANS = HostServices()
