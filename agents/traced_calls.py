"""What the kernel did with big pages, call by call: which function, why, for which program, how often, how long."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Traced(StrEnum):
    """What a spec asks to be traced, and what of the kernel that is."""

    SPLITS = "splits"
    STALLS = "stalls"


class TracedFunction(StrEnum):
    """What the kernel was called for."""

    SPLIT_PMD = "split_pmd"  # counted by the kernel as thp_split_pmd
    SPLIT_PUD = "split_pud"  # thp_split_pud
    FAULT_PMD = "fault_pmd"  # a fault that wants a page of the PMD size: given or not
    FAULT_PUD = "fault_pud"
    CONTIGUOUS = "contiguous_allocation"  # pages in a row beyond what the free lists hold: others are moved away

    @property
    def asked_by(self) -> Traced:
        return Traced.SPLITS if self in COUNTED_AS else Traced.STALLS


# The kernel's own counter in /proc/vmstat of what a function does.
COUNTED_AS = {TracedFunction.SPLIT_PMD: "thp_split_pmd", TracedFunction.SPLIT_PUD: "thp_split_pud"}

OF_PUD = frozenset({TracedFunction.SPLIT_PUD, TracedFunction.FAULT_PUD})


class SplitCause(StrEnum):
    """Why a mapping of a big page was split. `agents.tracing.causes` tells them apart."""

    FORK = "fork"
    COPY_ON_WRITE = "copy_on_write"
    MPROTECT = "mprotect"
    MUNMAP = "munmap"  # a part was unmapped, or mapped over
    MREMAP = "mremap"
    MADVISE = "madvise"
    MLOCK = "mlock"
    RECLAIM = "reclaim"
    MIGRATION = "migration"  # asked for by a program: mbind, move_pages; or memory that goes offline
    NUMA_BALANCING = "numa_balancing"
    COMPACTION = "compaction"
    CONTIGUOUS_ALLOCATION = "contiguous_allocation"  # moved away for pages in a row: a 1 GB page, a pool, CMA
    SMAPS_READER = "smaps_reader"
    PAGEMAP_READER = "pagemap_reader"
    NUMA_MAPS_READER = "numa_maps_reader"
    MINCORE = "mincore"
    REFERENCE_RESET = "reference_reset"  # clear_refs, page_idle, DAMON: who looks what is used
    KSM = "ksm"
    MEMORY_FAILURE = "memory_failure"
    KERNEL_ACCESS = "kernel_access"  # a debugger, a device, /proc/PID/mem: pages looked up for somebody else
    OTHER = "other"
    NOT_KEPT = "not_kept"  # the kernel counted the split and kept neither its program nor its stack


@dataclass(frozen=True, slots=True, kw_only=True)
class TracedCalls:
    """The calls of one function in one period, by program and cause. `cause` is None where it is no split.

    `seconds`: how long `timed` of them took together; `longest_seconds`: no timed one took longer (the upper end of a
    power of two of microseconds). None where none was timed, or its longest is not kept.
    """

    function: TracedFunction
    program: str  # the kernel keeps 15 characters; '' stands for programs that were left off, or not kept
    cause: SplitCause | None
    calls: int
    timed: int = 0
    seconds: float | None = None
    longest_seconds: float | None = None
