"""A cgroup's memory files, version 1, version 2, or both at once (hybrid). systemd's usual mount points are assumed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agents.catalogue.table import CGROUP_STAT_KEYS
from agents.collectors.notes import Notes
from agents.collectors.parsers import KeyedTable, Pressure
from agents.collectors.sources import NumberFiles, ParsedFile, Source
from agents.sysroot import SysRoot

MOUNT = "sys/fs/cgroup"
UNIFIED = f"{MOUNT}/unified"
_HIERARCHIES = ("unified", "memory", "perf_event", "cpu", "cpu,cpuacct", "cpuacct", "systemd", "pids")

# total_*: with the cgroups below it, as version 2 counts
_STAT_V1 = {
    "total_rss": "cgroup_anon_bytes",
    "total_rss_huge": "cgroup_anon_thp_bytes",
    "total_cache": "cgroup_file_bytes",
    "total_pgfault": "cgroup_pgfault",
    "total_pgmajfault": "cgroup_pgmajfault",
}
_OOM = {"oom_kill": "cgroup_oom_kills"}
_PRESSURE = ("cgroup_psi_memory_some_seconds", "cgroup_psi_memory_full_seconds")
METRICS = ("cgroup_memory_bytes", "cgroup_memory_peak_bytes", *CGROUP_STAT_KEYS.values(), *_OOM.values(), *_PRESSURE)


@dataclass(frozen=True, slots=True, kw_only=True)
class CgroupPlaces:
    """Where a cgroup's directories are, relative to the root; None where that hierarchy does not have it."""

    name: str
    memory: str | None
    memory_version: int | None
    unified: str | None
    perf: str | None


def unified_mount(root: SysRoot) -> str | None:
    """Return where the version 2 hierarchy is mounted."""
    for mount in (MOUNT, UNIFIED):
        if root.exists(f"{mount}/cgroup.controllers"):
            return mount
    return None


def cgroup_version(root: SysRoot) -> int | None:
    """Return the version whose memory controller is in use; None where there is none, or it was left out at boot."""
    mount = unified_mount(root)
    if mount != MOUNT and root.exists(f"{MOUNT}/memory"):
        return 1
    if mount is None:
        return None
    try:
        return 2 if b"memory" in root.read(f"{mount}/cgroup.controllers").split() else None
    except OSError:
        return None


def find_cgroup(root: SysRoot, name: str) -> CgroupPlaces:
    """Find a cgroup by its path below a hierarchy ('/system.slice/web.service') or by its whole path."""
    path = name.strip("/")
    if path.startswith(f"{MOUNT}/"):
        path = path.removeprefix(f"{MOUNT}/")
        first, _, rest = path.partition("/")
        path = rest if first in _HIERARCHIES else path
    mount = unified_mount(root)
    unified = f"{mount}/{path}" if mount is not None and root.exists(f"{mount}/{path}/cgroup.procs") else None
    old = f"{MOUNT}/memory/{path}"
    old_perf = f"{MOUNT}/perf_event/{path}"
    memory, version = None, None
    if unified is not None and root.exists(f"{unified}/memory.current"):
        memory, version = unified, 2
    elif root.exists(f"{old}/memory.usage_in_bytes"):
        memory, version = old, 1
    return CgroupPlaces(
        name=path,
        memory=memory,
        memory_version=version,
        unified=unified,
        perf=old_perf if root.exists(f"{old_perf}/cgroup.procs") else unified,
    )


def cgroup_sources(root: SysRoot, places: CgroupPlaces, notes: Notes) -> list[Source]:
    """Open the cgroup's files; what its version does not count is noted with the reason."""
    sources: list[Source] = []
    memory = places.memory
    if memory is None:
        notes.missing(METRICS, f"no cgroup {places.name!r} with a memory controller below /{MOUNT}")
    elif places.memory_version == 2:
        numbers = {"cgroup_memory_bytes": "memory.current", "cgroup_memory_peak_bytes": "memory.peak"}
        sources += _memory(root, memory, numbers, {"memory.stat": CGROUP_STAT_KEYS, "memory.events": _OOM}, notes)
    else:
        notes.missing(CGROUP_STAT_KEYS.values(), "cgroup version 1 does not count it")
        numbers = {"cgroup_memory_bytes": "usage_in_bytes", "cgroup_memory_peak_bytes": "max_usage_in_bytes"}
        numbers = {metric: f"memory.{file}" for metric, file in numbers.items()}
        sources += _memory(root, memory, numbers, {"memory.stat": _STAT_V1, "memory.oom_control": _OOM}, notes)
    if places.unified is not None:
        path = f"{places.unified}/memory.pressure"
        sources.append(ParsedFile(root, path, Pressure("cgroup_psi_memory"), _PRESSURE, notes))
    elif memory is not None:
        notes.missing(_PRESSURE, "cgroup version 1 does not measure pressure")
    return sources


def _memory(
    root: SysRoot,
    folder: str,
    numbers: Mapping[str, str],
    tables: Mapping[str, Mapping[str, str]],
    notes: Notes,
) -> list[Source]:
    parsed = [
        ParsedFile(root, f"{folder}/{file}", KeyedTable(keys), tuple(keys.values()), notes)
        for file, keys in tables.items()
    ]
    return [NumberFiles(root, {metric: f"{folder}/{file}" for metric, file in numbers.items()}, notes), *parsed]
