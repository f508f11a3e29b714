"""The latency of each big-page fault over a region, and how many were answered with a big page."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from agents.catalogue.declared import Reported
from agents.errors import WorkloadError
from agents.sysroot import SysRoot
from agents.workloads.emit import Emit
from agents.workloads.host_pages import BASE_PAGE_KIB, Backing, faults_granted
from agents.workloads.memory import (
    FAULT_SECONDS,
    GRANTED_SHARE,
    PAGES_ASKED,
    PAGES_GRANTED,
    RegionOptions,
    backing_option,
    madvise_option,
    pretouch_option,
    process_thp_option,
)
from agents.workloads.option import KIB, Wrong, count, flag, page_size, size
from agents.workloads.process_thp import ProcessThp
from agents.workloads.workload import Workload

PAGES_AT_MOST = 100_000  # each fault is a measurement of its own
_SMALL_BYTES = BASE_PAGE_KIB * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault(RegionOptions):
    """The latency of each big-page fault over a region."""

    region_bytes: int = size("memory that is worked on", "4GiB", default=2**30)
    page_size_kib: int = page_size("of the pages that are faulted in")
    backing: Backing = backing_option()
    fallback: bool = flag("small pages where a hugetlb pool has too few; else it fails then", True, default=False)
    collapse: bool = flag("touch small pages, then have MADV_COLLAPSE make big ones of them", True, default=False)
    whole: bool = flag("touch every small page, so that all of the region is faulted in", True, default=False)
    repeats: int = count("passes over the region; 0: until the period ends", 10, default=1)
    pretouch: bool = pretouch_option()
    madvise: bool = madvise_option()
    process_thp: ProcessThp = process_thp_option()

    def wrong(self) -> Iterator[Wrong]:
        if self.page_size_kib and self.region_bytes > self.page_size_kib * KIB * PAGES_AT_MOST:
            yield (
                "region_bytes",
                f"more than {PAGES_AT_MOST:,} pages of {self.page_size_kib} KiB, each a measurement of its own",
                "choose a smaller region or a bigger page size",
            )
        if self.backing is Backing.HUGETLB and self.collapse:
            yield "collapse", "pages of a hugetlb pool are big already", "use it with anonymous memory"
        if self.fallback and (self.backing is not Backing.HUGETLB or not self.page_size_kib):
            yield "fallback", "it is for hugetlb pages of a size that is named", "name the size, or leave it out"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """What one pass over the region took, in nanoseconds, and how many big pages it was given, None if uncounted."""

    first: Sequence[int]  # by page: until the program may go on after its first touch
    whole: int
    granted: int | None


def run_page_fault(options: PageFault, root: SysRoot, emit: Emit) -> None:
    """Report `fault_latency_seconds` for each big page, then what was asked and granted in the pass.

    The first byte of each big page is touched, in order, from one thread. Where the arm gives smaller pages, the same
    touch costs a smaller fault: what was granted tells them apart. It is absent where the kernel does not count.
    With `whole` the rest of the page is touched before the next one, and `fault_seconds` is the time of all.
    """
    from agents.workloads.clock import clock_cost_nanoseconds
    from agents.workloads.region import touch_once

    page_kib = options.page_kib_on(root)
    if options.pretouch:
        backing = Backing.ANONYMOUS if options.fallback else options.backing
        touch_once(options.region_bytes, backing, page_kib, madvise=options.madvise)
    clock_cost_nanoseconds()  # linked and warm before anything is measured
    emit.ready()
    for _ in range(options.repeats) if options.repeats else itertools.count():
        if options.fallback:
            done = _map_each(options, page_kib)
        elif options.collapse:
            done = _collapse_each(options, page_kib)
        else:
            done = _touch_each(options, page_kib, root)
        for nanoseconds in done.first:
            emit.measured({"fault_latency_seconds": nanoseconds / 1e9})
        asked = len(done.first)
        totals = {"pages_asked": float(asked)}
        if done.granted is not None:
            totals |= {"pages_granted": float(done.granted), "granted_share": done.granted / asked}
        if options.whole:
            totals["fault_seconds"] = done.whole / 1e9
        emit.measured(totals)


def _touch_each(options: PageFault, page_kib: int, root: SysRoot) -> Pass:
    from agents.workloads.clock import time_strides
    from agents.workloads.region import Region

    with Region(
        options.region_bytes, backing=options.backing, page_size_kib=page_kib, madvise=options.madvise
    ) as region:
        before = faults_granted(root, page_kib)
        first, whole = time_strides(region.words, page_kib * KIB, _SMALL_BYTES if options.whole else page_kib * KIB)
        after = faults_granted(root, page_kib)
    granted = None if before is None or after is None else min(after - before, len(first))
    if options.backing is Backing.HUGETLB:
        granted = len(first)  # a hugetlb fault without a page is SIGBUS
    return Pass(first=first.tolist(), whole=int(whole.sum()), granted=granted)


def _map_each(options: PageFault, page_kib: int) -> Pass:
    """Map the pages one by one, as a program would that goes on with small ones where the pool has none left."""
    from agents.workloads.cycle import touch
    from agents.workloads.region import Region

    first, granted, whole = [], 0, 0
    with ExitStack() as held:
        for _ in range(options.region_bytes // (page_kib * KIB)):
            begun = time.perf_counter_ns()
            try:
                page = Region(page_kib * KIB, backing=Backing.HUGETLB, page_size_kib=page_kib)
                held.enter_context(page)
                page.populate()
                granted += 1
            except (WorkloadError, OSError):  # OSError: a cgroup's or a node's limit, told here instead of SIGBUS
                page = Region(
                    page_kib * KIB,
                    backing=Backing.ANONYMOUS,
                    page_size_kib=BASE_PAGE_KIB,
                    madvise=options.madvise,
                )
                held.enter_context(page)
                page.words[0] = 1
            first.append(time.perf_counter_ns() - begun)
            if options.whole:
                touch(page.words, _SMALL_BYTES // page.words.itemsize)
            whole += time.perf_counter_ns() - begun
    return Pass(first=first, whole=whole, granted=granted)


def _collapse_each(options: PageFault, page_kib: int) -> Pass:
    """Touch the small pages of each big one and have them collapsed; both keep the program waiting."""
    from agents.workloads.cycle import touch
    from agents.workloads.region import Region

    first, granted = [], 0
    page_bytes = page_kib * KIB
    with Region(
        options.region_bytes, backing=Backing.ANONYMOUS, page_size_kib=page_kib, madvise=options.madvise
    ) as region:
        itemsize = region.words.itemsize
        for start in range(0, options.region_bytes, page_bytes):
            begun = time.perf_counter_ns()
            touch(region.words[start // itemsize : (start + page_bytes) // itemsize], _SMALL_BYTES // itemsize)
            granted += region.collapse(start, page_bytes)
            first.append(time.perf_counter_ns() - begun)
    return Pass(first=first, whole=sum(first), granted=granted)


WORKLOAD = Workload(
    name="page_fault",
    options=PageFault,
    reports=(
        Reported(name="fault_latency_seconds", unit="seconds", meaning="time of one big-page fault", better="decrease"),
        FAULT_SECONDS,
        PAGES_ASKED,
        PAGES_GRANTED,
        GRANTED_SHARE,
    ),
    run=run_page_fault,
)
