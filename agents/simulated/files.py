"""What the kernel of a simulated machine shows, and how its knobs take a write. Shared by all hosts of one kind.

Semantics: Documentation/admin-guide/mm/transhuge.rst, hugetlbpage.rst, sysctl/vm.rst of the Linux kernel.
"""

from __future__ import annotations

import errno
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

THP = "sys/kernel/mm/transparent_hugepage"
HUGETLB = "sys/kernel/mm/hugepages"
NODE = "sys/devices/system/node/node0/hugepages"
PMD_KIB, GIGANTIC_KIB = 2048, 1048576
_PER_SIZE = ("always", "inherit", "madvise", "never")
_SHMEM = ("always", "inherit", "within_size", "advise", "never")
_ORDERS = "      1      2      4      2      5      4      3      3      4      2    752"

STATS = (
    "anon_fault_alloc",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
    "nr_anon",
    "nr_anon_partially_mapped",
    "split",
    "split_deferred",
    "split_failed",
    "swpout",
    "swpout_fallback",
)


def refused(number: int, path: str) -> OSError:
    """Return the error that the kernel would give for a path."""
    return OSError(number, os.strerror(number), f"/{path}")


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobFile:
    """One writable file: `choices` empty for a number; `value` is what a boot leaves in it."""

    value: str
    choices: tuple[str, ...] = ()
    highest: int = 2**63 - 1
    write_only: bool = False
    pool_kib: int = 0  # a hugetlb pool of this page size

    def text(self, value: str) -> bytes:
        """Return what a read shows: choices all, the one that holds in brackets."""
        if not self.choices:
            return f"{value}\n".encode()
        return (" ".join(f"[{word}]" if word == value else word for word in self.choices) + "\n").encode()

    def accept(self, value: bytes, path: str) -> str:
        """Return the value that a write sets; EINVAL where the kernel knows no such value."""
        text = value.decode(errors="replace").strip()
        known = text in self.choices if self.choices else text.isdecimal() and int(text) <= self.highest
        if not known:
            raise refused(errno.EINVAL, path)
        return text if self.choices else str(int(text))


@dataclass(frozen=True)
class MachineFiles:
    """One kind of machine: page sizes, memory, kernel. `found` says what knob files hold after a boot, by path.

    `shows` are files beside the usual ones, or instead of them, such as those of another CPU.
    """

    kernel: str = "6.18.44-simulated"
    memory_kib: int = 256 * 1024 * 1024
    cpus: int = 2
    thp_sizes_kib: tuple[int, ...] = (64, PMD_KIB, GIGANTIC_KIB)
    hugetlb_kib: tuple[int, ...] = (PMD_KIB, GIGANTIC_KIB)
    found: Mapping[str, str] = field(default_factory=dict)
    shows: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def knobs(self) -> Mapping[str, KnobFile]:
        """Every knob file by its path."""
        made = dict(self._knobs())
        for path, value in self.found.items():
            knob = made[path]
            made[path] = KnobFile(value=value, choices=knob.choices, highest=knob.highest, pool_kib=knob.pool_kib)
        return made

    @cached_property
    def same_as(self) -> Mapping[str, str]:
        """Paths that show another path's file: the only node's pools are those of the host."""
        same = {"proc/sys/vm/nr_overcommit_hugepages": f"{HUGETLB}/hugepages-{PMD_KIB}kB/nr_overcommit_hugepages"}
        for size in self.hugetlb_kib:
            for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
                same[f"{NODE}/hugepages-{size}kB/{name}"] = f"{HUGETLB}/hugepages-{size}kB/{name}"
        return same

    def _knobs(self) -> Iterator[tuple[str, KnobFile]]:
        yield f"{THP}/enabled", KnobFile(value="madvise", choices=("always", "madvise", "never"))
        defrag = ("always", "defer", "defer+madvise", "madvise", "never")
        yield f"{THP}/defrag", KnobFile(value="madvise", choices=defrag)
        shmem = ("always", "within_size", "advise", "never", "deny", "force")
        yield f"{THP}/shmem_enabled", KnobFile(value="never", choices=shmem)
        for name in ("shrink_underused", "use_zero_page", "khugepaged/defrag"):
            yield f"{THP}/{name}", KnobFile(value="1", highest=1)
        for size in self.thp_sizes_kib:
            own = "inherit" if size == PMD_KIB else "never"
            yield f"{THP}/hugepages-{size}kB/enabled", KnobFile(value=own, choices=_PER_SIZE)
            if size < GIGANTIC_KIB:
                yield f"{THP}/hugepages-{size}kB/shmem_enabled", KnobFile(value="never", choices=_SHMEM)
        numbers = {
            "max_ptes_none": 511,
            "max_ptes_shared": 256,
            "max_ptes_swap": 64,
            "pages_to_scan": 4096,
            "scan_sleep_millisecs": 10000,
            "alloc_sleep_millisecs": 60000,
        }
        for name, number in numbers.items():
            highest = 511 if name.startswith("max_ptes") else 2**32 - 1
            yield f"{THP}/khugepaged/{name}", KnobFile(value=str(number), highest=highest)
        for size in self.hugetlb_kib:
            folder = f"{HUGETLB}/hugepages-{size}kB"
            yield f"{folder}/nr_hugepages", KnobFile(value="0", pool_kib=size)
            yield f"{folder}/nr_overcommit_hugepages", KnobFile(value="0")
        sysctls = {
            "vm/compaction_proactiveness": ("20", 100),
            "vm/extfrag_threshold": ("500", 1000),
            "vm/min_free_kbytes": ("67584", 2**31 - 1),
            "vm/overcommit_memory": ("0", 2),
            "vm/overcommit_ratio": ("50", 2**31 - 1),
            "vm/swappiness": ("60", 200),
            "vm/watermark_boost_factor": ("15000", 2**31 - 1),
            "vm/zone_reclaim_mode": ("0", 7),
            "kernel/numa_balancing": ("0", 3),
        }
        for name, (value, highest) in sysctls.items():
            yield f"proc/sys/{name}", KnobFile(value=value, highest=highest)
        yield "proc/sys/vm/compact_memory", KnobFile(value="", highest=1, write_only=True)

    @cached_property
    def texts(self) -> Mapping[str, bytes]:
        """What never changes: path -> content."""
        cpu = "vendor_id\t: Simulated\nmodel name\t: Simulated CPU\nflags\t\t: fpu lm\n"
        texts = {
            f"{THP}/hpage_pmd_size": str(PMD_KIB * 1024),
            "sys/devices/system/cpu/online": "0" if self.cpus == 1 else f"0-{self.cpus - 1}",
            "sys/devices/system/node/online": "0",
            "sys/devices/system/node/node0/cpulist": f"0-{self.cpus - 1}",
            "proc/sys/kernel/osrelease": self.kernel,
            "proc/sys/kernel/arch": "x86_64",
            "proc/version": f"Linux version {self.kernel} (simulated by fleetexp)",
            "proc/cpuinfo": "\n".join(f"processor\t: {number}\n{cpu}" for number in range(self.cpus)),
            "proc/buddyinfo": f"Node 0, zone   Normal{_ORDERS}",
            "proc/pagetypeinfo": _PAGETYPES,
            **{f"proc/pressure/{name}": _IDLE for name in ("cpu", "io", "memory")},
            "sys/fs/cgroup/cgroup.controllers": "cpu io memory pids",
        }
        for size in self.hugetlb_kib:
            texts[f"{HUGETLB}/hugepages-{size}kB/resv_hugepages"] = "0"
            texts[f"{HUGETLB}/hugepages-{size}kB/surplus_hugepages"] = "0"
        return {path: f"{text}\n".encode() for path, text in {**texts, **self.shows}.items()}

    @cached_property
    def moving(self) -> frozenset[str]:
        """Files that the host itself fills: counters, levels, its log."""
        paths = {"proc/vmstat", "proc/meminfo", "proc/uptime", "dev/kmsg"}
        paths |= {f"proc/sys/kernel/{name}" for name in ("hostname", "tainted", "random/boot_id")}
        paths |= set(self.stats)
        paths |= {f"{HUGETLB}/hugepages-{size}kB/free_hugepages" for size in self.hugetlb_kib}
        return frozenset(paths)

    @cached_property
    def stats(self) -> Mapping[str, tuple[int, str]]:
        """Path of each per-size counter -> (size, name)."""
        folder = f"{THP}/hugepages-{{size}}kB/stats/{{stat}}"
        return {folder.format(size=size, stat=stat): (size, stat) for size in self.thp_sizes_kib for stat in STATS}

    @cached_property
    def folders(self) -> Mapping[str, tuple[str, ...]]:
        """Folder -> sorted names in it."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for path in (*self.knobs, *self.texts, *self.moving, *self.same_as):
            parts = path.split("/")
            for depth in range(len(parts)):
                found["/".join(parts[:depth])].add(parts[depth])
        return {folder: tuple(sorted(names)) for folder, names in found.items()}


_IDLE = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500"
_KINDS = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
_PAGETYPES = "\n".join(
    [
        "Page block order: 9",
        "Pages per block:  512",
        "",
        "Free pages count per migrate type at order       0      1      2      3      4      5      6      7"
        "      8      9     10",
        *(f"Node    0, zone   Normal, type {kind:>12}{_ORDERS}" for kind in _KINDS),
        "",
        "Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate",
        "Node 0, zone   Normal          141          844          103            0            0",
    ]
)
