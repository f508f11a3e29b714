"""Counters of every transparent-huge-page size and of every hugetlb pool that the host has."""

from __future__ import annotations

from collections.abc import Sequence

from agents.catalogue.patterns import HUGETLB_COUNTS
from agents.page_sizes import GIGABYTE_KIB, HUGETLB, THP, pmd_kib, sizes_in
from agents.sysroot import SysRoot


def watched_sizes(root: SysRoot, named: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes read at each sample: those named, the PMD size, and 1 GiB; of these what the kernel has."""
    wanted = {*named, GIGABYTE_KIB, pmd_kib(root)}
    return tuple(size for size in sizes_in(root, THP) if size in wanted)


def thp_files(root: SysRoot, sizes: Sequence[int]) -> dict[str, str]:
    """Return metric -> path of every counter of these sizes: whatever this kernel counts."""
    files: dict[str, str] = {}
    for size in sizes:
        folder = f"{THP}/hugepages-{size}kB/stats"
        files.update({f"thp_{size}kB_{stat}": f"{folder}/{stat}" for stat in root.names(folder)})
    return files


def pool_files(root: SysRoot, sizes: Sequence[int]) -> dict[str, str]:
    """Return metric -> path of the counts of these hugetlb pools, where they exist."""
    have = set(sizes_in(root, HUGETLB))
    return {
        f"hugetlb_{size}kB_{count}": f"{HUGETLB}/hugepages-{size}kB/{file}"
        for size in sizes
        if size in have
        for count, (file, _) in HUGETLB_COUNTS.items()
    }
