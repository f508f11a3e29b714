"""What would keep a workload from running on this host, found without starting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agents.errors import WorkloadError
from agents.messages import Problem, WorkloadSpec
from agents.sysroot import SysRoot
from agents.workloads.environment import find_identity, find_program
from agents.workloads.fields import refusal
from agents.workloads.kinds.command import Command
from agents.workloads.kinds.service import Service
from agents.workloads.memory import MemoryOptions, check_memory
from agents.workloads.options import parse_options
from agents.workloads.service import attach_service


def check_workload(spec: WorkloadSpec, root: SysRoot) -> tuple[Problem, ...]:
    """Return every problem: options, memory, page sizes, program, user, unit or cgroup. Starts and changes nothing."""
    options, problems = parse_options(spec)
    match options:
        case None:
            return problems
        case Command():
            return tuple(_command(options))
        case Service():
            return tuple(_service(options, root))
        case MemoryOptions():
            return tuple(check_memory(spec.kind, options, root))
        case _:
            return ()


def _command(options: Command) -> Iterator[Problem]:
    try:
        identity = find_identity(options.user) if options.user is not None else None
        find_program(options)
    except WorkloadError as error:
        yield refusal(error.what, error.where, error.remedy)
        return
    if identity is not None and os.geteuid() not in {0, identity.uid}:
        yield refusal(
            f"only root can run a command as {identity.name}",
            "workload command, user",
            f"run the agent as root or as {identity.name}",
        )


def _service(options: Service, root: SysRoot) -> Iterator[Problem]:
    if options.unit is not None and not root.real:
        yield refusal(
            f"{options.unit} runs on this machine, not on the host looked at",
            f"workload service, {root!r}",
            "use a unit in a real fleet, or give a cgroup",
        )
        return
    try:
        attach_service(options, root)
    except WorkloadError as error:
        yield refusal(error.what, error.where, error.remedy)
