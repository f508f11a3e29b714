"""Ask for big pages, count what was granted, give them back: how well does this host supply them now?"""

from __future__ import annotations

import itertools
import time
from contextlib import ExitStack
from dataclasses import dataclass

from agents.catalogue.declared import Reported
from agents.errors import WorkloadError
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import Backing, faults_granted
from agents.workloads.memory import (
    PAGES_ASKED,
    PAGES_GRANTED,
    MemoryOptions,
    backing_option,
    madvise_option,
    process_thp_option,
)
from agents.workloads.option import KIB, count, page_size
from agents.workloads.process_thp import ProcessThp
from agents.workloads.workload import Workload


@dataclass(frozen=True, slots=True, kw_only=True)
class Acquire(MemoryOptions):
    """Ask for big pages, count what is granted, give them back."""

    pages: int = count("how many are asked for", 4, least=1, unit="pages")
    page_size_kib: int = page_size("of the pages", must=True)
    backing: Backing = backing_option()
    repeats: int = count("0: until the period ends", 10, default=1)
    madvise: bool = madvise_option()
    process_thp: ProcessThp = process_thp_option()

    @property
    def needed_bytes(self) -> int:
        return self.pages * self.page_size_kib * KIB

    @property
    def counts_faults(self) -> bool:
        return self.backing is Backing.ANONYMOUS


def run_acquire(options: Acquire, root: SysRoot, emit: Emit) -> None:
    """Report `pages_asked`, `pages_granted` and `acquire_seconds`: the time to ask for all, granted or not."""
    ask = _ask_hugetlb if options.backing is Backing.HUGETLB else _ask_anonymous
    emit.ready()
    for _ in range(options.repeats) if options.repeats else itertools.count():
        granted, took = ask(options, root)
        emit.measured(
            {"pages_asked": float(options.pages), "pages_granted": float(granted), "acquire_seconds": took / 1e9}
        )


def _ask_hugetlb(options: Acquire, _root: SysRoot) -> tuple[int, int]:
    """Map the pages one by one and keep all of them: a page that the pool can't give is refused, never a SIGBUS."""
    from agents.workloads.region import Region

    granted = 0
    with ExitStack() as held:
        begun = time.perf_counter_ns()
        for _ in range(options.pages):
            try:
                page = Region(options.page_size_kib * KIB, backing=options.backing, page_size_kib=options.page_size_kib)
                held.enter_context(page)
                page.populate()
            except (WorkloadError, OSError):
                continue
            granted += 1
        took = time.perf_counter_ns() - begun
    return granted, took


def _ask_anonymous(options: Acquire, root: SysRoot) -> tuple[int, int]:
    """Touch one byte of each page, in order; the kernel's own count says how many it answered with a big page."""
    from agents.workloads.cycle import touch
    from agents.workloads.region import Region

    page_bytes = options.page_size_kib * KIB
    with Region(
        options.pages * page_bytes,
        backing=options.backing,
        page_size_kib=options.page_size_kib,
        madvise=options.madvise,
    ) as region:
        before = faults_granted(root, options.page_size_kib)
        begun = time.perf_counter_ns()
        touch(region.words, page_bytes // 8)
        took = time.perf_counter_ns() - begun
        after = faults_granted(root, options.page_size_kib)
    if before is None or after is None:
        raise WorkloadError(
            f"this kernel does not count faults answered with {options.page_size_kib} KiB",
            where="stats/anon_fault_alloc",
            remedy="use a kernel with per-size counters (6.10 or newer), or the hugetlb backing",
        )
    return min(after - before, options.pages), took


WORKLOAD = Workload(
    name="acquire",
    options=Acquire,
    reports=(
        Reported(
            name="acquire_seconds", unit="seconds", meaning="time to obtain the pages asked for", better="decrease"
        ),
        PAGES_ASKED,
        PAGES_GRANTED,
    ),
    run=run_acquire,
)
