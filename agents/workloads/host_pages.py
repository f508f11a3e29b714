"""The page sizes of a host as a workload needs them: which exist, which to take, and how many were given."""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from enum import StrEnum

from agents.errors import AgentError, WorkloadError
from agents.knobs import effective_thp
from agents.numbers import whole_number
from agents.page_sizes import HUGETLB, THP, sizes_in, thp_sizes
from agents.sysroot import SysRoot
from agents.workloads.option import KIB

MADV_POPULATE_WRITE = 23  # Linux 5.14; Python doesn't name it
BASE_PAGE_KIB = mmap.PAGESIZE // KIB


class Backing(StrEnum):
    """Where the memory of a workload comes from."""

    ANONYMOUS = "anonymous"
    HUGETLB = "hugetlb"


def page_sizes_kib(root: SysRoot, backing: Backing) -> tuple[int, ...]:
    """Return the sizes that this kernel offers, ascending; the base page is one of the anonymous ones."""
    if backing is Backing.HUGETLB:
        return sizes_in(root, HUGETLB)
    # A size listed without this knob, such as 8 KiB, exists for shared memory only.
    shared = {size for size in sizes_in(root, THP) if not root.exists(f"{THP}/hugepages-{size}kB/enabled")}
    anonymous = set(thp_sizes(root)) - shared
    return tuple(sorted({BASE_PAGE_KIB, *anonymous}))


def largest_page_kib(root: SysRoot, backing: Backing, region_bytes: int, *, madvise: bool) -> int:
    """Return the largest size with which the host would back a region now: by its knobs, or by its pool's free pages.

    The base page where no bigger size is enabled; WorkloadError where no hugetlb pool suffices.
    """
    fitting = [size for size in page_sizes_kib(root, backing) if region_bytes % (size * KIB) == 0]
    if backing is Backing.HUGETLB:
        enough = [size for size in fitting if free_hugetlb_bytes(root, [size]) >= region_bytes]
        if not enough:
            raise WorkloadError(
                f"no hugetlb pool has {region_bytes:,} bytes free",
                where=f"/{HUGETLB}",
                remedy="set hugetlb/<size>/nr_hugepages in the arm, or lower the region",
            )
        return enough[-1]
    wanted = {"always", "madvise"} if madvise else {"always"}
    return max((size for size in fitting if _effective(root, size) in wanted), default=BASE_PAGE_KIB)


def _effective(root: SysRoot, size_kib: int) -> str:
    try:
        return effective_thp(root, size_kib)
    except AgentError:
        return "never"  # the base page has no knob


def free_hugetlb_bytes(root: SysRoot, sizes_kib: Iterable[int]) -> int:
    """Return the bytes in free pages of these pools that nobody has reserved."""
    return sum(
        size * KIB * max(0, _number(root, f"{folder}/free_hugepages") - _number(root, f"{folder}/resv_hugepages"))
        for size in sizes_kib
        for folder in (f"{HUGETLB}/hugepages-{size}kB",)
    )


def available_bytes(root: SysRoot) -> int | None:
    """Return MemAvailable, or None where the host does not say."""
    try:
        lines = root.read("proc/meminfo").splitlines()
        return next((whole_number(line.split()[1]) * KIB for line in lines if line.startswith(b"MemAvailable:")), None)
    except (OSError, ValueError, IndexError):
        return None


def faults_granted(root: SysRoot, size_kib: int) -> int | None:
    """Return the kernel's count of anonymous faults answered with this size; None where it does not count.

    It counts the whole host since boot: a difference over a short time also holds what others were given in it.
    """
    try:
        return whole_number(root.read(f"{THP}/hugepages-{size_kib}kB/stats/anon_fault_alloc"))
    except (OSError, ValueError):
        return None


def _number(root: SysRoot, path: str) -> int:
    try:
        return whole_number(root.read(path))
    except (OSError, ValueError):
        return 0
