"""The processes of a host as their status files tell them, and who holds files open of which reading splits big pages.

Source: proc_pid_status(5), proc_pid_stat(5), proc_pid_cgroup(5). None of these splits anything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.environment_probe import read_text
from agents.numbers import whole_number
from agents.survey.figures import OpenReader
from agents.sysroot import SysRoot

_FORKED_WITHOUT_EXEC = 0x40  # PF_FORKNOEXEC, a flag of the process: include/linux/sched.h
_FLAGS_AT = 6  # in stat, after the name
_READERS_FILES = ("smaps", "smaps_rollup", "numa_maps", "pagemap")
_READERS_FILE = re.compile(
    rf"/proc/(?:self|\d+)/(?:task/\d+/)?(?:{'|'.join(_READERS_FILES)})|/proc/kpage(?:flags|count)"
)
_PID = re.compile(r"[1-9][0-9]{0,6}")
_FLAGS = re.compile(r"[0-9]{1,10}")
_SECONDS = re.compile(r"[0-9]{1,12}(\.[0-9]{1,6})?(?=\s|$)")
_FORKS = re.compile(r"(?m)^processes ([0-9]{1,18})$")
_MOST_KIB = 2**43  # what 53 bits hold in bytes, and more than any host has
_DESCRIPTORS_AT_MOST = 200_000  # looked at, on the whole host


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """What /proc/PID/status and its neighbours say of a process, in bytes."""

    pid: int
    parent: int
    command: str
    anon_bytes: int
    swap_bytes: int
    page_table_bytes: int
    thp_allowed: bool  # False: by prctl(PR_SET_THP_DISABLE)


def list_processes(root: SysRoot) -> list[ProcessStatus]:
    """Return every process with memory of its own, kernel threads left out, the largest first."""
    found = (_status(root, name) for name in root.names("proc") if _PID.fullmatch(name))
    return sorted((one for one in found if one is not None), key=lambda one: -(one.anon_bytes + one.swap_bytes))


def _status(root: SysRoot, pid: str) -> ProcessStatus | None:
    try:
        lines = root.read(f"proc/{pid}/status").split(b"\n")  # a name may hold whatever else ends a line elsewhere
    except OSError:
        return None
    fields = {name: value.split() for name, _, value in (line.partition(b":") for line in reversed(lines))}
    if b"VmSize" not in fields:  # a kernel thread, a zombie, or gone
        return None
    return ProcessStatus(
        pid=int(pid),
        parent=_number(fields, b"PPid"),
        command=b" ".join(fields.get(b"Name", [])).decode(errors="replace"),
        anon_bytes=_number(fields, b"RssAnon") * 1024,
        swap_bytes=_number(fields, b"VmSwap") * 1024,
        page_table_bytes=_number(fields, b"VmPTE") * 1024,
        thp_allowed=fields.get(b"THP_enabled") != [b"0"],
    )


def _number(fields: Mapping[bytes, Sequence[bytes]], name: bytes) -> int:
    """Return a number of kB, or none; 0 where there is none that could be true."""
    try:
        number = whole_number(fields[name][0])
    except (KeyError, IndexError, ValueError):
        return 0
    return number if number < _MOST_KIB else 0


def forked_children(root: SysRoot, processes: Sequence[ProcessStatus]) -> dict[int, int]:
    """Return for each process how many living children go on in its program: each shares its pages until it writes."""
    found: dict[int, int] = {}
    for one in processes:
        fields = read_text(root, f"proc/{one.pid}/stat").rpartition(")")[2].split()
        flags = fields[_FLAGS_AT : _FLAGS_AT + 1]
        if flags and _FLAGS.fullmatch(flags[0]) and int(flags[0]) & _FORKED_WITHOUT_EXEC:
            found[one.parent] = found.get(one.parent, 0) + 1
    return found


def cgroup_of(root: SysRoot, pid: int, version: int | None) -> str:
    """Return the memory cgroup of a process, '' where that is not known."""
    for line in read_text(root, f"proc/{pid}/cgroup").splitlines():
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        if controllers == "" if version == 2 else "memory" in controllers.split(","):
            return path
    return ""


def forks_per_second(root: SysRoot) -> float | None:
    """Return how many processes and threads the host started a second since its boot; None where that is unknown."""
    seconds = _SECONDS.match(read_text(root, "proc/uptime"))
    forks = _FORKS.search(read_text(root, "proc/stat"))
    if seconds is None or forks is None or not float(seconds[0]):
        return None
    return int(forks[1]) / float(seconds[0])


def open_readers(root: SysRoot) -> tuple[OpenReader, ...]:
    """Return who else holds such a file open now; only of this machine, and as far as this user may see."""
    if not root.real:
        return ()
    found = {one for one in _open_files() if one.pid != os.getpid()}
    return tuple(sorted(found, key=lambda one: (one.pid, one.path)))


def _open_files() -> Iterator[OpenReader]:
    left = _DESCRIPTORS_AT_MOST
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with os.scandir(f"/proc/{pid}/fd") as descriptors:
                for one in descriptors:
                    path = str(Path(one.path).readlink())
                    left -= 1
                    if _READERS_FILE.fullmatch(path):
                        yield OpenReader(pid=int(pid), command=_name_of(pid), path=path)
                    if not left:
                        return
        except OSError:
            continue


def _name_of(pid: str) -> str:
    return Path(f"/proc/{pid}/comm").read_bytes().decode(errors="replace").strip()
