"""Why a page was split follows from the functions that were being called: on recorded splits, and by other names."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.traced_calls import SplitCause
from agents.tracing.causes import classify, function_of
from agents.tracing.histogram import parse_histogram

CASES = Path(__file__).parents[2] / "cases/tracing"
# What each program of the recordings did.
DID = {
    **dict.fromkeys(
        ("x-dontfork", "x-dontneed", "x-free", "x-mergeable", "x-pageout", "x-wipeonfork", "x-cold"), SplitCause.MADVISE
    ),
    "x-cowchild": SplitCause.COPY_ON_WRITE,
    "x-fork": SplitCause.FORK,
    "x-mlock": SplitCause.MLOCK,
    "x-mprotect": SplitCause.MPROTECT,
    "x-mremap": SplitCause.MREMAP,
    "x-munmap": SplitCause.MUNMAP,
    "x-migrate": SplitCause.MIGRATION,
    "x-mincore": SplitCause.MINCORE,
    "x-numa_maps": SplitCause.NUMA_MAPS_READER,
    "x-pagemap": SplitCause.PAGEMAP_READER,
    "x-smaps": SplitCause.SMAPS_READER,
    "x-clear_refs": SplitCause.REFERENCE_RESET,
    "x-cow": SplitCause.FORK,  # of 1 GiB: the copy itself splits
}


@pytest.mark.parametrize("name", ["split_pmd", "split_pud", "split_pmd_times", "split_pud_times"])
def test_each_recorded_split_has_its_cause(name: str) -> None:
    entries = parse_histogram((CASES / f"{name}.hist").read_bytes()).entries
    named = {entry.program: classify(entry.frames) for entry in entries if entry.program in DID}
    assert len(named) >= 12
    assert named == {program: DID[program] for program in named}


@pytest.mark.parametrize(
    ("frames", "cause"),
    [
        (("try_to_unmap_one", "shrink_folio_list", "shrink_node", "try_to_free_pages", "copy_page_range"), "reclaim"),
        (("try_to_migrate_one", "migrate_pages_batch", "compact_zone", "do_huge_pmd_anonymous_page"), "compaction"),
        (("try_to_migrate_one", "migrate_pages", "__alloc_contig_migrate_range"), "contiguous_allocation"),
        (("change_protection", "change_prot_numa", "task_numa_work"), "numa_balancing"),
        (("change_protection", "mprotect_fixup", "do_mprotect_pkey"), "mprotect"),
        (("try_to_migrate_one", "migrate_pages", "some_driver"), "migration"),
        (("__split_vma", "do_vmi_munmap", "__do_sys_mremap"), "mremap"),
        (("__split_vma", "do_vmi_align_munmap", "do_vmi_munmap", "elf_load"), "munmap"),
        (("split_huge_page_to_list", "try_to_merge_one_page", "ksm_scan_thread"), "ksm"),
        (("split_huge_page_to_list", "memory_failure", "do_machine_check"), "memory_failure"),
        (("follow_pmd_mask", "follow_page_mask", "__get_user_pages", "process_vm_rw"), "kernel_access"),
        (("split_huge_page_to_list", "shrink_page_list", "kswapd"), "reclaim"),
        (("split_huge_pmd_locked", "__handle_mm_fault", "handle_mm_fault", "do_page_fault"), "copy_on_write"),
        (("something_new",), "other"),
        ((), "other"),
    ],
)
def test_what_is_nearest_to_the_split_decides(frames: tuple[str, ...], cause: str) -> None:
    assert classify(frames) == cause


@pytest.mark.parametrize(
    ("frame", "function"),
    [
        ("copy_page_range+0x3b4/0x1f30", "copy_page_range"),
        ("smap_gather_stats.part.0+0x7e/0xb0", "smap_gather_stats"),
        ("__x64_sys_munmap+0x1f/0x30", "sys_munmap"),
        ("__arm64_sys_munmap+0x1f/0x30", "sys_munmap"),
        ("__do_sys_mremap+0x739/0xb00", "sys_mremap"),
        ("ksm_scan_thread+0x1/0x2 [ksm]", "ksm_scan_thread"),
        ("0xffffffffa00000e7", "0xffffffffa00000e7"),
        ("", ""),
    ],
)
def test_a_frame_is_named_as_in_the_source(frame: str, function: str) -> None:
    assert function_of(frame) == function
