"""What an agent works with beside the host's files: its beat, its guardian, its workloads. A simulation has its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agents.beat import BeatMaker, ThreadBeat
from agents.messages import Problem, WorkloadSpec
from agents.sysroot import SysRoot
from agents.workloads import RunningWorkload, check_workload, restart_service, start_workload


class WorkloadStart(Protocol):
    """`agents.workloads.start_workload`."""

    def __call__(
        self, spec: WorkloadSpec, *, root: SysRoot, work_dir: Path, time_limit_seconds: float, hold: bool = False
    ) -> RunningWorkload: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """By default those of a real host: a thread, a guardian process, processes and services."""

    beat: BeatMaker = ThreadBeat
    guardian_command: Sequence[str] | None = None  # as `take_claim` takes it; () for no process
    check_workload: Callable[[WorkloadSpec, SysRoot], tuple[Problem, ...]] = check_workload
    start_workload: WorkloadStart = start_workload
    restart_service: Callable[[WorkloadSpec, SysRoot], str] = restart_service


REAL_MEANS = Means()
