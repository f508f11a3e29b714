"""Start a workload: a process of ours, a program of the user's, or the watch over a service."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path

from agents.errors import WorkloadError
from agents.launcher import Launch
from agents.messages import Severity, WorkloadSpec
from agents.sysroot import SysRoot
from agents.workloads.checks import check_workload
from agents.workloads.environment import command_environment, find_identity, find_program, kept_environment
from agents.workloads.kinds.command import Command
from agents.workloads.kinds.service import Service
from agents.workloads.option import Options
from agents.workloads.options import read_options
from agents.workloads.printed import CommandLines, NotRead, OwnLines
from agents.workloads.process import GO, ProcessWorkload
from agents.workloads.running import RunningWorkload
from agents.workloads.service import attach_service

_PACKAGES = Path(__file__).resolve().parents[2]
_COMPILED = Path(__file__).resolve().parent / "__pycache__"


def start_workload(
    spec: WorkloadSpec, *, root: SysRoot, work_dir: Path, time_limit_seconds: float, hold: bool = False
) -> RunningWorkload:
    """Start a workload in a session of its own, its output kept below `work_dir`; WorkloadError where it can't start.

    With `hold` one of ours gets ready (compiles, warms its memory) and measures only after `go`.
    It ends by itself, by `stop`, or killed at its time limit. A workload of ours also ends when this process does.
    """
    options = read_options(spec)
    for problem in check_workload(spec, root):
        if problem.severity is Severity.ERROR:
            raise WorkloadError(problem.what, where=problem.where, remedy=problem.remedy)
    match options:
        case Service():
            return attach_service(options, root)
        case Command():
            return _start_command(options, work_dir, time_limit_seconds)
        case _:
            order = json.dumps({"kind": spec.kind, "options": dict(spec.options)}).encode() + b"\n"
            return _start_own(
                options,
                name=spec.kind,
                order=order if hold else order + GO,
                root=root,
                work_dir=work_dir,
                time_limit_seconds=time_limit_seconds,
            )


def _start_own(
    options: Options, *, name: str, order: bytes, root: SysRoot, work_dir: Path, time_limit_seconds: float
) -> ProcessWorkload:
    path = os.pathsep.join(filter(None, (str(_PACKAGES), os.environ.get("PYTHONPATH"))))
    environment = {**kept_environment(), "PYTHONPATH": path}
    if not os.access(_COMPILED if _COMPILED.exists() else _COMPILED.parent, os.W_OK):
        environment["NUMBA_CACHE_DIR"] = str(root.state_dir / "numba")
    return ProcessWorkload(
        Launch(
            argv=(sys.executable, "-P", "-m", "agents.workloads.run"),
            program=sys.executable,
            environment=environment,
            time_limit_seconds=time_limit_seconds,
            has_stdin=True,
        ),
        name=name,
        printed=OwnLines(),
        work_dir=work_dir,
        may_run_out=options.endless,
        order=order,
    )


def _start_command(options: Command, work_dir: Path, time_limit_seconds: float) -> ProcessWorkload:
    return ProcessWorkload(
        Launch(
            argv=options.argv,
            program=find_program(options),
            environment=command_environment(options),
            user=None if options.user is None else find_identity(options.user).switched_to(),
            time_limit_seconds=min(time_limit_seconds, options.timeout_seconds or math.inf),
        ),
        name="command",
        printed=CommandLines() if options.capture else NotRead(),
        work_dir=work_dir,
        may_run_out=False,
    )
