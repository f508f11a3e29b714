"""A plausible host in a folder: what the tests of everything that reads or writes one are built on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from agents.sysroot import FolderRoot

THP = "sys/kernel/mm/transparent_hugepage"
SMALL_SIZES_KIB = (16, 64, 1024, 2048)
GIGANTIC_KIB = 1048576
BOOT_ID = "6f1c9f0e-52d3-4a6e-8f41-0d2d3c6b7a10"
STATS = (
    "anon_fault_alloc",
    "anon_fault_fallback",
    "anon_fault_fallback_charge",
    "nr_anon",
    "nr_anon_partially_mapped",
    "shmem_alloc",
    "shmem_fallback",
    "shmem_fallback_charge",
    "split",
    "split_deferred",
    "split_failed",
    "swpin",
    "swpin_fallback",
    "swpin_fallback_charge",
    "swpout",
    "swpout_fallback",
    "zswpout",
)
VMSTAT = {
    "nr_free_pages": 5843849,
    "nr_anon_pages": 60289,
    "nr_page_table_pages": 783,
    "nr_anon_transparent_hugepages": 0,
    "nr_free_cma": 0,
    "nr_memmap_pages": 0,
    "nr_memmap_boot_pages": 98304,
    "pgfault": 3025098,
    "pgmajfault": 2229,
    "oom_kill": 0,
    "thp_fault_alloc": 10,
    "thp_fault_fallback": 2,
    "thp_fault_fallback_charge": 0,
    "thp_collapse_alloc": 0,
    "thp_collapse_alloc_failed": 0,
    "thp_split_page": 0,
    "thp_split_page_failed": 0,
    "thp_deferred_split_page": 0,
    "thp_underused_split_page": 0,
    "thp_split_pmd": 0,
    "thp_split_pud": 0,
    "thp_swpout": 0,
    "thp_swpout_fallback": 0,
    "thp_migration_success": 0,
    "thp_migration_fail": 0,
    "thp_migration_split": 0,
    "compact_stall": 0,
    "compact_fail": 0,
    "compact_success": 0,
    "htlb_buddy_alloc_success": 0,
    "htlb_buddy_alloc_fail": 0,
}
MEMINFO = {
    "MemTotal": 24684092,
    "MemFree": 23375396,
    "MemAvailable": 24052620,
    "SwapTotal": 0,
    "SwapFree": 0,
    "AnonPages": 241156,
    "PageTables": 3132,
    "AnonHugePages": 0,
    "ShmemHugePages": 0,
    "FileHugePages": 0,
    "CmaTotal": 0,
    "CmaFree": 0,
    "Hugepagesize": 2048,
    "Hugetlb": 0,
    "DirectMap4k": 30720,
    "DirectMap2M": 2066432,
    "DirectMap1G": 25165824,
}
MEMINFO_COUNTS = {"HugePages_Total": 0, "HugePages_Free": 0, "HugePages_Rsvd": 0, "HugePages_Surp": 0}
SYSCTLS = {
    "vm/compaction_proactiveness": "20",
    "vm/extfrag_threshold": "500",
    "vm/min_free_kbytes": "67584",
    "vm/nr_overcommit_hugepages": "0",
    "vm/overcommit_memory": "0",
    "vm/overcommit_ratio": "50",
    "vm/swappiness": "60",
    "vm/watermark_boost_factor": "15000",
    "vm/zone_reclaim_mode": "0",
    "kernel/numa_balancing": "0",
    "kernel/osrelease": "6.18.44",
    "kernel/hostname": "web-017",
    "kernel/tainted": "0",
    "kernel/random/boot_id": BOOT_ID,
}
KHUGEPAGED = {
    "alloc_sleep_millisecs": "60000",
    "defrag": "1",
    "full_scans": "0",
    "max_ptes_none": "511",
    "max_ptes_shared": "256",
    "max_ptes_swap": "64",
    "pages_collapsed": "0",
    "pages_to_scan": "4096",
    "scan_sleep_millisecs": "10000",
}
CGROUP_V2 = {
    "memory.current": "1076101120",
    "memory.peak": "1080000000",
    "memory.stat": "anon 1073741824\nfile 40960\npagetables 2179072\nanon_thp 0\nfile_thp 0\nshmem_thp 0\n"
    "pgfault 4242\npgmajfault 1\nthp_fault_alloc 0\nthp_collapse_alloc 0",
    "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\noom_group_kill 0",
    "memory.pressure": "some avg10=0.00 avg60=0.00 avg300=0.00 total=110\n"
    "full avg10=0.00 avg60=0.00 avg300=0.00 total=90",
    "cpu.stat": "usage_usec 5000000\nuser_usec 4000000\nsystem_usec 1000000",
}
CGROUP_V1 = {
    "memory.usage_in_bytes": "1076101120",
    "memory.max_usage_in_bytes": "1080000000",
    "memory.stat": "cache 40960\nrss 1073741824\nrss_huge 0\nmapped_file 0\npgfault 4242\npgmajfault 1\n"
    "total_rss 1073741824\ntotal_rss_huge 0",
    "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 0",
}


def _host_files(
    sizes_kib: Sequence[int], hugetlb_kib: Sequence[int], nodes: int, cgroup_version: int | None
) -> Iterator[tuple[str, str]]:
    """Yield (path below the root, text without its last newline) for every file of the host."""
    yield f"{THP}/enabled", "always [madvise] never"
    yield f"{THP}/defrag", "always defer defer+madvise [madvise] never"
    yield f"{THP}/shmem_enabled", "always within_size advise [never] deny force"
    yield f"{THP}/hpage_pmd_size", "2097152"
    yield f"{THP}/shrink_underused", "1"
    yield f"{THP}/use_zero_page", "1"
    yield from ((f"{THP}/khugepaged/{name}", value) for name, value in KHUGEPAGED.items())
    for size in sizes_kib:
        folder = f"{THP}/hugepages-{size}kB"
        yield (
            f"{folder}/enabled",
            "always [inherit] madvise never" if size == 2048 else "always inherit madvise [never]",
        )
        if size < GIGANTIC_KIB:
            yield f"{folder}/shmem_enabled", "always inherit within_size advise [never]"
        yield from ((f"{folder}/stats/{name}", "0") for name in STATS)
    for size in hugetlb_kib:
        folder = f"sys/kernel/mm/hugepages/hugepages-{size}kB"
        for name in ("nr_hugepages", "nr_overcommit_hugepages", "free_hugepages", "resv_hugepages"):
            yield f"{folder}/{name}", "0"
        yield f"{folder}/surplus_hugepages", "0"
        for node in range(nodes):
            for name in ("nr_hugepages", "free_hugepages", "surplus_hugepages"):
                yield f"sys/devices/system/node/node{node}/hugepages/hugepages-{size}kB/{name}", "0"
    for node in range(nodes):
        yield f"sys/devices/system/node/node{node}/cpulist", str(node)
    yield "sys/devices/system/node/online", "0" if nodes == 1 else f"0-{nodes - 1}"
    yield "sys/devices/system/cpu/online", "0-1"
    yield from ((f"proc/sys/{name}", value) for name, value in SYSCTLS.items())
    yield "proc/vmstat", "\n".join(f"{name} {value}" for name, value in VMSTAT.items())
    meminfo = [f"{name}:{value:>16} kB" for name, value in MEMINFO.items()]
    yield "proc/meminfo", "\n".join(meminfo + [f"{name}:{value:>8}" for name, value in MEMINFO_COUNTS.items()])
    orders = "      1      2      4      2      5      4      3      3      4      2    752"
    yield "proc/buddyinfo", "\n".join(f"Node {node}, zone   Normal{orders}" for node in range(nodes))
    yield "proc/pagetypeinfo", _pagetypeinfo(orders)
    idle = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500"
    yield from ((f"proc/pressure/{name}", idle) for name in ("cpu", "io", "memory"))
    yield "proc/uptime", "2130.89 4065.91"
    yield "proc/version", "Linux version 6.18.44 (builder@example) (gcc (GCC) 15.3.0) #1 SMP PREEMPT_DYNAMIC"
    yield "proc/stat", "cpu  100 0 50 9000 1 0 0 0 0 0\ncpu0 50 0 25 4500 1 0 0 0 0 0\ncpu1 50 0 25 4500 0 0 0 0 0 0"
    yield "proc/loadavg", "0.10 0.20 0.30 1/100 4242"
    yield "proc/cmdline", "root=/dev/vda ro console=ttyS0"
    cpu = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu pdpe1gb lm\n"
    yield "proc/cpuinfo", "\n".join(f"processor\t: {number}\n{cpu}" for number in range(2))
    yield "dev/kmsg", "6,1,0,-;Linux version 6.18.44"
    if cgroup_version == 2:
        yield "sys/fs/cgroup/cgroup.controllers", "cpu io memory pids"
        folder = "sys/fs/cgroup/system.slice/web.service"
        yield from ((f"{folder}/{name}", value) for name, value in CGROUP_V2.items())
        yield f"{folder}/cgroup.procs", "4242"
    elif cgroup_version == 1:
        folder = "sys/fs/cgroup/memory/system.slice/web.service"
        yield from ((f"{folder}/{name}", value) for name, value in CGROUP_V1.items())
        yield f"{folder}/cgroup.procs", "4242"


def _pagetypeinfo(orders: str) -> str:
    kinds = ("Unmovable", "Movable", "Reclaimable", "HighAtomic", "Isolate")
    free = [f"Node    0, zone   Normal, type {kind:>12}{orders}" for kind in kinds]
    return "\n".join(
        [
            "Page block order: 9",
            "Pages per block:  512",
            "",
            "Free pages count per migrate type at order       0      1      2      3      4      5      6      7"
            "      8      9     10",
            *free,
            "",
            "Number of blocks type     Unmovable      Movable  Reclaimable   HighAtomic      Isolate",
            "Node 0, zone   Normal          141          844          103            0            0",
        ]
    )


def build_host(
    folder: Path,
    *,
    thp_sizes_kib: Sequence[int] = SMALL_SIZES_KIB,
    gigantic: bool = False,
    hugetlb_kib: Sequence[int] = (2048, GIGANTIC_KIB),
    nodes: int = 1,
    cgroup_version: int | None = 2,
    files: dict[str, str | None] | None = None,
) -> FolderRoot:
    """Write a host's `/sys`, `/proc` and `/dev/kmsg` below a folder, and return it as a root.

    thp_sizes_kib: sizes of transparent huge pages; gigantic: add the 1 GB size; hugetlb_kib: sizes with a hugetlb
    pool; nodes: NUMA nodes; cgroup_version: 2, 1 or None; files: path below the root -> text, added or put in place
    of what the builder makes (None leaves the file out).
    """
    sizes = (*thp_sizes_kib, GIGANTIC_KIB) if gigantic else tuple(thp_sizes_kib)
    made: dict[str, str | None] = dict(_host_files(sizes, hugetlb_kib, nodes, cgroup_version))
    made.update(files or {})
    texts = {folder / path: text for path, text in made.items() if text is not None}
    for parent in {path.parent for path in texts}:
        parent.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        path.write_bytes(f"{text}\n".encode())
    return FolderRoot(folder)
