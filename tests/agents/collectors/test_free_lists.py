"""Free memory that MemFree leaves out, and free memory in large blocks, on hosts with pages of every size."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.catalogue import DERIVED, derive
from agents.collectors import Collectors
from agents.sysroot import FolderRoot
from tests.host_gallery import unpack

Tree = Callable[..., FolderRoot]
Closing = Callable[[Collectors], Collectors]
USED, MIB = DERIVED["memory_used_bytes"], 1 << 20
PAGE_KIB, HUGE_KIB = 64, 524288


def pagesets(*counts: int) -> str:
    """What /proc/zoneinfo says of the lists of a zone's CPUs, in base pages."""
    lists = "".join(
        f"      cpu: {cpu}\n                count:    {count}\n                high:     263\n"
        for cpu, count in enumerate(counts)
    )
    return f"Node 0, zone   Normal\n  pages free     231014\n        min      1408\n    pagesets\n{lists}"


def meminfo(root: FolderRoot, free_kib: int, available_kib: int) -> None:
    path = root.root / "proc/meminfo"
    levels = {"MemFree": free_kib, "MemAvailable": available_kib}
    lines = [line for line in path.read_text().splitlines() if line.split(":")[0] not in levels]
    path.write_text("\n".join([*lines, *(f"{name}: {kib} kB" for name, kib in levels.items())]) + "\n")


def test_used_memory_rises_by_each_huge_page_though_they_leave_the_free_memory_by_two(
    tmp_path: Path, closing: Closing
) -> None:
    """The lab's kernel of 64 KiB pages, measured: one page on the CPU's list for every other one that is touched."""
    root = unpack("arm64-64k-guest", tmp_path)
    total = 16357760
    zoneinfo = tmp_path / "proc/zoneinfo"
    used = []
    for touched in range(5):
        taken = (touched + 1) // 2 * 2 * HUGE_KIB
        meminfo(root, total - 800_000 - taken, total - 700_000 - taken)
        spare = (touched % 2) * HUGE_KIB // PAGE_KIB
        zoneinfo.write_text(pagesets(41 + spare, 300))
        levels = closing(Collectors(root)).sample()
        assert levels["per_cpu_free_bytes"] == (341 + spare) * PAGE_KIB * 1024
        used.append(derive(USED, levels))
    assert [round((after - before) / MIB) for before, after in itertools.pairwise(used)] == [512] * 4


def test_where_a_huge_page_for_each_cpu_is_little_the_lists_are_not_read(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    (root.root / "proc/zoneinfo").write_text(pagesets(8519))
    collectors = closing(Collectors(root))
    sample = collectors.sample()
    assert "per_cpu_free_bytes" not in sample
    assert "less than 1 % of the memory" in collectors.unavailable["per_cpu_free_bytes"]
    assert derive(USED, sample) == sample["memory_total_bytes"] - sample["memory_available_bytes"]
    assert not [path for path in collectors.paths if path.endswith("zoneinfo")]


@pytest.mark.parametrize(
    ("host", "lowest_order"),
    [("arm64-64k-guest", 13), ("arm64-16k-pi5", 11), ("arm64-4k-ampere", 9), ("s390-lpar-6.12", 8)],
)
def test_free_memory_for_huge_pages_is_in_blocks_of_the_hosts_own_pmd(
    host: str, lowest_order: int, tmp_path: Path, closing: Closing
) -> None:
    root = unpack(host, tmp_path)
    lines = [line.split()[:4] for line in (tmp_path / "proc/buddyinfo").read_text().splitlines()]
    base = {"arm64-64k-guest": 65536, "arm64-16k-pi5": 16384}.get(host, 4096)
    for order, there in ((lowest_order - 1, 0), (lowest_order, 3), (lowest_order + 1, 6)):
        counts = ["0"] * 15
        counts[order] = "3"
        (tmp_path / "proc/buddyinfo").write_text(" ".join([*lines[0], *counts]) + "\n")
        found = closing(Collectors(root)).boundary()
        assert found["free_huge_bytes"] == there * base * 2**lowest_order
