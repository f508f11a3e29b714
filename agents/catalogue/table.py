"""The metrics that have a name of their own on every host."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from types import MappingProxyType

from agents.catalogue.declared import Reported, added_collectors, own_collectors, reporters
from agents.catalogue.derived import DERIVED
from agents.catalogue.metric import Better, CataloguePage, Metric, MetricKind, Owner
from agents.catalogue.thp_stats import thp_stat
from agents.catalogue.tlb_events import EventRow, tlb_rows

log = logging.getLogger(__name__)

# (name, key in the file, unit, kind, meaning, own column, better)
_Row = tuple[str, str, str, MetricKind, str, bool, Better | None]
_C, _G = MetricKind.COUNTER, MetricKind.GAUGE

_VMSTAT: tuple[_Row, ...] = (
    ("pgfault", "pgfault", "faults", _C, "page faults, minor and major", True, "decrease"),
    ("pgmajfault", "pgmajfault", "faults", _C, "page faults that needed I/O", True, "decrease"),
    ("oom_kills", "oom_kill", "kills", _C, "processes killed for want of memory", True, "decrease"),
    (
        "thp_fault_alloc",
        "thp_fault_alloc",
        "pages",
        _C,
        "huge pages given at a fault, of the PMD size and larger",
        True,
        None,
    ),
    (
        "thp_fault_fallback",
        "thp_fault_fallback",
        "faults",
        _C,
        "faults that wanted a huge page and got small ones",
        True,
        "decrease",
    ),
    (
        "thp_fault_fallback_charge",
        "thp_fault_fallback_charge",
        "faults",
        _C,
        "of these, refused by a memory cgroup",
        False,
        "decrease",
    ),
    ("thp_collapse_alloc", "thp_collapse_alloc", "pages", _C, "huge pages made by khugepaged", True, None),
    (
        "thp_collapse_alloc_failed",
        "thp_collapse_alloc_failed",
        "attempts",
        _C,
        "khugepaged found no huge page to copy into",
        False,
        "decrease",
    ),
    ("thp_file_alloc", "thp_file_alloc", "pages", _C, "huge pages allocated for files and shmem", False, None),
    ("thp_split_page", "thp_split_page", "pages", _C, "huge pages (folios) split", True, "decrease"),
    ("thp_split_page_failed", "thp_split_page_failed", "attempts", _C, "folio splits that failed", True, "decrease"),
    (
        "thp_deferred_split_page",
        "thp_deferred_split_page",
        "pages",
        _C,
        "partly unmapped huge pages queued for a split",
        False,
        "decrease",
    ),
    (
        "thp_underused_split_page",
        "thp_underused_split_page",
        "pages",
        _C,
        "huge pages split because they were mostly zero",
        False,
        None,
    ),
    ("thp_split_pmd", "thp_split_pmd", "mappings", _C, "PMD mappings split into base-page mappings", True, "decrease"),
    ("thp_split_pud", "thp_split_pud", "mappings", _C, "PUD (1 GB) mappings split", True, "decrease"),
    ("thp_zero_page_alloc", "thp_zero_page_alloc", "pages", _C, "huge zero pages allocated", False, None),
    ("thp_swpout", "thp_swpout", "pages", _C, "huge pages swapped out whole", False, "decrease"),
    ("thp_swpout_fallback", "thp_swpout_fallback", "pages", _C, "huge pages split to swap them out", False, "decrease"),
    ("thp_migration_success", "thp_migration_success", "pages", _C, "huge pages migrated whole", False, None),
    ("thp_migration_fail", "thp_migration_fail", "pages", _C, "huge pages that could not be migrated", False, None),
    ("thp_migration_split", "thp_migration_split", "pages", _C, "huge pages split to migrate them", False, "decrease"),
    ("compact_stall", "compact_stall", "stalls", _C, "allocations that waited for compaction", True, "decrease"),
    ("compact_fail", "compact_fail", "runs", _C, "direct compactions without a result", True, "decrease"),
    ("compact_success", "compact_success", "runs", _C, "direct compactions that made the page", False, None),
    ("compact_migrate_scanned", "compact_migrate_scanned", "pages", _C, "pages scanned to be moved", True, "decrease"),
    ("compact_free_scanned", "compact_free_scanned", "pages", _C, "pages scanned as targets", False, "decrease"),
    ("compact_isolated", "compact_isolated", "pages", _C, "pages isolated for compaction", False, None),
    ("compact_daemon_wake", "compact_daemon_wake", "wakes", _C, "kcompactd wake-ups", False, None),
    ("pgmigrate_success", "pgmigrate_success", "pages", _C, "pages migrated", True, None),
    ("pgmigrate_fail", "pgmigrate_fail", "pages", _C, "pages that could not be migrated", False, None),
    ("pgscan_kswapd", "pgscan_kswapd", "pages", _C, "pages scanned by kswapd", False, "decrease"),
    ("pgscan_direct", "pgscan_direct", "pages", _C, "pages scanned by allocations themselves", True, "decrease"),
    ("pgsteal_kswapd", "pgsteal_kswapd", "pages", _C, "pages reclaimed by kswapd", False, "decrease"),
    ("pgsteal_direct", "pgsteal_direct", "pages", _C, "pages reclaimed by allocations themselves", False, "decrease"),
    ("allocstall_normal", "allocstall_normal", "stalls", _C, "direct reclaims for the normal zone", False, "decrease"),
    ("allocstall_movable", "allocstall_movable", "stalls", _C, "direct reclaims, movable zone", False, "decrease"),
    ("workingset_refault_anon", "workingset_refault_anon", "pages", _C, "anonymous refaults", False, "decrease"),
    ("workingset_refault_file", "workingset_refault_file", "pages", _C, "file refaults", False, "decrease"),
    ("pswpin", "pswpin", "pages", _C, "pages swapped in", True, "decrease"),
    ("pswpout", "pswpout", "pages", _C, "pages swapped out", True, "decrease"),
    ("numa_hint_faults", "numa_hint_faults", "faults", _C, "NUMA balancing faults", False, None),
    ("numa_pte_updates", "numa_pte_updates", "pages", _C, "pages NUMA balancing marked", False, None),
    ("numa_pages_migrated", "numa_pages_migrated", "pages", _C, "pages NUMA balancing moved", True, None),
    ("htlb_buddy_alloc_success", "htlb_buddy_alloc_success", "pages", _C, "hugetlb pages obtained", False, None),
    ("htlb_buddy_alloc_fail", "htlb_buddy_alloc_fail", "pages", _C, "hugetlb pages refused", False, "decrease"),
    ("cma_alloc_success", "cma_alloc_success", "calls", _C, "contiguous allocations that succeeded", False, None),
    ("cma_alloc_fail", "cma_alloc_fail", "calls", _C, "contiguous allocations that failed", False, "decrease"),
    ("nr_free_cma", "nr_free_cma", "pages", _G, "free contiguous-allocator pages", False, None),
    (
        "direct_map_level2_splits",
        "direct_map_level2_splits",
        "splits",
        _C,
        "2 MB entries of the kernel's own map split",
        False,
        "decrease",
    ),
    (
        "direct_map_level3_splits",
        "direct_map_level3_splits",
        "splits",
        _C,
        "1 GB entries of the kernel's own map split",
        False,
        "decrease",
    ),
    ("nr_page_table_pages", "nr_page_table_pages", "pages", _G, "base pages used as page tables", True, "decrease"),
    (
        "nr_anon_transparent_hugepages",
        "nr_anon_transparent_hugepages",
        "pages",
        _G,
        "anonymous huge pages, in PMD-sized pages",
        True,
        None,
    ),
    ("nr_memmap_pages", "nr_memmap_pages", "pages", _G, "page metadata allocated since boot", False, "decrease"),
    ("nr_memmap_boot_pages", "nr_memmap_boot_pages", "pages", _G, "page metadata allocated at boot", False, None),
)

_MEMINFO: tuple[_Row, ...] = (
    ("memory_total_bytes", "MemTotal", "bytes", _G, "memory the kernel manages", True, None),
    ("memory_free_bytes", "MemFree", "bytes", _G, "memory used for nothing", True, None),
    ("memory_available_bytes", "MemAvailable", "bytes", _G, "estimate of what can be allocated", True, "increase"),
    ("page_cache_bytes", "Cached", "bytes", _G, "page cache, shmem included", False, None),
    ("swap_total_bytes", "SwapTotal", "bytes", _G, "swap space", False, None),
    ("swap_free_bytes", "SwapFree", "bytes", _G, "free swap space", False, "increase"),
    ("slab_bytes", "Slab", "bytes", _G, "kernel slab memory", False, "decrease"),
    ("anon_bytes", "AnonPages", "bytes", _G, "anonymous memory mapped into processes", True, None),
    ("anon_huge_bytes", "AnonHugePages", "bytes", _G, "anonymous memory in huge pages", True, None),
    ("shmem_bytes", "Shmem", "bytes", _G, "shared memory and tmpfs", False, None),
    ("shmem_huge_bytes", "ShmemHugePages", "bytes", _G, "shared memory in huge pages", False, None),
    ("file_huge_bytes", "FileHugePages", "bytes", _G, "page cache in huge pages", False, None),
    ("page_table_bytes", "PageTables", "bytes", _G, "page tables", True, "decrease"),
    ("cma_total_bytes", "CmaTotal", "bytes", _G, "contiguous memory areas", False, None),
    ("cma_free_bytes", "CmaFree", "bytes", _G, "free memory in contiguous areas", False, None),
    ("hugetlb_bytes", "Hugetlb", "bytes", _G, "all hugetlb pools together", True, None),
    ("direct_map_4k_bytes", "DirectMap4k", "bytes", _G, "kernel's own map in 4 KiB entries", False, "decrease"),
    ("direct_map_2m_bytes", "DirectMap2M", "bytes", _G, "kernel's own map in 2 MiB entries", False, None),
    ("direct_map_1g_bytes", "DirectMap1G", "bytes", _G, "kernel's own map in 1 GiB entries", False, None),
)

_UPTIME: tuple[_Row, ...] = (
    ("cpu_idle_seconds", "idle", "seconds", _C, "time in which CPUs were idle, not waiting for I/O", False, None),
)

# Lines that some architectures have and others never will (arch_report_meminfo, arch/x86/mm/pat/set_memory.c)
ONLY_ON: Mapping[str, str] = MappingProxyType(
    {
        "direct_map_level2_splits": "x86",
        "direct_map_level3_splits": "x86",
        "direct_map_4k_bytes": "x86, s390 and ppc64",
        "direct_map_2m_bytes": "x86 and ppc64",
        "direct_map_1g_bytes": "x86 and ppc64",
    }
)

_STAT = "memory.stat "
_CGROUP: tuple[_Row, ...] = (
    ("cgroup_memory_bytes", "memory.current", "bytes", _G, "memory charged", True, "decrease"),
    ("cgroup_memory_peak_bytes", "memory.peak", "bytes", _G, "most memory ever charged", False, "decrease"),
    ("cgroup_anon_bytes", "memory.stat anon", "bytes", _G, "anonymous memory", True, None),
    ("cgroup_anon_thp_bytes", "memory.stat anon_thp", "bytes", _G, "anonymous memory in huge pages", True, None),
    ("cgroup_file_bytes", "memory.stat file", "bytes", _G, "page cache", False, None),
    ("cgroup_file_thp_bytes", "memory.stat file_thp", "bytes", _G, "page cache in huge pages", False, None),
    ("cgroup_shmem_thp_bytes", "memory.stat shmem_thp", "bytes", _G, "shared memory in huge pages", False, None),
    ("cgroup_page_table_bytes", "memory.stat pagetables", "bytes", _G, "page tables", False, "decrease"),
    ("cgroup_pgfault", "memory.stat pgfault", "faults", _C, "page faults", False, "decrease"),
    ("cgroup_pgmajfault", "memory.stat pgmajfault", "faults", _C, "page faults that needed I/O", False, "decrease"),
    ("cgroup_thp_fault_alloc", "memory.stat thp_fault_alloc", "pages", _C, "huge pages at a fault", False, None),
    (
        "cgroup_thp_collapse_alloc",
        "memory.stat thp_collapse_alloc",
        "pages",
        _C,
        "huge pages made by khugepaged",
        False,
        None,
    ),
    (
        "cgroup_thp_swpout_fallback",
        "memory.stat thp_swpout_fallback",
        "pages",
        _C,
        "huge pages split to swap them out",
        False,
        "decrease",
    ),
    ("cgroup_oom_kills", "memory.events oom_kill", "kills", _C, "processes killed at the limit", True, "decrease"),
    (
        "cgroup_psi_memory_some_seconds",
        "memory.pressure some",
        "seconds",
        _C,
        "time in which a task of the cgroup waited for memory",
        False,
        "decrease",
    ),
    (
        "cgroup_psi_memory_full_seconds",
        "memory.pressure full",
        "seconds",
        _C,
        "time in which all its tasks waited for memory",
        False,
        "decrease",
    ),
)

_CPU_DECIDES = "as the host's CPU counts them"
# Counted on every host; the others only where a metric asks for them: a CPU counts four to eight events at once.
_HARDWARE: tuple[EventRow, ...] = (
    ("instructions", "instructions", "instructions", "instructions retired", True, None),
    ("cycles", "cycles", "cycles", "core cycles not halted", True, None),
    (
        "dtlb_load_misses",
        "misses",
        "event of the CPU's table, else dTLB-load-misses",
        f"loads that missed the data TLB, {_CPU_DECIDES}",
        True,
        "decrease",
    ),
    (
        "dtlb_store_misses",
        "misses",
        "event of the CPU's table, else dTLB-store-misses",
        f"stores that missed the data TLB, {_CPU_DECIDES}",
        True,
        "decrease",
    ),
    ("dtlb_walk_cycles", "cycles", "event of the CPU's table", "cycles with a page walk for a load", True, "decrease"),
    (
        "dtlb_store_walk_cycles",
        "cycles",
        "event of the CPU's table",
        "cycles with a page walk for a store",
        False,
        "decrease",
    ),
)
# The kernel's own counts: they take no counter of a CPU.
_SOFTWARE: tuple[EventRow, ...] = (
    ("page_faults", "faults", "page-faults", "page faults, counted by perf", False, "decrease"),
    ("context_switches", "switches", "context-switches", "context switches", True, None),
    ("cpu_migrations", "migrations", "cpu-migrations", "tasks moved to another CPU", False, None),
)
_EVENTS: tuple[EventRow, ...] = (*_HARDWARE, *_SOFTWARE, *tlb_rows())

# The size that one PMD maps with base pages of 4, 16 and 64 KiB, and what a PUD maps with 4 KiB.
COMMON_SIZES_KIB = (2048, 32768, 524288, 1048576)
_COLUMN_STATS = ("nr_anon", "anon_fault_alloc", "anon_fault_fallback", "split")


def _file_rows(rows: tuple[_Row, ...], file: str) -> Iterator[Metric]:
    for name, key, unit, kind, meaning, column, better in rows:
        yield Metric(
            name=name,
            unit=unit,
            kind=kind,
            source=f"{file} {key}",
            meaning=meaning,
            column=column,
            better=better,
            page=_page(key.rpartition(" ")[2], unit),
        )


def _page(key: str, unit: str) -> CataloguePage | None:
    """Return what the kernel counts under a key: of huge pages, it counts those of a PMD and larger as one each."""
    if key.startswith("thp_") or key == "nr_anon_transparent_hugepages":
        return CataloguePage.HUGE
    return CataloguePage.BASE if unit == "pages" and not key.startswith("htlb_") else None


def _metrics() -> Iterator[Metric]:
    yield from _file_rows(_VMSTAT, "/proc/vmstat")
    for size_kib in COMMON_SIZES_KIB:
        for stat in _COLUMN_STATS:
            yield thp_stat(size_kib, stat, column=True)
    yield from _file_rows(_MEMINFO, "/proc/meminfo")
    yield from _file_rows(_UPTIME, "/proc/uptime")
    for collector in own_collectors():
        yield from collector.metrics
    yield from _file_rows(_CGROUP, "cgroup")
    for name, unit, event, meaning, column, better in _EVENTS:
        yield Metric(
            name=name,
            unit=unit,
            kind=_C,
            source=f"perf_event_open {event}",
            meaning=f"{meaning}; all CPUs, scaled for multiplexing",
            column=column,
            better=better,
            owner=Owner.PERF,
        )
    yield Metric(
        name="agent_cpu_seconds",
        unit="seconds",
        kind=_C,
        source="getrusage of the agent's process, all threads",
        meaning="CPU time that watching took",
        column=True,
        better="decrease",
        owner=Owner.FLEETEXP,
    )
    yield Metric(
        name="agent_rss_bytes",
        unit="bytes",
        kind=_G,
        source="/proc/<agent>/statm resident",
        meaning="memory of the agent's process",
        column=True,
        better="decrease",
        owner=Owner.FLEETEXP,
    )


def _reported() -> Iterator[Metric]:
    """What workloads report; one that several have is all of theirs."""
    kinds: dict[Reported, list[str]] = {}
    for reporter in reporters():
        for reported in reporter.reports:
            kinds.setdefault(reported, []).append(reporter.name)
    for reported, names in kinds.items():
        yield Metric(
            name=reported.name,
            unit=reported.unit,
            kind=_G,
            source=f"workload {', '.join(names)}",
            meaning=reported.meaning,
            better=reported.better,
            owner=Owner.WORKLOAD,
            reporters=tuple(names),
        )


_FAMILIES = ("thp_", "hugetlb_", "buddyinfo_", "pageblocks_", "cgroup_", "agent_", "fleetexp_")


class _Catalogue(Mapping[str, Metric]):
    """Filled when it is first looked into: what is declared elsewhere is declared in modules that import this one."""

    @cached_property
    def _metrics(self) -> Mapping[str, Metric]:
        metrics = {metric.name: metric for metric in _metrics()}
        for metric in (*_reported(), *(metric for added in added_collectors() for metric in added.metrics)):
            if metric.name in metrics or metric.name in DERIVED or metric.name.startswith(_FAMILIES):
                if metrics.get(metric.name) != metric:
                    log.warning("the metric %s of %s is another's already", metric.name, metric.source)
                continue
            metrics[metric.name] = replace(metric, column=False)  # a column takes a migration
        return metrics

    def __getitem__(self, name: str) -> Metric:
        return self._metrics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._metrics)

    def __len__(self) -> int:
        return len(self._metrics)


VMSTAT_KEYS: Mapping[str, str] = MappingProxyType({key: name for name, key, *_ in _VMSTAT})  # file key -> metric
MEMINFO_KEYS: Mapping[str, str] = MappingProxyType({key: name for name, key, *_ in _MEMINFO})
CGROUP_STAT_KEYS: Mapping[str, str] = MappingProxyType(
    {key.removeprefix(_STAT): name for name, key, *_ in _CGROUP if key.startswith(_STAT)}
)
EVENT_NAMES: tuple[str, ...] = tuple(row[0] for row in _EVENTS)
COUNTED_ALWAYS: tuple[str, ...] = tuple(row[0] for row in (*_HARDWARE, *_SOFTWARE))
# Of a cgroup's tasks: the host's count of a hardware event serves, until a metric asks for the cgroup's as well.
COUNTED_IN_CGROUPS: tuple[str, ...] = tuple(row[0] for row in _SOFTWARE)
CATALOGUE: Mapping[str, Metric] = _Catalogue()
