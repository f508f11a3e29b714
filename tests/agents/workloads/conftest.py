"""Workloads started for a test are over when it is, whatever it asserts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents.messages import Scalar, WorkloadSpec, WorkloadState
from agents.sysroot import FolderRoot, SysRoot
from agents.workloads import RunningWorkload, start_workload

LIVE = {WorkloadState.STARTING, WorkloadState.RUNNING}


class Runs:
    """Starts workloads of this machine, waits for what they do, and stops them at the end."""

    def __init__(self, work_dir: Path) -> None:
        self.work_dir = work_dir
        self.root: SysRoot = FolderRoot()
        self._started: list[RunningWorkload] = []

    def start(
        self, kind: str, *, limit: float = 60.0, hold: bool = False, **options: Scalar | tuple[Scalar, ...]
    ) -> RunningWorkload:
        spec = WorkloadSpec(kind=kind, options=options)
        workload = start_workload(spec, root=self.root, work_dir=self.work_dir, time_limit_seconds=limit, hold=hold)
        self._started.append(workload)
        return workload

    def command(self, script: str, *, limit: float = 30.0, **options: Scalar | tuple[Scalar, ...]) -> RunningWorkload:
        return self.start("command", limit=limit, argv=("sh", "-c", script), **options)

    def until(self, true: Callable[[], bool], *, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, f"not within {seconds:g} s"
            time.sleep(0.005)

    def ended(self, workload: RunningWorkload, *, seconds: float = 60.0) -> tuple[WorkloadState, str]:
        self.until(lambda: workload.poll()[0] not in LIVE, seconds=seconds)
        return workload.poll()

    def stop_all(self) -> None:
        for workload in self._started:
            workload.stop(timeout_seconds=1.0)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path / "work")
    yield made
    made.stop_all()
