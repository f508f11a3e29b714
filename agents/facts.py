"""The map of a host: what it is, which knobs it has, what can be counted. Reads only."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping

from agents.collectors.cgroup import cgroup_version
from agents.collectors.notes import why
from agents.collectors.parsers import Pressure
from agents.environment_probe import (
    find_managers,
    find_splitting_readers,
    find_virtualisation,
    process_names,
    read_fields,
    read_text,
)
from agents.errors import KnobError
from agents.knobs import Knob, find_knobs, read_knob
from agents.messages import HostFacts, HugetlbPool, ThpSize
from agents.numbers import whole_number
from agents.page_sizes import HUGETLB, base_page_bytes, pmd_kib, sizes_in, thp_sizes, thp_switch
from agents.perf import probe_events
from agents.perf.cpus import parse_numbers
from agents.sysroot import SysRoot
from agents.traced_calls import Traced
from agents.tracing.functions import find_probes

_LONGEST_NAME = 256  # characters: of a name that any kernel gives, and more
# What names the CPU in /proc/cpuinfo: x86, LoongArch, MIPS, arm boards, ppc64, RISC-V. s390 and arm64 have numbers.
_CPU_NAMES = ("model name", "Model Name", "cpu model", "Model", "cpu", "uarch")


def survey(root: SysRoot, host: str | None = None, labels: Mapping[str, str] | None = None) -> HostFacts:
    """Look the host over. What can't be found out is None, '' or 0, never a guess; nothing is written.

    `host` is the name to file it under, by default the machine's own.
    """
    knobs = find_knobs(root)
    values = _knob_values(root, knobs)
    writable = tuple(knob.name for knob in knobs if root.writable(knob.path))
    processes = process_names(root)
    meminfo = _meminfo(root)
    available = meminfo.get("MemAvailable", 0)
    if available > meminfo.get("MemTotal", 0):  # some kernels lose count of their page cache
        available = 0
    pressure_missing = _pressure_missing(root)
    untraceable = find_probes(root, (Traced.SPLITS,))[1]
    return HostFacts(
        host=host or _word(root, "proc/sys/kernel/hostname"),
        taken_at=root.clock.now(),
        boot_id=_word(root, "proc/sys/kernel/random/boot_id"),
        kernel=_word(root, "proc/sys/kernel/osrelease"),
        architecture=_word(root, "proc/sys/kernel/arch") or (os.uname().machine if root.real else ""),
        cpu_model=_cpu_model(root)[:_LONGEST_NAME],
        cpus=_cpus(root),
        numa_nodes=max(1, sum(1 for name in root.names("sys/devices/system/node") if re.fullmatch(r"node\d+", name))),
        numa_balancing=_switch(root, "proc/sys/kernel/numa_balancing"),
        memory_total_bytes=meminfo.get("MemTotal", 0),
        memory_available_bytes=available,
        swap_total_bytes=meminfo.get("SwapTotal", 0),
        base_page_bytes=base_page_bytes(root),
        uptime_seconds=_uptime_seconds(root),
        thp_sizes=tuple(_thp_size(root, size, values, writable) for size in thp_sizes(root)),
        thp_top_level=values.get("thp/enabled", ""),
        thp_defrag=values.get("thp/defrag", ""),
        hugetlb_pools=tuple(_pool(root, size) for size in sizes_in(root, HUGETLB)),
        knobs=values,
        writable_knobs=writable,
        not_writable_because="" if len(writable) == len(knobs) else _why_not_writable(root),
        perf_events=probe_events(root),
        cgroup_version=cgroup_version(root),
        pressure_available=not pressure_missing,
        pressure_missing_because=pressure_missing,
        splits_traceable=not untraceable,
        splits_not_traceable_because="; ".join(one.text for one in untraceable),
        virtualisation=find_virtualisation(root),
        kernel_taint=_number(root, "proc/sys/kernel/tainted"),
        other_managers=find_managers(root, processes),
        page_splitting_readers=find_splitting_readers(root, processes),
        labels=dict(labels or {}),
        thp_pmd_kib=pmd_kib(root),
        hugetlb_cma=_boot_word(root, "hugetlb_cma"),
        cma_total_bytes=meminfo.get("CmaTotal", 0),
    )


def _word(root: SysRoot, path: str) -> str:
    return read_text(root, path)[:_LONGEST_NAME]


def _boot_word(root: SysRoot, name: str) -> str:
    """Return what the kernel was told at boot under a name, '' where nothing: the last of several holds."""
    said = [word.partition("=")[2] for word in read_text(root, "proc/cmdline").split() if word.startswith(f"{name}=")]
    return said[-1][:_LONGEST_NAME] if said else ""


def _knob_values(root: SysRoot, knobs: tuple[Knob, ...]) -> dict[str, str]:
    values: dict[str, str] = {}
    for knob in knobs:
        try:
            values[knob.name] = read_knob(root, knob)
        except KnobError:  # write-only, or gone since it was listed
            continue
    return values


def _thp_size(root: SysRoot, size_kib: int, knobs: Mapping[str, str], writable: Collection[str]) -> ThpSize:
    switch = thp_switch(root, size_kib)
    enabled = knobs.get(switch, "")
    return ThpSize(
        size_kib=size_kib,
        enabled=enabled,
        effective=knobs.get("thp/enabled", "") if enabled == "inherit" else enabled,
        shmem_enabled=knobs.get(switch.replace("enabled", "shmem_enabled")),
        writable=switch in writable,
    )


def _pool(root: SysRoot, size_kib: int) -> HugetlbPool:
    folder = f"{HUGETLB}/hugepages-{size_kib}kB"
    return HugetlbPool(
        size_kib=size_kib,
        total_pages=_number(root, f"{folder}/nr_hugepages"),
        free_pages=_number(root, f"{folder}/free_hugepages"),
        surplus_pages=_number(root, f"{folder}/surplus_hugepages"),
        writable=root.writable(f"{folder}/nr_hugepages"),
    )


def _why_not_writable(root: SysRoot) -> str:
    read_only = []
    for line in read_text(root, "proc/self/mounts").splitlines():
        words = line.split()
        if len(words) > 3 and words[1] in {"/sys", "/proc", "/proc/sys"} and "ro" in words[3].split(","):
            read_only.append(words[1])
    if read_only:
        return f"{', '.join(read_only)} mounted read-only: a container? run on the host itself"
    if root.real and os.geteuid() != 0:
        return "not root: run as root"
    return "the kernel does not let them be opened for writing"


def _uptime_seconds(root: SysRoot) -> float:
    match = re.match(r"[0-9]{1,12}(\.[0-9]{1,6})?(?=\s|$)", read_text(root, "proc/uptime"))
    return float(match[0]) if match else 0.0


def _cpus(root: SysRoot) -> int:
    try:
        return len(parse_numbers(root.read("sys/devices/system/cpu/online")))
    except (OSError, ValueError):
        return len(re.findall(r"(?m)^processor\b", read_text(root, "proc/cpuinfo")))


def _cpu_model(root: SysRoot) -> str:
    fields = read_fields(root, "proc/cpuinfo")
    for name in _CPU_NAMES:
        if model := fields.get(name):
            return model
    if "CPU part" in fields:  # arm64 gives numbers only
        return f"implementer {fields.get('CPU implementer', '?')} part {fields['CPU part']}"
    if machine := re.search(r"\bmachine = (\w+)", fields.get("processor 0", "")):
        return f"{fields.get('vendor_id', '')} machine {machine[1]}".strip()
    return ""


def _pressure_missing(root: SysRoot) -> str:
    found: dict[str, float] = {}
    try:
        Pressure("psi")(root.read("proc/pressure/memory"), found)
    except (OSError, ValueError) as error:
        return f"/proc/pressure/memory: {why(error)}"
    return "" if found else "/proc/pressure/memory is empty"


def _meminfo(root: SysRoot) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for line in read_text(root, "proc/meminfo").splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[1] == "kB" and (kib := _whole(words[0])) is not None:
            sizes[name] = kib * 1024
    return sizes


def _switch(root: SysRoot, path: str) -> bool | None:
    number = _whole(read_text(root, path))
    return None if number is None else number != 0


def _number(root: SysRoot, path: str) -> int:
    return _whole(read_text(root, path)) or 0


def _whole(text: str) -> int | None:
    try:
        return whole_number(text.encode())
    except ValueError:
        return None
