"""A workload on a simulated host: it reports, whenever it is asked, what the host's model says it would."""

from __future__ import annotations

from pathlib import Path

from agents.catalogue import find_foreign
from agents.errors import WorkloadError
from agents.messages import Problem, WorkloadSpec, WorkloadState
from agents.simulated.kernel import SimulatedRoot
from agents.sysroot import SysRoot
from agents.workloads import Measured
from agents.workloads.options import parse_options


class SimulatedWorkload:
    """Runs from `go` to `stop`; no process, no time limit to run into."""

    pid: int | None = None
    cgroup: str | None = None

    def __init__(self, root: SimulatedRoot, kind: str) -> None:
        self._root = root
        self._kind = kind
        self._state = WorkloadState.STARTING

    def poll(self) -> tuple[WorkloadState, str]:
        return self._state, ""

    def wait_until_ready(self, timeout_seconds: float) -> None:
        """A model needs no warming up."""

    def go(self) -> None:
        self._state = WorkloadState.RUNNING

    def measurements(self) -> list[Measured]:
        if self._state is not WorkloadState.RUNNING:
            return []
        clock = self._root.clock
        self._root.catch_up()
        now, elsewhere = clock.now(), self._root.read_elsewhere
        return [
            (now, metric, value)
            for metric, value in self._root.response_model.measure().items()
            if find_foreign(metric, reporter=self._kind, sources=elsewhere) is None
        ]

    def stop(self, timeout_seconds: float = 10.0) -> bool:
        self._state = WorkloadState.FINISHED
        return True


def check_simulated(spec: WorkloadSpec, root: SysRoot) -> tuple[Problem, ...]:
    """Return what is wrong with a workload's options; what the real host would lack, a simulated one has."""
    return parse_options(spec)[1]


def start_simulated(
    spec: WorkloadSpec, *, root: SysRoot, work_dir: Path, time_limit_seconds: float, hold: bool = False
) -> SimulatedWorkload:
    """Start the model of a workload; WorkloadError where its options are wrong."""
    for problem in check_simulated(spec, root):
        raise WorkloadError(problem.what, where=problem.where, remedy=problem.remedy)
    if not isinstance(root, SimulatedRoot):
        raise WorkloadError("only a simulated host runs simulated workloads", where=repr(root), remedy="start it there")
    root.read_elsewhere = frozenset()  # of an earlier period; the sources of this one come after
    workload = SimulatedWorkload(root, spec.kind)
    if not hold:
        workload.go()
    return workload


def restart_simulated(spec: WorkloadSpec, root: SysRoot) -> str:
    """Restart a service that is only a model: its memory follows the knobs in any case."""
    return f"{spec.kind} restarted, as far as a model can be"
