"""Counters of every transparent-huge-page size and of every hugetlb pool that the host has."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence

from agents.sysroot import SysRoot

THP = "sys/kernel/mm/transparent_hugepage"
HUGETLB = "sys/kernel/mm/hugepages"
_GIGANTIC_KIB = 1048576
_SIZE = re.compile(r"hugepages-(\d+)kB")
_POOL_FILES = {
    "total_pages": "nr_hugepages",
    "free_pages": "free_hugepages",
    "reserved_pages": "resv_hugepages",
    "surplus_pages": "surplus_hugepages",
}


def sizes_in(root: SysRoot, folder: str) -> tuple[int, ...]:
    """Return the page sizes, in KiB ascending, that a folder of `hugepages-<N>kB` lists."""
    return tuple(sorted(int(match[1]) for match in map(_SIZE.fullmatch, root.names(folder)) if match))


def watched_sizes(root: SysRoot, named: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes read at each sample: those named, the PMD size, and 1 GiB; of these what the kernel has."""
    wanted = {*named, _GIGANTIC_KIB}
    with contextlib.suppress(OSError, ValueError):  # a kernel without THP lists no sizes either
        wanted.add(int(root.read(f"{THP}/hpage_pmd_size")) // 1024)
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
        for count, file in _POOL_FILES.items()
    }
