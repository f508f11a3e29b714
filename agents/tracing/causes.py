"""Why a page was split, from the functions that were being called: the one table of it.

The functions are those of Linux 6.12 and 6.18 (mm/huge_memory.c, mm/migrate.c, mm/vmscan.c, mm/mprotect.c, mm/mremap.c,
mm/madvise.c, mm/mempolicy.c, mm/compaction.c, mm/ksm.c, mm/memory-failure.c, mm/gup.c, kernel/fork.c,
fs/proc/task_mmu.c) and the names that 4.18 to 6.6 have for the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from agents.traced_calls import SplitCause

# A function that settles it, nearest to the split first: reclaim that a fork has to wait for is reclaim.
_DECISIVE: dict[SplitCause, str] = {
    SplitCause.MEMORY_FAILURE: "memory_failure soft_offline_page madvise_inject_error",
    SplitCause.SMAPS_READER: "show_smap show_smaps_rollup smap_gather_stats smaps_pte_range",
    SplitCause.PAGEMAP_READER: "pagemap_read pagemap_pmd_range do_pagemap_scan do_pagemap_cmd pagemap_scan_pmd_entry",
    SplitCause.NUMA_MAPS_READER: "show_numa_map gather_pte_stats",
    SplitCause.MINCORE: "do_mincore mincore_pte_range sys_mincore",
    SplitCause.REFERENCE_RESET: (
        "clear_refs_write clear_refs_pte_range page_idle_clear_pte_refs page_idle_bitmap_read page_idle_bitmap_write "
        "kdamond_fn damon_va_young damon_va_mkold damon_pa_young damon_pa_mkold"
    ),
    SplitCause.KSM: "ksm_scan_thread ksm_do_scan cmp_and_merge_page try_to_merge_one_page break_ksm",
    SplitCause.NUMA_BALANCING: (
        "change_prot_numa task_numa_work do_numa_page do_huge_pmd_numa_page do_huge_pud_numa_page "
        "migrate_misplaced_folio migrate_misplaced_page migrate_misplaced_transhuge_page"
    ),
    SplitCause.COMPACTION: "compact_zone compact_node kcompactd kcompactd_do_work try_to_compact_pages",
    SplitCause.CONTIGUOUS_ALLOCATION: (
        "alloc_contig_migrate_range __alloc_contig_migrate_range alloc_contig_range alloc_contig_range_noprof "
        "alloc_contig_pages alloc_contig_pages_noprof alloc_contig_frozen_range_noprof cma_alloc"
    ),
    SplitCause.FORK: "copy_page_range dup_mmap dup_mm copy_mm",
    SplitCause.MPROTECT: "mprotect_fixup do_mprotect_pkey sys_mprotect sys_pkey_mprotect",
    SplitCause.MREMAP: "move_page_tables move_vma mremap_to do_mremap sys_mremap",
    SplitCause.MADVISE: (
        "do_madvise sys_madvise sys_process_madvise madvise_do_behavior madvise_vma_behavior madvise_free_pte_range "
        "madvise_free_huge_pmd madvise_cold_or_pageout_pte_range"
    ),
    SplitCause.MLOCK: "mlock_fixup do_mlock sys_mlock sys_munlock apply_mlockall_flags",
    SplitCause.MIGRATION: (
        "do_mbind kernel_mbind kernel_move_pages kernel_migrate_pages do_migrate_pages sys_mbind sys_move_pages "
        "offline_pages do_migrate_range demote_folio_list demote_page_list migrate_to_node mbind_range"
    ),
    SplitCause.RECLAIM: (
        "kswapd balance_pgdat shrink_node shrink_lruvec shrink_slab do_shrink_slab deferred_split_scan "
        "try_to_free_pages try_to_free_mem_cgroup_pages do_try_to_free_pages shrink_one try_to_shrink_lruvec"
    ),
    SplitCause.COPY_ON_WRITE: (
        "do_huge_pmd_wp_page do_huge_pud_wp_page wp_huge_pmd wp_huge_pud create_huge_pmd do_wp_page "
        "do_huge_pmd_wp_page_fallback"
    ),
    SplitCause.KERNEL_ACCESS: (
        "follow_page_mask follow_pmd_mask follow_pud_mask follow_page_pte get_user_pages_remote pin_user_pages_remote "
        "__get_user_pages uprobe_write_opcode access_remote_vm __access_remote_vm"
    ),
    SplitCause.MUNMAP: "sys_munmap __vm_munmap sys_mmap ksys_mmap_pgoff sys_brk sys_remap_file_pages sys_shmdt",
}
# A function that others use too: it says something only where none of the above does.
_WEAK: dict[SplitCause, str] = {
    SplitCause.RECLAIM: "shrink_folio_list shrink_page_list reclaim_folio_list reclaim_pages shrink_inactive_list",
    SplitCause.MIGRATION: "migrate_pages migrate_pages_batch migrate_folios_move unmap_and_move",
    SplitCause.COPY_ON_WRITE: "__handle_mm_fault handle_mm_fault",  # where the compiler put do_huge_pmd_wp_page into it
    SplitCause.MUNMAP: "do_vmi_munmap do_vmi_align_munmap do_mas_munmap __do_munmap do_munmap vms_gather_munmap_vmas",
}

_OFFSET = re.compile(r"\+0x[0-9a-f]+/0x[0-9a-f]+.*", re.DOTALL)
_COMPILERS = re.compile(r"\..*", re.DOTALL)  # .part.0, .isra.0, .constprop.0, .cold, .llvm.123
_SYSTEM_CALL = re.compile(r"__(?:x64|ia32|ia32_compat|arm64|riscv|s390x?|se|do|do_compat)_sys_|^(?:ksys|SyS)_(?!mmap)")


def _by_name(table: dict[SplitCause, str]) -> dict[str, SplitCause]:
    return {name: cause for cause, names in table.items() for name in names.split()}


_PASSES = (_by_name(_DECISIVE), _by_name(_WEAK))


def classify(frames: Sequence[str]) -> SplitCause:
    """Return the cause of a split; `frames` are the kernel's, the nearest to the split first ('symbol+0x1/0x20')."""
    names = [function_of(frame) for frame in frames]
    for table in _PASSES:
        for name in names:
            if (cause := table.get(name)) is not None:
                return cause
    return SplitCause.OTHER


@lru_cache(maxsize=4096)
def function_of(frame: str) -> str:
    """Return a frame's function as the source names it: no offset, nothing that compiler or architecture added."""
    name = _COMPILERS.sub("", _OFFSET.sub("", frame.strip()))
    return _SYSTEM_CALL.sub("sys_", name, count=1)
