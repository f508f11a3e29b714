"""Memory for a workload: private, anonymous, aligned to the page size wanted."""

from __future__ import annotations

import errno
import mmap
from types import TracebackType

import numpy as np

from agents.errors import WorkloadError
from agents.workloads.cycle import Words, touch
from agents.workloads.host_pages import BASE_PAGE_KIB, MADV_POPULATE_WRITE, Backing
from agents.workloads.option import KIB

# <linux/mman.h>; Python names them from 3.13 on, or not at all.
_MAP_HUGETLB = 0x40000
_MAP_HUGE_SHIFT = 26
_MAP_NORESERVE = 0x4000
_MADV_COLLAPSE = 25  # Linux 6.1
_NOT_NOW = frozenset({errno.EAGAIN, errno.EBUSY, errno.ENOMEM})  # madvise(2): no huge page, or pages that can't move


class Region:
    """A mapping of `size_bytes` whose start is a multiple of the page size. Close it to give the memory back.

    Anonymous memory is not shared: shared memory has huge pages by other rules (shmem_enabled). The kernel gives a big
    page only where one fits whole, and promises no alignment, so a page more is mapped than is used. With hugetlb
    the pages are reserved here: WorkloadError where the pool has too few, instead of SIGBUS at the touch.
    """

    def __init__(self, size_bytes: int, *, backing: Backing, page_size_kib: int, madvise: bool = False) -> None:
        page_bytes = page_size_kib * KIB
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        if backing is Backing.HUGETLB:
            flags |= _MAP_HUGETLB | (page_bytes.bit_length() - 1) << _MAP_HUGE_SHIFT
            length = size_bytes
        else:
            flags |= _MAP_NORESERVE
            length = size_bytes + page_bytes
        try:
            self._memory = mmap.mmap(-1, length, flags=flags)
        except OSError as error:
            raise _refused(error, size_bytes, backing, page_size_kib) from error
        everything = np.frombuffer(self._memory, dtype=np.uint64)
        self._start = -everything.ctypes.data % page_bytes
        self._size = size_bytes
        first = self._start // everything.itemsize
        self.words: Words = everything[first : first + size_bytes // everything.itemsize]
        if madvise and backing is Backing.ANONYMOUS:
            self._memory.madvise(mmap.MADV_HUGEPAGE)

    def populate(self) -> None:
        """Fault everything in at once; OSError, not SIGBUS, where the kernel has no page to give.

        Kernels before 5.14 don't know this advice: there the first byte is touched.
        """
        try:
            self._memory.madvise(MADV_POPULATE_WRITE, self._start, self._size)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self.words[0] = 1

    def collapse(self, start_bytes: int, length_bytes: int) -> bool:
        """Make huge pages of a part that is touched; False where the kernel finds none, or can't move what is there.

        WorkloadError where it does not do that at all: before Linux 6.1, or under PR_SET_THP_DISABLE.
        """
        try:
            self._memory.madvise(_MADV_COLLAPSE, self._start + start_bytes, length_bytes)
        except OSError as error:
            if error.errno in _NOT_NOW:
                return False
            raise WorkloadError(
                f"the kernel does not collapse small pages into big ones: {error.strerror}",
                where="madvise(MADV_COLLAPSE)",
                remedy="it takes Linux 6.1 or newer, and a process that may have huge pages",
            ) from error
        return True

    def close(self) -> None:
        """Give the memory back; every view of it must be gone."""
        self.words = np.empty(0, dtype=np.uint64)
        self._memory.close()

    def __enter__(self) -> Region:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()


def touch_once(region_bytes: int, backing: Backing, page_size_kib: int, *, madvise: bool) -> None:
    """Touch as much memory as will be measured, and give it back.

    A guest's memory that was never used is first given to it by the host, at up to 20 times the cost.
    """
    with Region(region_bytes, backing=backing, page_size_kib=page_size_kib, madvise=madvise) as region:
        touch(region.words, BASE_PAGE_KIB * KIB // 8)


def _refused(error: OSError, size_bytes: int, backing: Backing, page_size_kib: int) -> WorkloadError:
    where = f"mmap of {size_bytes:,} bytes"
    if backing is Backing.HUGETLB:
        if error.errno == errno.ENOMEM:
            return WorkloadError(
                f"the hugetlb pool has too few free pages of {page_size_kib} KiB",
                where=where,
                remedy=f"raise hugetlb/{page_size_kib}kB/nr_hugepages in the arm, or lower the region",
            )
        return WorkloadError(
            f"the kernel refused hugetlb pages of {page_size_kib} KiB: {error.strerror}",
            where=where,
            remedy="choose a size below /sys/kernel/mm/hugepages",
        )
    return WorkloadError(f"the kernel gave no memory: {error.strerror}", where=where, remedy="lower the region")
