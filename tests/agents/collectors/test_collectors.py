"""The sampler over a host in a folder, and over this machine."""

from __future__ import annotations

import errno
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.catalogue import is_known
from agents.collectors import Collectors
from agents.messages import HostEventKind
from agents.sysroot import FolderRoot, Reader

Tree = Callable[..., FolderRoot]
STATS = "sys/kernel/mm/transparent_hugepage/hugepages-{}kB/stats"


Closing = Callable[[Collectors], Collectors]


# ---------------------------------------------------------------------------- values
def test_counters_are_raw_and_levels_in_their_unit(host_tree: Tree, closing: Closing) -> None:
    sample = closing(Collectors(host_tree())).sample()
    assert sample["pgfault"] == 3025098.0
    assert sample["memory_total_bytes"] == 24684092 * 1024.0
    assert sample["psi_memory_some_seconds"] == pytest.approx(0.001)
    assert sample["oom_kills"] == 0.0


def test_a_sample_follows_the_files(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    collectors.sample()
    (root.root / STATS.format(2048) / "nr_anon").write_text("17\n")
    vmstat = root.root / "proc/vmstat"
    vmstat.write_text(vmstat.read_text().replace("thp_split_pud 0", "thp_split_pud 5"))
    sample = collectors.sample()
    assert (sample["thp_2048kB_nr_anon"], sample["thp_split_pud"]) == (17.0, 5.0)


@pytest.mark.parametrize("cgroup_version", [1, 2])
def test_every_metric_that_is_sampled_is_in_the_catalogue(
    host_tree: Tree, closing: Closing, cgroup_version: int
) -> None:
    root = host_tree(gigantic=True, cgroup_version=cgroup_version)
    found = closing(Collectors(root, watch_sizes_kib=(64,), cgroup="system.slice/web.service")).boundary()
    assert [name for name in found if not is_known(name)] == []


def test_named_sizes_the_pmd_size_and_1_gb_are_in_each_sample_the_rest_at_boundaries(
    host_tree: Tree, closing: Closing
) -> None:
    collectors = closing(Collectors(host_tree(gigantic=True), watch_sizes_kib=(64, 32768)))
    sample, boundary = collectors.sample(), collectors.boundary()
    stat = "anon_fault_alloc"
    sizes = (16, 64, 1024, 2048, 1048576)
    assert [size for size in sizes if f"thp_{size}kB_{stat}" in sample] == [64, 2048, 1048576]
    assert [size for size in sizes if f"thp_{size}kB_{stat}" in boundary] == list(sizes)
    assert "hugetlb_1048576kB_free_pages" in sample
    assert sample.keys() <= boundary.keys()


def test_a_stat_that_only_this_kernel_has_is_collected(host_tree: Tree, closing: Closing) -> None:
    root = host_tree(files={f"{STATS.format(2048)}/anon_fault_declined": "4"})
    assert closing(Collectors(root)).sample()["thp_2048kB_anon_fault_declined"] == 4.0


def test_fragmentation_is_read_at_boundaries_only(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree()))
    assert not any(name.startswith(("buddyinfo", "pageblocks")) for name in collectors.sample())
    boundary = collectors.boundary()
    assert boundary["buddyinfo_order10_free_blocks"] == 752.0
    assert boundary["pageblocks_unmovable"] == 141.0


# ---------------------------------------------------------------------------- what is not there
def test_a_missing_source_is_absent_with_the_reason_never_zero(host_tree: Tree, closing: Closing) -> None:
    gone = dict.fromkeys(("proc/pressure/memory", "proc/vmstat", "proc/buddyinfo", "proc/pagetypeinfo"))
    collectors = closing(Collectors(host_tree(files=gone)))
    boundary = collectors.boundary()
    for metric in ("psi_memory_some_seconds", "pgfault", "buddyinfo", "pageblocks"):
        assert metric not in boundary
        assert "ENOENT" in collectors.unavailable[metric]
    assert "dtlb_load_misses" not in boundary
    assert collectors.unavailable["dtlb_load_misses"]
    assert "agent does not run on the host" in collectors.unavailable["agent_cpu_seconds"]


def test_a_line_that_this_kernel_lacks_is_named(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree(files={"proc/vmstat": "pgfault 1"})))
    assert "thp_split_pud" not in collectors.sample()
    assert "no such line" in collectors.unavailable["thp_split_pud"]
    assert "pgfault" not in collectors.unavailable


def test_a_source_that_appears_is_read_from_the_next_boundary_on(host_tree: Tree, closing: Closing) -> None:
    root = host_tree(files={"proc/pressure/io": None})
    collectors = closing(Collectors(root))
    assert "psi_io_some_seconds" not in collectors.sample()
    (root.root / "proc/pressure/io").write_text("some avg10=0.00 total=3000000\nfull avg10=0.00 total=1000000\n")
    assert collectors.boundary()["psi_io_some_seconds"] == 3.0
    assert "psi_io_some_seconds" not in collectors.unavailable
    assert collectors.sample()["psi_io_some_seconds"] == 3.0


def test_a_table_that_turns_to_garbage_is_reported_once_and_comes_back(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    vmstat = root.root / "proc/vmstat"
    good = vmstat.read_text()
    vmstat.write_text("pgfault many\n")
    assert "pgfault" not in collectors.sample()
    told = [(kind, detail) for kind, detail in collectors.events() if "vmstat" in detail]
    assert [kind for kind, _ in told] == [HostEventKind.SOURCE_LOST]
    collectors.sample()
    assert collectors.events() == []
    assert "went away" in collectors.unavailable["pgfault"] or "not understood" in collectors.unavailable["pgfault"]
    vmstat.write_text(good)
    assert collectors.boundary()["pgfault"] == 3025098.0


def test_a_number_that_turns_to_garbage_leaves_the_others(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    file = root.root / STATS.format(2048) / "split"
    file.write_text("?\n")
    sample = collectors.sample()
    assert "thp_2048kB_split" not in sample
    assert sample["thp_2048kB_nr_anon"] == 0.0
    assert any("stats/split" in detail for _, detail in collectors.events())
    file.write_text("2\n")
    assert collectors.sample()["thp_2048kB_split"] == 2.0


def test_lines_that_go_come_or_change_places_between_samples_are_followed(host_tree: Tree, closing: Closing) -> None:
    root = host_tree(files={"proc/vmstat": "pgfault 1\noom_kill 0\nthp_split_pud 4"})
    collectors = closing(Collectors(root))
    shown = ("pgfault", "oom_kills", "thp_split_pud", "thp_split_page")
    for text, wanted in (
        ("pgfault 2\nthp_split_pud 4\noom_kill 0\n", {"pgfault": 2.0, "oom_kills": 0.0, "thp_split_pud": 4.0}),
        ("pgfault 3\noom_kill 0\n", {"pgfault": 3.0, "oom_kills": 0.0}),
        ("thp_split_page 9\npgfault 4\n", {"pgfault": 4.0, "thp_split_page": 9.0}),
        (
            "thp_split_page 8\npgfault 4\nthp_split_pud 4\n",
            {"pgfault": 4.0, "thp_split_pud": 4.0, "thp_split_page": 8.0},
        ),
    ):
        (root.root / "proc/vmstat").write_text(text)
        sample = collectors.sample()
        assert {metric: sample[metric] for metric in shown if metric in sample} == wanted
    assert "no such line" in collectors.unavailable["oom_kills"]
    assert not {"pgfault", "thp_split_pud", "thp_split_page"} & collectors.unavailable.keys()
    assert collectors.events() == []


def test_number_files_stay_rise_and_go_back_between_samples(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    split, held = root.root / STATS.format(2048) / "split", root.root / STATS.format(2048) / "nr_anon"
    for splits, pages in ((1, 5), (1, 5), (2, 5), (0, 5), (0, 6), (2**60, 0)):
        split.write_text(f"{splits}\n")
        held.write_text(f"{pages}\n")
        sample = collectors.sample()
        assert (sample["thp_2048kB_split"], sample["thp_2048kB_nr_anon"]) == (splits, pages)


def test_a_number_longer_than_what_is_read_of_it_is_no_number(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    (root.root / STATS.format(2048) / "split").write_text("0" * 200 + "7\n")
    assert "thp_2048kB_split" not in collectors.sample()
    assert "a number of 201 digits" in collectors.unavailable["thp_2048kB_split"]


WRAPPED = str(2**64 - 3)


def test_a_level_below_zero_is_unavailable_beside_the_others_and_told_once(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root, cgroup="system.slice/web.service"))
    for path, old, new in (
        (STATS.format(2048) + "/nr_anon", "0", WRAPPED),
        ("proc/vmstat", "nr_free_cma 0", f"nr_free_cma {WRAPPED}"),
        ("proc/meminfo", "   24052620 kB", " 240526200 kB"),
        ("sys/fs/cgroup/system.slice/web.service/memory.stat", "anon_thp 0", "anon_thp -4096"),
    ):
        text = (root.root / path).read_text()
        assert old in text
        (root.root / path).write_text(text.replace(old, new))
    doubted = ("thp_2048kB_nr_anon", "nr_free_cma", "memory_available_bytes", "cgroup_anon_thp_bytes")
    sample = collectors.sample()
    assert not any(metric in sample for metric in doubted)
    assert sample["thp_2048kB_split"] == sample["thp_split_pud"] == 0.0
    assert sample["memory_free_bytes"] == 23375396 * 1024.0
    reasons = [collectors.unavailable[metric] for metric in doubted]
    assert [reason.rpartition(": ")[2] for reason in reasons] == [
        "below zero, printed without its sign",
        "below zero, printed without its sign",
        "this kernel has lost count",
        "below zero",
    ]
    assert [kind for kind, _ in collectors.events()] == [HostEventKind.SOURCE_LOST] * 4
    collectors.sample()
    assert collectors.events() == []
    (root.root / STATS.format(2048) / "nr_anon").write_text("7\n")
    assert collectors.boundary()["thp_2048kB_nr_anon"] == 7.0
    assert "thp_2048kB_nr_anon" not in collectors.unavailable


def test_what_can_not_be_believed_from_the_start_was_never_lost(host_tree: Tree, closing: Closing) -> None:
    files = {f"{STATS.format(2048)}/nr_anon": WRAPPED, "proc/vmstat": f"pgfault {'9' * 10_000}\noom_kill 0"}
    collectors = closing(Collectors(host_tree(files=files)))
    assert collectors.events() == []
    assert collectors.sample()["oom_kills"] == 0.0
    assert "no host reaches" in collectors.unavailable["pgfault"]
    assert collectors.events() == []


# ---------------------------------------------------------------------------- events
def test_a_quiet_host_has_no_events(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree()))
    collectors.sample()
    assert collectors.events() == []


def test_new_taint_flags_are_told_once_and_old_ones_never(host_tree: Tree, closing: Closing) -> None:
    root = host_tree(files={"proc/sys/kernel/tainted": "4096"})
    collectors = closing(Collectors(root))
    assert collectors.events() == []
    (root.root / "proc/sys/kernel/tainted").write_text(f"{4096 | 1 << 7 | 1 << 9}\n")
    assert collectors.events() == [
        (HostEventKind.TAINT, "kernel died recently (oops or BUG)"),
        (HostEventKind.TAINT, "kernel issued a warning"),
    ]
    assert collectors.events() == []


def test_oom_kills_are_told_with_their_number(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    vmstat = root.root / "proc/vmstat"
    vmstat.write_text(vmstat.read_text().replace("oom_kill 0", "oom_kill 2"))
    collectors.sample()
    assert collectors.events() == [(HostEventKind.OOM_KILL, "oom_kill rose by 2, from 0 to 2")]
    collectors.sample()
    assert collectors.events() == []


def test_a_host_without_taint_says_so(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree(files={"proc/sys/kernel/tainted": None})))
    assert collectors.events() == []
    assert "kernel_taint" in collectors.unavailable


def test_taint_that_turns_unreadable_is_no_event(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    (root.root / "proc/sys/kernel/tainted").write_text("?\n")
    assert collectors.events() == []


def test_the_kernel_log_is_heard_through_the_collectors(host_tree: Tree, closing: Closing) -> None:
    root = host_tree()
    collectors = closing(Collectors(root))
    with (root.root / "dev/kmsg").open("a") as log:
        log.write("1,2,5,-;BUG: Bad page state in process chase  pfn:140000\n")
    assert collectors.events() == [(HostEventKind.BAD_PAGE, "BUG: Bad page state in process chase  pfn:140000")]


def test_a_module_that_taints_the_kernel_is_told_and_is_no_sickness(host_tree: Tree, closing: Closing) -> None:
    root = host_tree(files={"proc/sys/kernel/tainted": "0"})
    collectors = closing(Collectors(root))
    (root.root / "proc/sys/kernel/tainted").write_text(f"{1 << 12 | 1 << 15 | 1 << 14}\n")
    assert collectors.events() == [
        (HostEventKind.TAINT, "soft lockup occurred"),
        (HostEventKind.KERNEL_CHANGED, "externally built module loaded"),
        (HostEventKind.KERNEL_CHANGED, "kernel live patched"),
    ]


# ---------------------------------------------------------------------------- this machine
def test_own_cost_is_this_process_with_all_its_threads(closing: Closing) -> None:
    collectors = closing(Collectors(FolderRoot()))
    before = collectors.sample()
    spin_until = time.process_time() + 0.05
    while time.process_time() < spin_until:
        pass
    after = collectors.sample()
    assert after["agent_cpu_seconds"] - before["agent_cpu_seconds"] >= 0.05
    assert after["agent_rss_bytes"] > 5 << 20


def test_counters_of_this_machine_never_fall(closing: Closing) -> None:
    from agents.catalogue import MetricKind, describe

    collectors = closing(Collectors(FolderRoot()))
    samples = [collectors.boundary() for _ in range(5)]
    for one, next_one in itertools.pairwise(samples):
        for name in one.keys() & next_one.keys():
            if describe(name).kind is MetricKind.COUNTER:
                assert next_one[name] >= one[name], name


def test_closing_gives_every_descriptor_back_and_may_be_repeated() -> None:
    before = len(os.listdir("/proc/self/fd"))
    collectors = Collectors(FolderRoot(), watch_sizes_kib=(64,))
    collectors.boundary()
    assert len(os.listdir("/proc/self/fd")) > before
    collectors.close()
    collectors.close()
    assert len(os.listdir("/proc/self/fd")) == before


# ---------------------------------------------------------------------------- faults
class Failing(FolderRoot):
    """A host where some files can't be read or opened, for the reason the test gives."""

    def __init__(self, root: FolderRoot, errors: dict[str, int]) -> None:
        super().__init__(root.root)
        self.errors = errors

    def _check(self, path: str) -> None:
        for ending, code in self.errors.items():
            if path.endswith(ending):
                raise OSError(code, os.strerror(code), path)

    def read(self, path: str) -> bytes:
        self._check(path)
        return super().read(path)

    def reader(self, path: str) -> Reader:
        self._check(path)
        return super().reader(path)


@pytest.mark.parametrize(
    "case",
    [
        ("proc/pressure/memory", errno.EOPNOTSUPP, "psi_memory_full_seconds", "compiled in but off; boot with psi=1"),
        ("proc/pagetypeinfo", errno.EACCES, "pageblocks", "run as root"),
        ("hugepages-16kB/stats/split", errno.EIO, "thp_16kB_split", "EIO: Input/output error"),
        ("hugepages-2048kB/stats/split", errno.EMFILE, "thp_2048kB_split", "ulimit -n"),
        ("proc/meminfo", errno.EACCES, "memory_total_bytes", "run as root"),
    ],
)
def test_why_a_file_can_not_be_read_is_said_in_words(
    host_tree: Tree, closing: Closing, case: tuple[str, int, str, str]
) -> None:
    ending, code, metric, words = case
    collectors = closing(Collectors(Failing(host_tree(), {ending: code})))
    boundary = collectors.boundary()
    assert metric not in boundary
    assert words in collectors.unavailable[metric]
    assert "pgfault" in boundary


def test_what_was_unreadable_at_one_boundary_is_read_at_the_next(host_tree: Tree, closing: Closing) -> None:
    root = Failing(host_tree(), {"hugepages-16kB/stats/split": errno.EIO, "proc/buddyinfo": errno.EACCES})
    collectors = closing(Collectors(root))
    collectors.boundary()
    root.errors.clear()
    boundary = collectors.boundary()
    assert boundary["thp_16kB_split"] == 0.0
    assert "buddyinfo_order0_free_blocks" in boundary
    assert not {"thp_16kB_split", "buddyinfo"} & collectors.unavailable.keys()


def test_a_kernel_without_huge_pages_is_sampled_all_the_same(tmp_path: Path, closing: Closing) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/vmstat").write_text("pgfault 5\n")
    collectors = closing(Collectors(FolderRoot(tmp_path), watch_sizes_kib=(2048,)))
    assert collectors.boundary() == {"pgfault": 5.0}


def test_a_host_without_a_kernel_log_says_so(host_tree: Tree, closing: Closing) -> None:
    collectors = closing(Collectors(host_tree(files={"dev/kmsg": None})))
    assert "ENOENT" in collectors.unavailable["kernel_log"]
    assert collectors.events() == []


def test_what_one_sample_reads_is_listed(closing: Closing) -> None:
    collectors = closing(Collectors(FolderRoot()))
    assert {"proc/vmstat", "proc/meminfo", "proc/self/statm"} <= set(collectors.paths)
    assert len(collectors.paths) == len(set(collectors.paths))
    for fd in collectors.descriptors:
        assert os.fstat(fd)


def test_without_statm_the_cpu_time_is_still_told(host_tree: Tree, closing: Closing) -> None:
    class RealFolder(FolderRoot):
        @property
        def real(self) -> bool:
            return True

    collectors = closing(Collectors(RealFolder(host_tree().root)))
    assert "ENOENT" in collectors.unavailable["agent_rss_bytes"]
    assert collectors.sample()["agent_cpu_seconds"] > 0
