"""The map of a host: over hosts in a folder, and over this machine."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.environment_probe import find_managers, find_splitting_readers, find_virtualisation, process_names
from agents.facts import survey
from agents.sysroot import FolderRoot

Tree = Callable[..., FolderRoot]
THP = "sys/kernel/mm/transparent_hugepage"


def test_what_the_host_is(host_tree: Tree) -> None:
    facts = survey(host_tree(nodes=2, files={"proc/sys/kernel/arch": "x86_64"}), labels={"pool": "web"})
    assert (facts.host, facts.kernel, facts.architecture) == ("web-017", "6.18.44", "x86_64")
    assert (facts.cpu_model, facts.cpus, facts.numa_nodes) == ("AMD EPYC", 2, 2)
    assert facts.memory_total_bytes == 24684092 * 1024
    assert facts.memory_available_bytes == 24052620 * 1024
    assert (facts.uptime_seconds, facts.swap_total_bytes, facts.kernel_taint) == (2130.89, 0, 0)
    assert facts.numa_balancing is False
    assert facts.labels == {"pool": "web"}
    assert facts.boot_id
    assert pickle.loads(pickle.dumps(facts)) == facts  # noqa: S301  our own


def test_the_name_given_goes_before_the_machines_own(host_tree: Tree) -> None:
    assert survey(host_tree(), host="rack-7").host == "rack-7"


def test_inherit_is_resolved_through_the_top_level(host_tree: Tree) -> None:
    sizes = {size.size_kib: size for size in survey(host_tree(gigantic=True)).thp_sizes}
    assert list(sizes) == [16, 64, 1024, 2048, 1048576]
    assert (sizes[2048].enabled, sizes[2048].effective) == ("inherit", "madvise")
    assert (sizes[64].enabled, sizes[64].effective) == ("never", "never")
    assert sizes[1048576].shmem_enabled is None
    assert sizes[2048].shmem_enabled == "never"


def test_a_size_set_to_always_is_effective_whatever_the_top_level_says(host_tree: Tree) -> None:
    files = {f"{THP}/enabled": "always madvise [never]", f"{THP}/hugepages-64kB/enabled": "[always] inherit never"}
    sizes = {size.size_kib: size.effective for size in survey(host_tree(files=files)).thp_sizes}
    assert (sizes[64], sizes[2048]) == ("always", "never")


def test_a_size_for_shared_memory_only_has_no_state_for_anonymous(host_tree: Tree) -> None:
    """6.18 lists hugepages-8kB with shmem_enabled alone: two pages are too few for an anonymous folio."""
    (size,) = survey(host_tree(thp_sizes_kib=(8,), files={f"{THP}/hugepages-8kB/enabled": None})).thp_sizes
    assert (size.enabled, size.effective, size.shmem_enabled, size.writable) == ("", "", "never", False)


def test_pools_are_counted_and_writable_where_they_are(host_tree: Tree) -> None:
    files = {"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "3"}
    pools = {pool.size_kib: pool for pool in survey(host_tree(files=files)).hugetlb_pools}
    assert (pools[1048576].total_pages, pools[1048576].free_pages, pools[2048].total_pages) == (3, 0, 0)
    assert pools[1048576].writable


def test_an_area_kept_at_boot_for_gigantic_pages_is_found(host_tree: Tree) -> None:
    files = {"proc/cmdline": "BOOT_IMAGE=/vmlinuz hugetlb_cma=2G quiet nohugetlb_cma=1 hugetlb_cma=0:4G,1:4G\n"}
    facts = survey(host_tree(files=files | {"proc/meminfo": "MemTotal: 16 kB\nCmaTotal: 8388608 kB\n"}))
    assert (facts.hugetlb_cma, facts.cma_total_bytes) == ("0:4G,1:4G", 8 * 2**30)
    facts = survey(host_tree())
    assert (facts.hugetlb_cma, facts.cma_total_bytes) == ("", 0)


def test_every_knob_is_listed_with_its_value(host_tree: Tree) -> None:
    facts = survey(host_tree())
    assert facts.knobs["thp/2048kB/enabled"] == "inherit"
    assert facts.thp_top_level == facts.knobs["thp/enabled"] == "madvise"
    assert facts.thp_defrag == "madvise"
    assert set(facts.writable_knobs) == set(facts.knobs)
    assert facts.not_writable_because == ""


class ReadOnly(FolderRoot):
    """A host whose knobs can't be opened for writing, as on a read-only mount: also for root."""

    def writable(self, path: str) -> bool:
        return False


def test_why_knobs_can_not_be_written_is_told_from_the_mounts(host_tree: Tree) -> None:
    mounts = "sysfs /sys sysfs ro,nosuid 0 0\nproc /proc proc rw 0 0\nproc /proc/sys proc ro,relatime 0 0"
    facts = survey(ReadOnly(host_tree(files={"proc/self/mounts": mounts}).root))
    assert facts.writable_knobs == ()
    assert facts.not_writable_because.startswith("/sys, /proc/sys mounted read-only")
    assert not any(size.writable for size in facts.thp_sizes)


def test_why_knobs_can_not_be_written_without_a_read_only_mount(host_tree: Tree) -> None:
    assert "does not let them" in survey(ReadOnly(host_tree().root)).not_writable_because


def test_not_being_root_is_the_reason_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    facts = survey(ReadOnly("/"))
    assert facts.not_writable_because.startswith(("not root", "/"))


@pytest.mark.parametrize(("version", "wanted"), [(1, 1), (2, 2), (None, None)])
def test_the_cgroup_version_is_that_of_the_memory_controller(
    host_tree: Tree, version: int | None, wanted: int | None
) -> None:
    assert survey(host_tree(cgroup_version=version)).cgroup_version == wanted


def test_a_hybrid_host_counts_memory_in_version_1(host_tree: Tree) -> None:
    files = {"sys/fs/cgroup/unified/cgroup.controllers": ""}
    assert survey(host_tree(cgroup_version=1, files=files)).cgroup_version == 1
    assert survey(host_tree(name="other", cgroup_version=None, files=files)).cgroup_version is None


def test_a_memory_controller_that_was_left_out_at_boot_is_none(host_tree: Tree) -> None:
    files = {"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io pids"}
    assert survey(host_tree(files=files)).cgroup_version is None


@pytest.mark.parametrize("text", [None, "", "garbage"])
def test_pressure_must_be_readable_to_be_available(host_tree: Tree, text: str | None) -> None:
    assert survey(host_tree(name="with")).pressure_available
    without = survey(host_tree(name="without", files={"proc/pressure/memory": text}))
    assert not without.pressure_available
    assert without.pressure_missing_because.startswith("/proc/pressure/memory")


@pytest.mark.parametrize(
    ("pages", "kib", "base_page_bytes"),
    [
        (1000, 4000, 4096),
        (1000, 16000, 16384),
        (1000, 64000, 65536),
        (1000, 70000, 65536),  # a bundle's files are read seconds apart
        (1000, 3500, 4096),
        (1000, 50000, 0),  # between two sizes: not known
        (1000, 100, 0),
        (0, 64000, 0),
    ],
)
def test_the_base_page_is_what_vmstat_and_meminfo_count_alike(
    host_tree: Tree, pages: int, kib: int, base_page_bytes: int
) -> None:
    files = {"proc/vmstat": f"nr_free_pages {pages}", "proc/meminfo": f"MemFree: {kib} kB"}
    assert survey(host_tree(files=files)).base_page_bytes == base_page_bytes


@pytest.mark.parametrize(("pmd_bytes", "pmd_kib"), [(2 << 20, 2048), (1 << 20, 1024), (512 << 20, 524288), (None, 0)])
def test_the_size_of_a_pmd_is_what_the_kernel_says(host_tree: Tree, pmd_bytes: int | None, pmd_kib: int) -> None:
    files = {f"{THP}/hpage_pmd_size": str(pmd_bytes) if pmd_bytes else None}
    assert survey(host_tree(files=files)).thp_pmd_kib == pmd_kib


def test_before_6_8_the_one_size_is_switched_at_the_top(host_tree: Tree) -> None:
    facts = survey(host_tree(thp_sizes_kib=()))
    (size,) = facts.thp_sizes
    assert (size.size_kib, size.enabled, size.effective, size.writable) == (2048, "madvise", "madvise", True)
    assert facts.thp_switch(2048) == "thp/enabled"
    assert survey(host_tree(name="newer")).thp_switch(2048) == "thp/2048kB/enabled"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n",
            "implementer 0x41 part 0xd40",
        ),
        (
            "vendor_id       : IBM/S390\n# processors    : 2\n"
            "processor 0: version = FF,  identification = 233EF7,  machine = 3906\n",
            "IBM/S390 machine 3906",
        ),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
        ("processor\t: 0\n", ""),
    ],
)
def test_a_cpu_is_named_as_its_architecture_names_it(host_tree: Tree, text: str, wanted: str) -> None:
    assert survey(host_tree(files={"proc/cpuinfo": text})).cpu_model == wanted


def test_cpus_are_counted_in_cpuinfo_where_sysfs_has_no_list(host_tree: Tree) -> None:
    online = "sys/devices/system/cpu/online"
    assert survey(host_tree(files={online: None})).cpus == 2
    assert survey(host_tree(name="other", files={online: "0-99999999999"})).cpus == 2


def test_a_knob_that_can_not_be_read_is_left_out_of_the_map(host_tree: Tree) -> None:
    root = host_tree(files={f"{THP}/defrag": None})
    (root.root / THP / "defrag").mkdir()
    facts = survey(root)
    assert "thp/defrag" not in facts.knobs
    assert facts.thp_defrag == ""
    assert facts.thp_top_level == "madvise"


NINES = "9" * 10_000


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/meminfo", f"MemTotal: {NINES} kB\nMemFree: ² kB"),
        ("proc/uptime", NINES),
        ("proc/uptime", "soon"),
        ("proc/sys/kernel/tainted", NINES),
        ("proc/sys/kernel/numa_balancing", "²"),
        (f"{THP}/hpage_pmd_size", NINES),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", NINES),
        ("sys/devices/system/cpu/online", f"0-{NINES}"),
        ("proc/vmstat", f"nr_free_pages {NINES}"),
        ("proc/pressure/memory", f"some total={NINES}"),
        ("proc/cpuinfo", f"processor : {NINES}"),
    ],
)
def test_numbers_of_absurd_length_are_unknown_never_a_crash(host_tree: Tree, path: str, text: str) -> None:
    facts = survey(host_tree(files={path: text}))
    assert facts.uptime_seconds in {2130.89, 0.0}
    assert facts.memory_total_bytes in {24684092 * 1024, 0}
    assert facts.kernel_taint == 0


def test_a_host_with_nothing_to_read_is_unknown_not_guessed(tmp_path: Path) -> None:
    facts = survey(FolderRoot(tmp_path), host="bare")
    assert (facts.kernel, facts.cpu_model, facts.thp_top_level, facts.virtualisation) == ("", "", "", "unknown")
    assert (facts.cgroup_version, facts.numa_balancing) == (None, None)
    assert (facts.memory_total_bytes, facts.cpus, facts.uptime_seconds) == (0, 0, 0.0)
    assert (facts.thp_sizes, facts.hugetlb_pools, facts.knobs) == ((), (), {})
    assert not facts.pressure_available


def test_surveying_changes_nothing(host_tree: Tree) -> None:
    root = host_tree(gigantic=True)
    files = [path for path in sorted(root.root.rglob("*")) if path.is_file()]
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}
    survey(root)
    after = [path for path in sorted(root.root.rglob("*")) if path.is_file()]
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in after} == before


def test_this_machine_is_surveyed() -> None:
    facts = survey(FolderRoot())
    assert facts.kernel == os.uname().release
    assert facts.architecture == os.uname().machine
    assert facts.cpus == len(os.sched_getaffinity(0)) or facts.cpus > 0
    assert facts.base_page_bytes == os.sysconf("SC_PAGE_SIZE")
    assert facts.memory_total_bytes >= facts.memory_available_bytes > 0
    assert len({one.event for one in facts.perf_events}) == len(facts.perf_events)
    assert all(one.available or one.reason for one in facts.perf_events)


# ---------------------------------------------------------------------------- surroundings
X86, ARM = "flags\t\t: fpu lm{}\n", "Features\t: fp asimd\n"
POWER = "processor\t: 0\ncpu\t\t: POWER9, altivec supported\n\nplatform\t: {}\nmachine\t\t: {}\n"
TREE = "sys/firmware/devicetree/base"


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"proc/cpuinfo": X86.format("")}, ""),
        ({"proc/cpuinfo": X86.format(" hypervisor")}, "virtual machine"),
        ({"proc/cpuinfo": X86.format(" hypervisor"), "sys/class/dmi/id/sys_vendor": "QEMU"}, "qemu"),
        ({"proc/cpuinfo": X86.format(" hypervisor"), "sys/class/dmi/id/product_name": "KVM"}, "kvm"),
        # a metal host of a cloud carries its name and is not virtual
        ({"proc/cpuinfo": X86.format(""), "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, ""),
        ({"sys/hypervisor/type": "xen"}, "xen"),
        ({"proc/cpuinfo": ARM, "sys/class/dmi/id/sys_vendor": "Google"}, "google compute engine"),
        ({"proc/cpuinfo": ARM, "sys/firmware/devicetree/base/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        ({"proc/cpuinfo": ARM}, "unknown"),
        ({"proc/cpuinfo": ARM, "sys/class/dmi/id/sys_vendor": "GIGABYTE"}, ""),
        ({"proc/cpuinfo": ARM, "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, "amazon ec2"),
        (
            {
                "proc/cpuinfo": ARM,
                "sys/class/dmi/id/sys_vendor": "Amazon EC2",
                "sys/class/dmi/id/product_name": "c7g.metal",
            },
            "",
        ),
        ({"proc/cpuinfo": ARM, f"{TREE}/compatible": "linux,dummy-virt\0"}, "virtual machine"),
        ({"proc/cpuinfo": ARM, f"{TREE}/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"}, ""),
        ({"proc/cpuinfo": ARM, f"{TREE}/hypervisor/compatible": "xen,xen-4.17\0xen,xen\0"}, "xen"),
        ({"proc/cpuinfo": POWER.format("PowerNV", "PowerNV C1P9S01")}, ""),
        ({"proc/cpuinfo": POWER.format("pSeries", "CHRP IBM,9009-22A")}, "powervm"),
        ({"proc/cpuinfo": POWER.format("pSeries", "CHRP IBM pSeries (emulated by qemu)")}, "qemu"),
        ({"proc/cpuinfo": ARM, "proc/sysinfo": "Manufacturer: IBM\nLPAR Number: 10"}, "lpar"),
        ({"proc/cpuinfo": ARM, "proc/sysinfo": "VM00 Control Program: z/VM    7.2.0"}, "z/vm"),
        ({"proc/cpuinfo": ARM, "proc/sysinfo": "VM00 Control Program: KVM/Linux"}, "kvm"),
        ({"proc/cpuinfo": X86.format(""), ".dockerenv": ""}, "docker"),
        ({"proc/cpuinfo": X86.format(""), "run/.containerenv": ""}, "podman"),
        ({"proc/cpuinfo": ARM, "run/.containerenv": ""}, "podman"),
        ({"proc/cpuinfo": X86.format(" hypervisor"), "run/systemd/container": "lxc"}, "lxc on virtual machine"),
        ({"proc/cpuinfo": X86.format(""), "proc/1/cgroup": "4:memory:/kubepods/burstable/pod1"}, "kubernetes"),
    ],
)
def test_hypervisor_and_container_are_named(host_tree: Tree, files: dict[str, str | None], wanted: str) -> None:
    assert find_virtualisation(host_tree(files=files)) == wanted


def test_running_tuners_and_files_that_name_a_knob_are_other_managers(host_tree: Tree) -> None:
    files = {
        "proc/77/comm": "tuned",
        "etc/tuned/active_profile": "throughput-performance",
        "etc/tmpfiles.d/thp.conf": "w /sys/kernel/mm/transparent_hugepage/enabled - - - - never",
        "etc/tmpfiles.d/commented.conf": "# w /sys/kernel/mm/transparent_hugepage/enabled - - - - never",
        "etc/sysctl.d/90-huge.conf": "vm.nr_hugepages = 12",
        "etc/systemd/system/disable-thp.service": "ExecStart=tee /sys/kernel/mm/transparent_hugepage/enabled",
        "etc/rc.local": "exit 0",
    }
    root = host_tree(files=files)
    assert find_managers(root, process_names(root)) == (
        "TuneD (profile throughput-performance)",
        "/etc/tmpfiles.d/thp.conf",
        "/etc/systemd/system/disable-thp.service",
        "/etc/sysctl.d/90-huge.conf",
    )


def test_a_tuner_that_is_installed_and_not_running_is_none(host_tree: Tree) -> None:
    root = host_tree(files={"etc/tuned/active_profile": "throughput-performance"})
    assert find_managers(root, process_names(root)) == ()


def test_programs_that_read_smaps_are_found_by_their_name_as_the_kernel_cuts_it(host_tree: Tree) -> None:
    files = {
        "proc/5/comm": "process-exporte",
        "proc/6/comm": "apps.plugin",
        "proc/7/comm": "nginx",
        "proc/self/comm": "smem",  # no process of its own
        "sys/kernel/mm/ksm/run": "1",
    }
    root = host_tree(files=files)
    readers = find_splitting_readers(root, process_names(root))
    assert [reader.split(",")[0].split(" (")[0] for reader in readers] == ["KSM", "netdata", "process-exporter"]


def test_ksm_that_is_switched_off_splits_nothing(host_tree: Tree) -> None:
    assert find_splitting_readers(host_tree(files={"sys/kernel/mm/ksm/run": "0"}), ()) == ()


def test_processes_that_end_while_they_are_listed_are_left_out(host_tree: Tree) -> None:
    root = host_tree(files={"proc/9/status": "gone: has no comm", "proc/10/comm": "sshd"})
    assert process_names(root) == frozenset({"sshd"})
