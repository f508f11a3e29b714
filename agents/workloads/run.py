"""The process that a workload of ours runs in: `python -m agents.workloads.run`, one spec on stdin.

Stdin stays open as long as the agent lives. When it ends, for whatever reason, this process ends itself at once: a
death signal from the kernel (PR_SET_PDEATHSIG) would follow the thread that started us, not the agent. SIGTERM has
its default action, so a repeat that is under way is dropped and no line is ever half written.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from agents.errors import WorkloadError
from agents.messages import WorkloadSpec
from agents.sysroot import FolderRoot, SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import BASE_PAGE_KIB, Backing
from agents.workloads.memory import MemoryOptions
from agents.workloads.options import read_options
from agents.workloads.process_thp import tell_kernel
from agents.workloads.workload import workloads

ORPHANED = 70


def main() -> int:
    """Read the spec, measure, report; 0 when it finished by itself, 1 when it could not."""
    go = threading.Event()
    emit = Emit(go=go.wait)
    with open(0, "rb", buffering=0, closefd=False) as stdin:  # unbuffered: what comes after the line is the watch's
        line = stdin.readline()
    threading.Thread(target=_end_with_the_agent, args=(go,), name="agent-watch", daemon=True).start()
    _be_the_first_victim()
    try:
        message = json.loads(line)
        spec = WorkloadSpec(kind=message["kind"], options=message["options"])
        run_spec(spec, FolderRoot("/"), emit)
    except WorkloadError as error:
        emit.failed(what=error.what, where=error.where, remedy=error.remedy)
        return 1
    return 0


def run_spec(spec: WorkloadSpec, root: SysRoot, emit: Emit) -> None:
    """Run one of our workloads to its end; WorkloadError where it can't run or must not be believed."""
    options = read_options(spec)
    run = workloads()[spec.kind].run
    if run is None:
        raise WorkloadError(f"{spec.kind} does not run in this process", where="workload", remedy="start it as it is")
    if isinstance(options, MemoryOptions):
        _check_not_switched_off(options, root)
        tell_kernel(options.process_thp)
    run(options, root, emit)


def _check_not_switched_off(options: MemoryOptions, root: SysRoot) -> None:
    """Refuse where PR_SET_THP_DISABLE was inherited: no knob of any arm would reach this process."""
    if options.backing is Backing.HUGETLB or options.page_size_kib == BASE_PAGE_KIB:
        return
    if b"THP_enabled:\t0" in root.read("proc/self/status"):
        raise WorkloadError(
            "transparent huge pages are switched off for this process (PR_SET_THP_DISABLE, inherited)",
            where="/proc/self/status, THP_enabled",
            remedy="start the agent from a parent that does not switch them off",
        )


def _be_the_first_victim() -> None:
    """Ask the kernel to kill this process before any other when memory runs out: a benchmark is worth least here."""
    Path("/proc/self/oom_score_adj").write_text("1000")


def _end_with_the_agent(go: threading.Event) -> None:
    with suppress(OSError):
        while os.read(0, 4096):  # the agent writes one line only: to let the measuring begin
            go.set()
    os._exit(ORPHANED)


if __name__ == "__main__":
    sys.exit(main())
