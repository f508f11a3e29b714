"""What preflight says of a workload: everything that would keep it from running, and nothing is started."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from agents.errors import WorkloadError
from agents.messages import Severity, WorkloadSpec
from agents.sysroot import FolderRoot
from agents.workloads import check_workload, environment, start_workload
from agents.workloads.host_pages import (
    Backing,
    available_bytes,
    faults_granted,
    free_hugetlb_bytes,
    largest_page_kib,
    page_sizes_kib,
)

Given: TypeAlias = Any
GIB = 2**30


class AsIfReal(FolderRoot):
    """A folder taken for this machine: what a check reads of another machine can be seen here."""

    @property
    def real(self) -> bool:
        return True


def problems(root: FolderRoot, kind: str, **options: Given) -> list[str]:
    found = check_workload(WorkloadSpec(kind=kind, options=options), root)
    assert all(problem.severity is Severity.ERROR and problem.remedy and problem.where for problem in found)
    return [problem.what for problem in found]


@pytest.fixture
def host(tmp_path: Path) -> AsIfReal:
    """8 GiB available; 64 KiB and 2 MiB THP, 8 KiB for shmem only; 2 MiB and 1 GiB pools, 3 GiB of 1 GiB pages free."""
    files = {
        "proc/meminfo": "MemTotal: 16777216 kB\nMemAvailable:    8388608 kB\n",
        "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
        "sys/kernel/mm/transparent_hugepage/hugepages-8kB/shmem_enabled": "always inherit [never]\n",
        "sys/kernel/mm/transparent_hugepage/hugepages-64kB/enabled": "[always] inherit madvise never\n",
        "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled": "always [inherit] madvise never\n",
        "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/stats/anon_fault_alloc": "17\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "0\n",
        "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages": "0\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "4\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/free_hugepages": "4\n",
        "sys/kernel/mm/hugepages/hugepages-1048576kB/resv_hugepages": "1\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return AsIfReal(tmp_path)


def test_what_can_run_has_no_problem(host: AsIfReal) -> None:
    assert problems(host, "pointer_chase", region_bytes=4 * GIB) == []
    assert problems(host, "pointer_chase", region_bytes=4 * GIB, page_size_kib=4) == []
    assert problems(host, "page_fault", region_bytes=GIB, page_size_kib=2048) == []
    assert problems(host, "acquire", pages=512, page_size_kib=2048) == []
    assert problems(FolderRoot(), "command", argv=("true",)) == []


def test_a_page_size_that_the_kernel_lacks_is_named_with_those_it_has(host: AsIfReal) -> None:
    spec = WorkloadSpec(kind="pointer_chase", options={"region_bytes": 4 * GIB, "page_size_kib": 1048576})
    (problem,) = check_workload(spec, host)
    assert problem.what == "this kernel has no anonymous pages of 1048576 KiB"
    assert "4 KiB, 64 KiB, 2048 KiB" in problem.remedy
    assert problems(host, "acquire", pages=1, page_size_kib=64, backing="hugetlb") == [
        "this kernel has no hugetlb pages of 64 KiB"
    ]


def test_pages_are_collapsed_to_the_size_that_one_pmd_maps_only(host: AsIfReal, tmp_path: Path) -> None:
    (tmp_path / "sys/kernel/mm/transparent_hugepage/hpage_pmd_size").write_text("2097152\n")
    asked = {"region_bytes": GIB, "collapse": True}
    assert problems(host, "page_fault", page_size_kib=2048, **asked) == []
    assert problems(host, "page_fault", **asked) == []
    assert problems(host, "page_fault", page_size_kib=64, **asked) == [
        "MADV_COLLAPSE makes pages of 2048 KiB here, not of 64 KiB"
    ]


def test_a_region_of_broken_pages_is_refused(host: AsIfReal) -> None:
    assert problems(host, "pointer_chase", region_bytes=3 * 2**20, page_size_kib=2048) == [
        "3,145,728 bytes are no multiple of the page size of 2,097,152 bytes"
    ]


def test_more_memory_than_is_available_is_refused(host: AsIfReal) -> None:
    assert problems(host, "pointer_chase", region_bytes=9 * GIB) == [
        "9,663,676,416 bytes are asked for, and 8,589,934,592 bytes are available"
    ]
    assert problems(host, "acquire", pages=5000, page_size_kib=2048) != []


def test_the_free_pages_of_a_pool_are_available_too(host: AsIfReal) -> None:
    assert problems(host, "pointer_chase", region_bytes=11 * GIB, backing="hugetlb", page_size_kib=1048576) == []
    assert problems(host, "pointer_chase", region_bytes=12 * GIB, backing="hugetlb", page_size_kib=1048576) != []


def test_a_pool_that_is_too_small_now_is_no_problem_yet(host: AsIfReal) -> None:
    assert problems(host, "pointer_chase", region_bytes=4 * GIB, backing="hugetlb", page_size_kib=2048) == []


def test_acquire_needs_a_kernel_that_counts(host: AsIfReal) -> None:
    assert problems(host, "acquire", pages=16, page_size_kib=64) == [
        "this kernel does not count the faults that it answers with 64 KiB"
    ]


def test_memory_of_this_machine_is_not_measured_for_another_host(tmp_path: Path) -> None:
    (what,) = problems(FolderRoot(tmp_path), "pointer_chase", region_bytes=GIB)
    assert "not that of the host looked at" in what


def test_option_problems_come_first_and_all_at_once(host: AsIfReal) -> None:
    assert len(problems(host, "pointer_chase", region_bytes="x", repeats="y", nonsense=1)) == 3


def test_a_missing_program_and_a_missing_user_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    root = FolderRoot()
    assert problems(root, "command", argv=("no-such-program",)) == [
        "there is no program 'no-such-program' to run on this host"
    ]
    assert problems(root, "command", argv=("/etc/passwd",)) != []
    assert problems(root, "command", argv=("true",), user="no-such-user") == [
        "there is no user 'no-such-user' on this host"
    ]
    assert problems(root, "command", argv=("true",), env=("PATH=/nonexistent",)) != []


def test_only_root_becomes_another_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    assert problems(FolderRoot(), "command", argv=("true",), user="nobody") == ["only root can run a command as nobody"]


def test_a_relative_program_is_found_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").write_text("#!/bin/sh\n")
    (tmp_path / "mine").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    spec = WorkloadSpec(kind="command", options={"argv": ("./mine",)})
    found: Callable[..., str] = environment.find_program
    from agents.workloads.options import read_options

    assert found(read_options(spec)) == str(tmp_path / "mine")


def test_starting_what_has_a_problem_raises_it(host: AsIfReal, tmp_path: Path) -> None:
    spec = WorkloadSpec(kind="pointer_chase", options={"region_bytes": 9 * GIB})
    with pytest.raises(WorkloadError, match="bytes are asked for") as caught:
        start_workload(spec, root=host, work_dir=tmp_path / "work", time_limit_seconds=1.0)
    assert caught.value.remedy
    assert not (tmp_path / "work").exists()


# ---------------------------------------------------------------------------- the page sizes of a host
def test_sizes_for_shared_memory_only_are_no_anonymous_sizes(host: AsIfReal) -> None:
    assert page_sizes_kib(host, Backing.ANONYMOUS) == (4, 64, 2048)
    assert page_sizes_kib(host, Backing.HUGETLB) == (2048, 1048576)


def test_the_largest_size_is_the_largest_enabled_one_that_fits(host: AsIfReal) -> None:
    assert largest_page_kib(host, Backing.ANONYMOUS, GIB, madvise=False) == 64
    assert largest_page_kib(host, Backing.ANONYMOUS, GIB, madvise=True) == 2048
    assert largest_page_kib(host, Backing.ANONYMOUS, 2**20, madvise=True) == 64
    assert largest_page_kib(host, Backing.ANONYMOUS, 4096, madvise=True) == 4


def test_the_largest_pool_is_the_largest_with_enough_unreserved_pages(host: AsIfReal) -> None:
    assert free_hugetlb_bytes(host, [2048, 1048576]) == 3 * GIB
    assert largest_page_kib(host, Backing.HUGETLB, 3 * GIB, madvise=False) == 1048576
    with pytest.raises(WorkloadError, match="no hugetlb pool has"):
        largest_page_kib(host, Backing.HUGETLB, 4 * GIB, madvise=False)


def test_what_a_host_does_not_say_is_unknown_and_no_zero(tmp_path: Path, host: AsIfReal) -> None:
    bare = AsIfReal(tmp_path / "empty")
    assert available_bytes(bare) is None
    assert faults_granted(bare, 2048) is None
    assert faults_granted(host, 2048) == 17
    assert free_hugetlb_bytes(bare, [2048]) == 0
    assert problems(bare, "pointer_chase", region_bytes=GIB) == []


@pytest.mark.parametrize(("top", "largest"), [("[always] madvise never", 2048), ("always [madvise] never", 4)])
def test_before_6_8_the_size_of_a_pmd_is_there_and_does_what_the_top_level_says(
    tmp_path: Path, top: str, largest: int
) -> None:
    folder = tmp_path / "sys/kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    (folder / "enabled").write_text(f"{top}\n")
    (folder / "hpage_pmd_size").write_text("2097152\n")
    host = AsIfReal(tmp_path)
    assert page_sizes_kib(host, Backing.ANONYMOUS) == (4, 2048)
    assert largest_page_kib(host, Backing.ANONYMOUS, GIB, madvise=False) == largest
    assert largest_page_kib(host, Backing.ANONYMOUS, GIB, madvise=True) == 2048
    assert problems(host, "pointer_chase", region_bytes=GIB, dereferences=1000, page_size_kib=2048) == []
