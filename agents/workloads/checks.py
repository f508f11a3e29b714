"""What would keep a workload from running on this host, found without starting anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agents.errors import WorkloadError
from agents.messages import Problem, Severity, WorkloadSpec
from agents.sysroot import SysRoot
from agents.workloads.environment import find_identity, find_program
from agents.workloads.host_pages import BASE_PAGE_KIB, available_bytes, faults_granted, free_hugetlb_bytes
from agents.workloads.host_pages import page_sizes_kib as sizes_of
from agents.workloads.options import KIB, Acquire, Backing, Command, Memory, Service, parse_options
from agents.workloads.service import attach_service


def check_workload(spec: WorkloadSpec, root: SysRoot) -> tuple[Problem, ...]:
    """Return every problem: options, memory, page sizes, program, user, unit or cgroup. Starts and changes nothing.

    A hugetlb pool that is too small is no problem here: an arm may be about to raise it.
    """
    options, problems = parse_options(spec)
    match options:
        case None:
            return problems
        case Command():
            return tuple(_command(options))
        case Service():
            return tuple(_service(options, root))
        case _:
            return tuple(_memory(spec.kind, options, root))


def _problem(what: str, where: str, remedy: str) -> Problem:
    return Problem(severity=Severity.ERROR, what=what, where=where, remedy=remedy)


def _translated(error: WorkloadError) -> Problem:
    return _problem(error.what, error.where, error.remedy)


def _memory(kind: str, options: Memory, root: SysRoot) -> Iterator[Problem]:
    where = f"workload {kind}"
    if not root.real:
        yield _problem(
            f"{kind} measures this machine's memory, not that of the host looked at",
            f"{where}, {root!r}",
            "use it in a real fleet",
        )
        return
    size = options.page_size_kib
    sizes = sizes_of(root, options.backing)
    if size and size not in sizes:
        here = ", ".join(f"{known} KiB" for known in sizes) or "none"
        yield _problem(
            f"this kernel has no {options.backing} pages of {size} KiB",
            f"{where}, page_size_kib",
            f"choose one of its sizes ({here}), or run a kernel that has this one",
        )
        return
    needed = options.pages * size * KIB if isinstance(options, Acquire) else options.region_bytes
    page_bytes = (size or BASE_PAGE_KIB) * KIB
    if needed % page_bytes:
        yield _problem(
            f"{needed:,} bytes are no multiple of the page size of {page_bytes:,} bytes",
            f"{where}, region_bytes",
            f"choose {needed + -needed % page_bytes:,} bytes",
        )
    yield from _room(where, needed, options.backing, root)
    if (
        isinstance(options, Acquire)
        and options.backing is Backing.ANONYMOUS
        and size != BASE_PAGE_KIB
        and faults_granted(root, size) is None
    ):
        yield _problem(
            f"this kernel does not count the faults that it answers with {size} KiB",
            f"{where}, page_size_kib",
            "use a kernel with per-size counters (6.10 or newer), or the hugetlb backing",
        )


def _room(where: str, needed: int, backing: Backing, root: SysRoot) -> Iterator[Problem]:
    available = available_bytes(root)
    if available is None:
        return
    pools = free_hugetlb_bytes(root, sizes_of(root, backing)) if backing is Backing.HUGETLB else 0
    if needed > available + pools:
        yield _problem(
            f"{needed:,} bytes are asked for, and {available + pools:,} bytes are available",
            f"{where}, MemAvailable",
            "lower the size; the host's own services must keep their memory",
        )


def _command(options: Command) -> Iterator[Problem]:
    try:
        identity = find_identity(options.user) if options.user is not None else None
        find_program(options)
    except WorkloadError as error:
        yield _translated(error)
        return
    if identity is not None and os.geteuid() not in {0, identity.uid}:
        yield _problem(
            f"only root can run a command as {identity.name}",
            "workload command, user",
            f"run the agent as root or as {identity.name}",
        )


def _service(options: Service, root: SysRoot) -> Iterator[Problem]:
    if options.unit is not None and not root.real:
        yield _problem(
            f"{options.unit} runs on this machine, not on the host looked at",
            f"workload service, {root!r}",
            "use a unit in a real fleet, or give a cgroup",
        )
        return
    try:
        attach_service(options, root)
    except WorkloadError as error:
        yield _translated(error)
