"""Who else is on the host: the hypervisor or container around it, programs that write knobs or split big pages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping

from agents.sysroot import SysRoot

_COMM_LENGTH = 15  # the kernel cuts a process's name to this

_MANAGERS: Mapping[str, str] = {
    "tuned": "TuneD",
    "ktuned": "ktune",
    "ksmtuned": "ksmtuned",
    "numad": "numad",
    "sapconf": "sapconf",
    "saptune": "saptune",
}
# Folders whose files are run or applied by something else than us, and the words that give a knob away.
_CONFIGURED_IN = (
    "etc/tmpfiles.d",
    "run/tmpfiles.d",
    "usr/lib/tmpfiles.d",
    "etc/systemd/system",
    "run/systemd/system",
    "usr/lib/systemd/system",
    "etc/sysfs.d",
    "etc/sysctl.d",
    "usr/lib/sysctl.d",
    "etc/init.d",
    "etc/cron.d",
)
_CONFIGURED_BY = ("etc/rc.local", "etc/rc.d/rc.local", "etc/sysfs.conf", "etc/sysctl.conf", "etc/crontab")
_KNOB_WORDS = (b"transparent_hugepage", b"nr_hugepages")
_LARGEST_FILE = 1 << 20

# Programs known to look through processes' page tables (smaps, smaps_rollup, numa_maps, pagemap, mincore), by process
# name, with the settings under which they do. Not complete, and it can't be: what is found is reported, no more.
_SPLITTERS: Mapping[str, str] = {
    "apps.plugin": "netdata, where --pss is on (the default of late 2025)",
    "atop": "atop, with -R or PSS in the display",
    "atopsar": "atop, with -R or PSS in the display",
    "cadvisor": "cAdvisor, where referenced_memory metrics are enabled",
    "criu": "CRIU",
    "glances": "Glances, with extended process statistics",
    "htop": "htop, with a PSS column",
    "numad": "numad",
    "numastat": "numastat -p",
    "page-types": "page-types",
    "pmap": "pmap -x",
    "prmon": "prmon",
    "process-exporter": "process-exporter, unless -gather-smaps=false",
    "procrank": "procrank",
    "ps_mem": "ps_mem",
    "smem": "smem",
    "smemstat": "smemstat",
    "vmtouch": "vmtouch",
}

_CONTAINER_MARKS = (
    ("kubepods", "kubernetes"),
    ("docker", "docker"),
    ("libpod", "podman"),
    ("lxc", "lxc"),
    ("containerd", "containerd"),
)
_HYPERVISORS = (
    # (in the DMI vendor or product, name)
    ("KVM", "kvm"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VirtualBox", "virtualbox"),
    ("Xen", "xen"),
    ("Amazon EC2", "amazon ec2"),
    ("Google", "google compute engine"),
    ("Microsoft", "hyper-v"),
    ("OpenStack", "openstack"),
    ("Parallels", "parallels"),
    ("Alibaba Cloud", "alibaba cloud"),
    ("Apple Virtualization", "apple virtualization"),
)
UNKNOWN = "unknown"


def find_virtualisation(root: SysRoot) -> str:
    """Return 'docker on kvm', 'kvm', 'docker', ...; '' for bare metal; 'unknown' where nothing tells.

    What tells: the CPU's flags on x86, else the firmware's tables, a mainframe's sysinfo, POWER's platform, or the
    device tree. Virtual machines of arm64 that boot by device tree have no DMI.
    """
    container, below = _container(root), _hypervisor(root)
    return " on ".join(filter(None, (container, "" if container and below == UNKNOWN else below)))


def _container(root: SysRoot) -> str:
    if named := read_text(root, "run/systemd/container"):
        return named
    if root.exists(".dockerenv"):
        return "docker"
    if root.exists("run/.containerenv"):
        return "podman"
    cgroups = read_text(root, "proc/1/cgroup")
    return next((name for mark, name in _CONTAINER_MARKS if mark in cgroups), "")


def _hypervisor(root: SysRoot) -> str:
    if kind := read_text(root, "sys/hypervisor/type"):
        return kind
    dmi = " ".join(read_text(root, f"sys/class/dmi/id/{file}") for file in ("sys_vendor", "product_name")).strip()
    named = next((name for mark, name in _HYPERVISORS if mark in dmi), "")
    cpu = read_fields(root, "proc/cpuinfo")
    if "flags" in cpu:
        # x86: every hypervisor sets the flag, and the metal hosts of a cloud carry its name without being virtual
        return (named or "virtual machine") if "hypervisor" in cpu["flags"].split() else ""
    if machine := read_fields(root, "proc/sysinfo"):
        program = machine.get("VM00 Control Program", "")
        return "kvm" if program.startswith("KVM") else "z/vm" if program else "lpar"
    if dmi:
        return "" if dmi.endswith(".metal") else named
    tree = "sys/firmware/devicetree/base"
    if over := read_text(root, f"{tree}/hypervisor/compatible"):
        return over.split("\0")[0].removeprefix("linux,").partition(",")[0]
    if platform := cpu.get("platform"):
        emulated = "qemu" in cpu.get("machine", "")
        return "" if platform == "PowerNV" else "qemu" if emulated else "powervm"
    board = read_text(root, f"{tree}/compatible")
    if "linux,dummy-virt" in board or "qemu" in board:
        return "virtual machine"
    return "" if board else UNKNOWN


def read_fields(root: SysRoot, path: str) -> dict[str, str]:
    """Return 'name : value' lines, the first of each name."""
    found: dict[str, str] = {}
    for line in read_text(root, path).splitlines():
        name, mark, value = line.partition(":")
        if mark:
            found.setdefault(name.strip(), value.strip())
    return found


def process_names(root: SysRoot) -> frozenset[str]:
    """Return the names of all processes, as far as the kernel keeps them (15 characters)."""
    pids = (name for name in root.names("proc") if name.isdigit())
    return frozenset(filter(None, (read_text(root, f"proc/{pid}/comm") for pid in pids)))


def find_managers(root: SysRoot, processes: Iterable[str]) -> tuple[str, ...]:
    """Return what may write the same knobs: running tuners by name, and files that name a knob."""
    running = set(processes)
    found = [name for comm, name in _MANAGERS.items() if comm in running]
    if (profile := read_text(root, "etc/tuned/active_profile")) and "TuneD" in found:
        found[found.index("TuneD")] = f"TuneD (profile {profile})"
    found += [f"/{path}" for path in _configuration(root) if _names_a_knob(root, path)]
    return tuple(found)


def find_splitting_readers(root: SysRoot, processes: Iterable[str]) -> tuple[str, ...]:
    """Return the running programs known to read what splits 1 GB pages, and KSM where it runs."""
    running = set(processes)
    found = [text for name, text in _SPLITTERS.items() if name[:_COMM_LENGTH] in running]
    if read_text(root, "sys/kernel/mm/ksm/run") == "1":
        found.append("KSM (/sys/kernel/mm/ksm/run is 1)")
    return tuple(sorted(set(found)))


def _configuration(root: SysRoot) -> Iterator[str]:
    for folder in _CONFIGURED_IN:
        with contextlib.suppress(PermissionError):  # hardened hosts show some of these to root alone
            yield from (f"{folder}/{name}" for name in root.names(folder))
    yield from _CONFIGURED_BY


def _names_a_knob(root: SysRoot, path: str) -> bool:
    try:
        data = root.read(path)[:_LARGEST_FILE]
    except OSError:
        return False
    lines = (line for line in data.splitlines() if not line.lstrip().startswith((b"#", b";")))
    return any(word in line for line in lines for word in _KNOB_WORDS)


def read_text(root: SysRoot, path: str) -> str:
    """Return a file's text without the blanks around it; '' where it can't be read."""
    try:
        return root.read(path).decode(errors="replace").strip()
    except OSError:
        return ""
