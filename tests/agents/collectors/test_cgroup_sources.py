"""A cgroup's memory, version 1, version 2 and both at once: in folders, and in this machine's own hierarchy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.collectors import Collectors
from agents.sysroot import FolderRoot

Tree = Callable[..., FolderRoot]
Closing = Callable[[Collectors], Collectors]
V2 = "sys/fs/cgroup/system.slice/web.service"
V1 = "sys/fs/cgroup/memory/system.slice/web.service"


@pytest.mark.parametrize("name", ["system.slice/web.service", "/system.slice/web.service", f"/{V2}"])
def test_version_2_is_found_by_any_spelling_of_its_path(host_tree: Tree, closing: Closing, name: str) -> None:
    sample = closing(Collectors(host_tree(), cgroup=name)).sample()
    assert sample["cgroup_memory_bytes"] == 1076101120.0
    assert sample["cgroup_memory_peak_bytes"] == 1080000000.0
    assert sample["cgroup_anon_bytes"] == 1073741824.0
    assert sample["cgroup_page_table_bytes"] == 2179072.0
    assert sample["cgroup_oom_kills"] == 0.0
    assert sample["cgroup_psi_memory_some_seconds"] == pytest.approx(0.00011)


@pytest.mark.parametrize("name", ["system.slice/web.service", f"/{V1}"])
def test_version_1_gives_what_it_counts_and_the_reason_for_the_rest(
    host_tree: Tree, closing: Closing, name: str
) -> None:
    collectors = closing(Collectors(host_tree(cgroup_version=1), cgroup=name))
    sample = collectors.sample()
    assert sample["cgroup_memory_bytes"] == 1076101120.0
    assert (sample["cgroup_anon_bytes"], sample["cgroup_anon_thp_bytes"]) == (1073741824.0, 0.0)
    assert sample["cgroup_oom_kills"] == 0.0
    for metric in ("cgroup_page_table_bytes", "cgroup_thp_fault_alloc", "cgroup_psi_memory_some_seconds"):
        assert metric not in sample
        assert "version 1" in collectors.unavailable[metric]


def test_hybrid_takes_memory_from_version_1_and_pressure_from_version_2(host_tree: Tree, closing: Closing) -> None:
    unified = "sys/fs/cgroup/unified"
    files = {
        f"{unified}/cgroup.controllers": "",
        f"{unified}/system.slice/web.service/cgroup.procs": "4242",
        f"{unified}/system.slice/web.service/memory.pressure": "some avg10=0 total=5000000\nfull avg10=0 total=0",
    }
    collectors = closing(Collectors(host_tree(cgroup_version=1, files=files), cgroup="system.slice/web.service"))
    sample = collectors.sample()
    assert sample["cgroup_memory_bytes"] == 1076101120.0
    assert sample["cgroup_psi_memory_some_seconds"] == 5.0


def test_a_cgroup_that_is_not_there_is_a_reason_not_an_error(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree(), cgroup="system.slice/wbe.service"))
    assert not any(name.startswith("cgroup_") for name in collectors.sample())
    assert "wbe.service" in collectors.unavailable["cgroup_memory_bytes"]


def test_a_restarted_service_is_followed_into_its_new_cgroup(closing: Closing) -> None:
    mount = Path("/sys/fs/cgroup/memory")
    if os.geteuid() != 0 or not (mount / "memory.stat").exists():
        pytest.skip("needs root and a version 1 memory hierarchy, whose files fail once their cgroup is gone")
    folder = mount / f"fleetexp-test-{os.getpid()}"
    folder.mkdir()
    try:
        collectors = closing(Collectors(FolderRoot(), cgroup=folder.name))
        assert {"cgroup_memory_bytes", "cgroup_anon_bytes", "cgroup_oom_kills"} <= collectors.sample().keys()
        folder.rmdir()
        folder.mkdir()
        assert {"cgroup_memory_bytes", "cgroup_anon_bytes", "cgroup_oom_kills"} <= collectors.sample().keys()
        assert any("ENODEV" in detail for _, detail in collectors.events())
        folder.rmdir()
        gone = collectors.sample()
        assert not any(name.startswith("cgroup_memory") for name in gone)
        assert "cgroup_memory_bytes" in collectors.unavailable
    finally:
        if folder.exists():
            folder.rmdir()


def test_memory_of_a_real_version_1_cgroup_is_its_tasks_memory(closing: Closing) -> None:
    mount = Path("/sys/fs/cgroup/memory")
    if os.geteuid() != 0 or not (mount / "memory.stat").exists():
        pytest.skip("needs root and a version 1 memory hierarchy")
    folder = mount / f"fleetexp-test-{os.getpid()}-b"
    folder.mkdir()
    hold = (
        f"open({str(folder / 'cgroup.procs')!r}, 'w').write('0'); import mmap, sys\n"
        "m = mmap.mmap(-1, 64 << 20, flags=34)\nfor i in range(0, 64 << 20, 4096): m[i] = 1\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-S", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        sample = closing(Collectors(FolderRoot(), cgroup=folder.name)).sample()
        assert 64 << 20 <= sample["cgroup_anon_bytes"] < 96 << 20
        assert sample["cgroup_memory_peak_bytes"] >= sample["cgroup_anon_bytes"]
    finally:
        child.communicate()
        folder.rmdir()


def test_a_cgroup_without_perf_events_says_so_for_each_event(closing: Closing) -> None:
    collectors = closing(Collectors(FolderRoot(), cgroup="no/such.slice"))
    assert "perf events" in collectors.unavailable["cgroup_page_faults"]
    assert "memory controller" in collectors.unavailable["cgroup_memory_bytes"]
