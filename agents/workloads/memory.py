"""What workloads that touch memory have in common: where it comes from, and whether this host can give so much."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

from agents.catalogue.declared import Reported
from agents.messages import Problem
from agents.page_sizes import pmd_kib
from agents.sysroot import SysRoot
from agents.workloads.fields import refusal
from agents.workloads.host_pages import (
    BASE_PAGE_KIB,
    Backing,
    available_bytes,
    faults_granted,
    free_hugetlb_bytes,
    largest_page_kib,
)
from agents.workloads.host_pages import page_sizes_kib as sizes_of
from agents.workloads.option import KIB, Options, choice, flag
from agents.workloads.process_thp import ProcessThp

FAULT_SECONDS = Reported(
    name="fault_seconds", unit="seconds", meaning="time to fault the whole region in", better="decrease"
)
PAGES_ASKED = Reported(name="pages_asked", unit="pages", meaning="big pages asked for")
PAGES_GRANTED = Reported(name="pages_granted", unit="pages", meaning="big pages really given", better="increase")
GRANTED_SHARE = Reported(
    name="granted_share", unit="ratio", meaning="of the big pages asked for, the part really given", better="increase"
)


class MemoryOptions(Options):
    """Base of the options of a workload that touches memory: each has these five."""

    __slots__ = ()

    @property
    @abstractmethod
    def backing(self) -> Backing: ...

    @property
    @abstractmethod
    def page_size_kib(self) -> int:
        """0: the largest that is enabled when it starts."""

    @property
    @abstractmethod
    def repeats(self) -> int:
        """0: until stopped."""

    @property
    @abstractmethod
    def madvise(self) -> bool: ...

    @property
    @abstractmethod
    def process_thp(self) -> ProcessThp: ...

    @property
    @abstractmethod
    def needed_bytes(self) -> int:
        """The memory that it touches at once."""

    @property
    def counts_faults(self) -> bool:
        """Whether it can't do without the kernel's count of faults that were answered with its page size."""
        return False

    @property
    def collapse(self) -> bool:
        """Whether it has small pages made big by MADV_COLLAPSE."""
        return False

    @property
    def endless(self) -> bool:
        return self.repeats == 0


class RegionOptions(MemoryOptions):
    """Base of the options of a workload that touches one region."""

    __slots__ = ()

    @property
    @abstractmethod
    def region_bytes(self) -> int: ...

    @property
    def needed_bytes(self) -> int:
        return self.region_bytes

    def page_kib_on(self, root: SysRoot) -> int:
        """Return the page size asked for, else the largest with which this process would be backed here and now."""
        if self.page_size_kib:
            return self.page_size_kib
        if self.collapse:
            return pmd_kib(root) or BASE_PAGE_KIB
        if self.backing is Backing.ANONYMOUS and not self.process_thp.takes(madvise=self.madvise):
            return BASE_PAGE_KIB
        return largest_page_kib(root, self.backing, self.region_bytes, madvise=self.madvise)


def backing_option() -> Any:  # noqa: ANN401 - an option
    return choice("where the pages come from", "hugetlb", Backing, default=Backing.ANONYMOUS)


def madvise_option() -> Any:  # noqa: ANN401 - an option
    return flag("ask with MADV_HUGEPAGE", True, default=False)


def process_thp_option() -> Any:  # noqa: ANN401 - an option
    return choice(
        "prctl: the process takes none, or only where it asks with MADV_HUGEPAGE (Linux 6.18), whatever the knobs say",
        "only_advised",
        ProcessThp,
        default=ProcessThp.AS_FOUND,
    )


def pretouch_option() -> Any:  # noqa: ANN401 - an option
    return flag("touch small pages once before: fresh memory of a guest is slow at first", False, default=True)


def check_memory(kind: str, options: MemoryOptions, root: SysRoot) -> Iterator[Problem]:
    """Yield why this host's memory would not do: not there, not of that page size, too little.

    A hugetlb pool that is too small is not a problem here: an arm may be about to raise it.
    """
    where = f"workload {kind}"
    if not root.real:
        yield refusal(
            f"{kind} measures this machine's memory, not that of the host looked at",
            f"{where}, {root!r}",
            "use it in a real fleet",
        )
        return
    size = options.page_size_kib
    sizes = sizes_of(root, options.backing)
    if size and size not in sizes:
        here = ", ".join(f"{known} KiB" for known in sizes) or "none"
        yield refusal(
            f"this kernel has no {options.backing} pages of {size} KiB",
            f"{where}, page_size_kib",
            f"choose one of its sizes ({here}), or run a kernel that has this one",
        )
        return
    if options.collapse and size not in {0, (pmd := pmd_kib(root))}:
        yield refusal(
            f"MADV_COLLAPSE makes pages of {pmd} KiB here, not of {size} KiB",
            f"{where}, page_size_kib",
            "choose that size, or leave it out",
        )
    needed = options.needed_bytes
    page_bytes = (size or BASE_PAGE_KIB) * KIB
    if needed % page_bytes:
        yield refusal(
            f"{needed:,} bytes are no multiple of the page size of {page_bytes:,} bytes",
            f"{where}, region_bytes",
            f"choose {needed + -needed % page_bytes:,} bytes",
        )
    yield from _room(where, needed, options.backing, root)
    if (
        options.counts_faults
        and options.backing is Backing.ANONYMOUS
        and size != BASE_PAGE_KIB
        and faults_granted(root, size) is None
    ):
        yield refusal(
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
        yield refusal(
            f"{needed:,} bytes are asked for, and {available + pools:,} bytes are available",
            f"{where}, MemAvailable",
            "lower the size; the host's own services must keep their memory",
        )
