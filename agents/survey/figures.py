"""What a survey says: extents of each page size by how much of them is resident, per process, cgroup and host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from math import sqrt

EIGHTHS = 8
SHARES = EIGHTHS + 2  # of extents by residency: 0 none, 1 to 8 up to so many eighths, 9 all of it
GIB = 2**30


class Sight(StrEnum):
    """How much of a process's residency was seen; where none was, why."""

    WHOLE = "whole"  # every page of its anonymous memory
    SAMPLED = "sampled"  # a random sample of it: the figures are estimates, with their standard errors
    WOULD_SPLIT = "would_split"  # a page above a PMD's size may live on the host, and looking would split it
    NOT_PERMITTED = "not_permitted"  # to this user
    NOT_OFFERED = "not_offered"  # this kernel, or this tree of files, has no pagemap
    OUT_OF_TIME = "out_of_time"  # the survey's own limit
    GONE = "gone"  # it ended meanwhile

    @property
    def seen(self) -> bool:
        return self in (Sight.WHOLE, Sight.SAMPLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyPages:
    """Ask for a survey of the host's processes. Reads only.

    `cpu_share` is the most of one CPU that it takes on average, `at_most_seconds` when it stops looking at residency.
    Of a process with more than `sample_above_bytes` of address space in use, so much is looked at. Processes with less
    than `least_bytes` of anonymous memory are counted, not looked at; `pids` names those that are meant, () all.
    """

    cpu_share: float = 0.1
    at_most_seconds: float = 300.0
    sample_above_bytes: int = 64 * GIB
    least_bytes: int = 2**20
    pids: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Residency:
    """Aligned extents of one size by the share of them that is resident; memory in swap counts as resident.

    `extents_by_share` and `growth_by_share_bytes` have SHARES entries. Growth is what backing each extent that is used
    at all with a page of this size would add. Tables: what mapping them so would free, against base pages, and what the
    kernel would lay by to be able to split them again. `growth_error_bytes`: its standard error where sampled, else 0.
    """

    extents_by_share: tuple[int, ...]
    growth_by_share_bytes: tuple[int, ...]
    resident_bytes: int
    tables_saved_bytes: int
    deposit_bytes: int
    growth_error_bytes: float = 0.0

    def with_empty(self, extents: int) -> Residency:
        """Return the same with so many more extents of which nothing is resident."""
        none, *rest = self.extents_by_share
        return replace(self, extents_by_share=(none + extents, *rest))

    @property
    def whole(self) -> int:
        return self.extents_by_share[-1]

    @property
    def mostly(self) -> int:
        """Extents of which more than half is resident, and not all."""
        return sum(self.extents_by_share[EIGHTHS // 2 + 1 : -1])

    @property
    def partly(self) -> int:
        """Extents of which something, and at most half, is resident."""
        return sum(self.extents_by_share[1 : EIGHTHS // 2 + 1])

    @property
    def used(self) -> int:
        return sum(self.extents_by_share[1:])

    @property
    def growth_bytes(self) -> int:
        return sum(self.growth_by_share_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SizeFigures:
    """One page size in one process, cgroup or host.

    `extents` are aligned and lie within one mapping; `cut_extents` would, were contiguous anonymous memory not cut into
    mappings of different rights or origin, as mprotect of a part does. The bounds hold whatever is resident where.
    """

    size_kib: int
    extents: int
    cut_extents: int
    whole_at_most: int
    growth_at_most_bytes: int
    residency: Residency | None  # None: not seen

    @property
    def backable_bytes(self) -> int | None:
        """The memory that pages of this size would back, growth included."""
        return None if self.residency is None else self.residency.used * self.size_kib * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessFigures:
    """One process. `span_bytes` is its anonymous address space that may be touched, `anon_bytes` what is resident.

    `refused_bytes` of the span never get huge pages (MADV_NOHUGEPAGE, or prctl). `huge_bytes` are mapped by PMDs now,
    `shared_bytes` by other processes too, since a fork: the first write copies, and splits what is larger than a page.
    None: not seen.
    """

    pid: int
    command: str
    cgroup: str
    sight: Sight
    anon_bytes: int
    swap_bytes: int
    span_bytes: int
    page_table_bytes: int
    forked_children: int  # alive, and running its program on
    refused_bytes: int | None
    huge_bytes: int | None
    shared_bytes: int | None
    sizes: tuple[SizeFigures, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupFigures:
    """The processes of one cgroup together; `anon_bytes` is the kernel's own figure, None where it keeps none."""

    cgroup: str
    processes: int
    seen: int
    anon_bytes: int | None
    sizes: tuple[SizeFigures, ...]  # residency: of the processes that were seen


@dataclass(frozen=True, slots=True, kw_only=True)
class SurveyedSize:
    """A page size of the host; `thp` is what its switch does now, '' where there is none of that size."""

    size_kib: int
    thp: str
    hugetlb: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenReader:
    """A process that holds a file open of which reading splits big pages."""

    pid: int
    command: str
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSurvey:
    """What was found on a host. `splitting_sizes_kib`: why residency was out of bounds, empty where it was not."""

    host: str
    taken_at: datetime
    boot_id: str
    kernel: str
    memory_total_bytes: int
    base_page_bytes: int
    pmd_kib: int
    sizes: tuple[SurveyedSize, ...]
    splitting_sizes_kib: tuple[int, ...]
    known_readers: tuple[str, ...]
    open_readers: tuple[OpenReader, ...]
    processes: tuple[ProcessFigures, ...]  # the largest first
    cgroups: tuple[CgroupFigures, ...]
    totals: tuple[SizeFigures, ...]
    small_processes: int
    small_anon_bytes: int
    forks_per_second: float | None  # of the whole host, since its boot
    looked_at_bytes: int  # address space whose pages were looked up
    cpu_seconds: float
    wall_seconds: float


def together(many: Iterable[tuple[SizeFigures, ...]]) -> tuple[SizeFigures, ...]:
    """Add up figures of several processes, size by size; residency is that of those that have it."""
    by_size: dict[int, list[SizeFigures]] = {}
    for one in (figures for sizes in many for figures in sizes):
        by_size.setdefault(one.size_kib, []).append(one)
    return tuple(
        SizeFigures(
            size_kib=size,
            extents=sum(one.extents for one in same),
            cut_extents=sum(one.cut_extents for one in same),
            whole_at_most=sum(one.whole_at_most for one in same),
            growth_at_most_bytes=sum(one.growth_at_most_bytes for one in same),
            residency=_residency([one.residency for one in same if one.residency is not None]),
        )
        for size, same in sorted(by_size.items())
    )


def _residency(seen: list[Residency]) -> Residency | None:
    if not seen:
        return None
    return Residency(
        extents_by_share=tuple(map(sum, zip(*(one.extents_by_share for one in seen), strict=True))),
        growth_by_share_bytes=tuple(map(sum, zip(*(one.growth_by_share_bytes for one in seen), strict=True))),
        resident_bytes=sum(one.resident_bytes for one in seen),
        tables_saved_bytes=sum(one.tables_saved_bytes for one in seen),
        deposit_bytes=sum(one.deposit_bytes for one in seen),
        growth_error_bytes=sqrt(sum(one.growth_error_bytes**2 for one in seen)),
    )
