"""What the kernel counts of a page size: its own `stats`, and what /proc/vmstat and /proc/meminfo say of the host.

Source: Documentation/admin-guide/mm/transhuge.rst, "Monitoring usage".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from agents.numbers import whole_number
from agents.page_sizes import THP, pmd_kib, read_numbers
from agents.sysroot import SysRoot

_VMSTAT = ("thp_", "pswp", "pgmigrate_", "numa_", "nr_page_table_pages", "nr_anon_transparent_hugepages")


class Level(StrEnum):
    """What maps a page of a size: that decides which counters see it."""

    PTE = "pte"  # smaller than a PMD maps: a folio under page-table entries
    PMD = "pmd"
    PUD = "pud"  # larger than a PMD maps


class Count(StrEnum):
    """What is asked of the counters; the kernel's name depends on the size and the kernel."""

    ALLOCATED = "pages given to a fault"
    FALLBACK = "faults that fell back to smaller pages"
    CHARGE_REFUSED = "faults that a memory cgroup refused"
    MAPPING_SPLIT = "mappings split"
    SPLIT = "pages split"
    DEFERRED = "pages put on the split queue"
    ANONYMOUS = "anonymous pages now"
    SWAPPED_OUT = "pages swapped out whole"
    SWAPOUT_SPLIT = "pages split to be swapped out"
    COLLAPSED = "pages made by a collapse"
    ALL_FAULTS = "pages of a PMD or more given to a fault"


_STATS = {
    Count.ALLOCATED: "anon_fault_alloc",
    Count.FALLBACK: "anon_fault_fallback",
    Count.CHARGE_REFUSED: "anon_fault_fallback_charge",
    Count.SPLIT: "split",
    Count.DEFERRED: "split_deferred",
    Count.ANONYMOUS: "nr_anon",
    Count.SWAPPED_OUT: "swpout",
    Count.SWAPOUT_SPLIT: "swpout_fallback",
}
# Where a kernel before 6.10 has no `stats`: its one size is that of a PMD, and vmstat counts that alone.
_BEFORE_STATS = {
    Count.ALLOCATED: "thp_fault_alloc",
    Count.FALLBACK: "thp_fault_fallback",
    Count.CHARGE_REFUSED: "thp_fault_fallback_charge",
    Count.SPLIT: "thp_split_page",
    Count.DEFERRED: "thp_deferred_split_page",
    Count.SWAPPED_OUT: "thp_swpout",
    Count.SWAPOUT_SPLIT: "thp_swpout_fallback",
}
# Of the whole host, whatever the size.
_OF_THE_HOST = {Count.COLLAPSED: "thp_collapse_alloc", Count.ALL_FAULTS: "thp_fault_alloc"}
_MAPPING_SPLITS = {Level.PMD: "thp_split_pmd", Level.PUD: "thp_split_pud"}


def level_of(root: SysRoot, size_kib: int) -> Level:
    """Return what maps a page of this size on this host."""
    pmd = pmd_kib(root) or size_kib
    return Level.PMD if size_kib == pmd else Level.PTE if size_kib < pmd else Level.PUD


def counter_name(count: Count, level: Level, counted: Mapping[str, int]) -> str:
    """Return the kernel's name of a counter among those that it has; '' where it has none for this."""
    if count is Count.MAPPING_SPLIT:
        name = _MAPPING_SPLITS.get(level, "")
    elif count in _OF_THE_HOST:
        name = _OF_THE_HOST[count]
    else:
        name = _STATS[count]
        if name not in counted and level is Level.PMD:
            name = _BEFORE_STATS.get(count, "")
    return name if name in counted else ""


def read_counters(root: SysRoot, size_kib: int) -> dict[str, int]:
    """Return the counters of this size and of the host, by the kernel's own names; what can't be read is left out."""
    found = {name: number for name, number in read_numbers(root, "proc/vmstat").items() if name.startswith(_VMSTAT)}
    stats = f"{THP}/hugepages-{size_kib}kB/stats"
    for name in root.names(stats):
        try:
            found[name] = whole_number(root.read(f"{stats}/{name}"))
        except (OSError, ValueError):
            continue
    return found
