"""The page sizes of a host, each read where the kernel says it; none follows from another, or from the architecture.

Per-size folders of transparent huge pages came with Linux 6.8. Before, there is one size, that of a PMD, switched by
`enabled` at the top. Source: Documentation/admin-guide/mm/transhuge.rst.
"""

from __future__ import annotations

import os
import re

from agents.numbers import whole_number
from agents.sysroot import SysRoot

THP = "sys/kernel/mm/transparent_hugepage"
HUGETLB = "sys/kernel/mm/hugepages"
GIGABYTE_KIB = 1 << 20
_SIZE = re.compile(r"hugepages-([1-9][0-9]{0,11})kB")

# vmstat counts these in pages, meminfo the same in kB. Together they are large, and little of them moves between reads.
_IN_BOTH = {
    "nr_free_pages": "MemFree",
    "nr_anon_pages": "AnonPages",
    "nr_mapped": "Mapped",
    "nr_page_table_pages": "PageTables",
}
_TOLERANCE = 1.25  # of their ratio to a power of two: what may move between the two reads, or get lost in a bundle
_SMALLEST, _LARGEST = 4096, 1 << 20


def sizes_in(root: SysRoot, folder: str) -> tuple[int, ...]:
    """Return the page sizes, in KiB ascending, that a folder of `hugepages-<N>kB` lists: powers of two, few of them."""
    sizes = (int(match[1]) for match in map(_SIZE.fullmatch, root.names(folder)) if match)
    return tuple(sorted(size for size in sizes if size.bit_count() == 1))


def pmd_kib(root: SysRoot) -> int:
    """Return the size of the huge page that one PMD maps; 0 where the host does not say (before 4.11, or no THP)."""
    try:
        return whole_number(root.read(f"{THP}/hpage_pmd_size")) // 1024
    except (OSError, ValueError):
        return 0


def thp_sizes(root: SysRoot) -> tuple[int, ...]:
    """Return the sizes of transparent huge pages that this kernel has, in KiB ascending."""
    if listed := sizes_in(root, THP):
        return listed
    size = pmd_kib(root)
    return (size,) if size and root.exists(f"{THP}/enabled") else ()


def thp_switch(root: SysRoot, size_kib: int) -> str:
    """Return the knob that switches a size that this kernel has: its own, or before 6.8 the one at the top."""
    return f"thp/{size_kib}kB/enabled" if sizes_in(root, THP) else "thp/enabled"


def base_page_bytes(root: SysRoot) -> int:
    """Return the size of a base page; 0 where nothing tells. Off this machine: what vmstat counts once in meminfo."""
    if root.real:
        return os.sysconf("SC_PAGE_SIZE")
    pages, kib = read_numbers(root, "proc/vmstat"), read_numbers(root, "proc/meminfo")
    both = [(pages[one], kib[other]) for one, other in _IN_BOTH.items() if one in pages and other in kib]
    count, total_bytes = sum(pair[0] for pair in both), sum(pair[1] for pair in both) * 1024
    if not count or not total_bytes:
        return 0
    size = _SMALLEST
    while size < _LARGEST and total_bytes > count * size * _TOLERANCE:
        size *= 2
    return size if total_bytes * _TOLERANCE >= count * size and total_bytes <= count * size * _TOLERANCE else 0


def read_numbers(root: SysRoot, path: str) -> dict[str, int]:
    """Return the whole numbers of a table of 'name number' or 'name: number kB' lines; none where it can't be read."""
    found: dict[str, int] = {}
    try:
        lines = root.read(path).splitlines()
    except OSError:
        return found
    for line in lines:
        words = line.split()
        if len(words) >= 2:
            try:
                found[words[0].rstrip(b":").decode(errors="replace")] = whole_number(words[1])
            except ValueError:
                continue
    return found


def sizes_looking_splits(root: SysRoot) -> tuple[int, ...]:
    """Return the sizes, in KiB, of transparent huge pages that live here or may at any moment, and that looking splits.

    Those are the sizes above a PMD's: reading pagemap, smaps or numa_maps of a process splits its pages of them. A size
    is ruled out only where it is switched off and the kernel counts none that was given before.
    """
    pmd = pmd_kib(root)
    return tuple(size for size in sizes_in(root, THP) if size > pmd and _may_live(root, size))


def _may_live(root: SysRoot, size_kib: int) -> bool:
    folder = f"{THP}/hugepages-{size_kib}kB"
    try:
        return (
            b"[never]" not in root.read(f"{folder}/enabled") or whole_number(root.read(f"{folder}/stats/nr_anon")) > 0
        )
    except (OSError, ValueError):
        return True
