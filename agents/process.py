"""A process known beyond its number: pid and start time, so that a recycled pid is never taken for it or killed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agents.json_fields import as_object, as_whole
from agents.sysroot import SysRoot

_PROC = Path("/proc")
_DEAD = frozenset("ZXx")
_STOPPED = frozenset("Tt")
_LARGEST_PID = 2**22  # the kernel's PID_MAX_LIMIT


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessMark:
    """One process of this boot; `started` is its start time in clock ticks since boot, `session` its session id."""

    pid: int
    started: int
    session: int


def mark_record(mark: ProcessMark) -> dict[str, object]:
    """Return a mark as a file of the host's state holds it."""
    return {"pid": mark.pid, "started": mark.started, "session": mark.session}


def parse_mark(value: object) -> ProcessMark:
    """Return the mark that a file holds; ValueError where no process could have it."""
    record = as_object(value, "the process")
    return ProcessMark(
        pid=as_whole(record.get("pid"), "pid", least=1, most=_LARGEST_PID),
        started=as_whole(record.get("started"), "started"),
        session=as_whole(record.get("session"), "session", most=_LARGEST_PID),
    )


def process_named(root: SysRoot, mark: ProcessMark | None) -> ProcessMark | None:
    """Return the process that a file of this root's state names; None where the root is not this machine's own.

    The files of a tree come from elsewhere and may name anybody: that process is neither signalled nor looked at.
    """
    return mark if root.real else None


@dataclass(frozen=True, slots=True)
class _Stat:
    """What /proc/PID/stat says that we need (proc_pid_stat(5): fields 3 to 6 and 22)."""

    state: str
    parent: int
    pgrp: int
    session: int
    started: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    if len(fields) <= 19:
        return None
    try:
        parent, pgrp, session, started = (int(fields[at]) for at in (1, 2, 3, 19))
    except ValueError:
        return None
    return _Stat(fields[0], parent, pgrp, session, started)


def mark_process(pid: int) -> ProcessMark | None:
    """Mark a running process, or return None where there is none by that number."""
    stat = _stat(pid)
    if stat is None or stat.state in _DEAD:
        return None
    return ProcessMark(pid=pid, started=stat.started, session=stat.session)


def is_alive(mark: ProcessMark) -> bool:
    """Whether that very process still runs; a zombie doesn't."""
    stat = _stat(mark.pid)
    return stat is not None and stat.started == mark.started and stat.state not in _DEAD


def is_stopped(mark: ProcessMark) -> bool:
    """Whether that process is held by SIGSTOP or a debugger."""
    stat = _stat(mark.pid)
    return stat is not None and stat.started == mark.started and stat.state in _STOPPED


def send_signal(mark: ProcessMark, number: signal.Signals) -> bool:
    """Signal that very process; False where it is gone or isn't ours to signal."""
    return _signal_if(mark.pid, number, lambda stat: stat.started == mark.started)


def kill_with_group(mark: ProcessMark, *, timeout_seconds: float = 2.0) -> bool:
    """SIGKILL a process, and its process group where it leads one; wait until their memory is given back.

    Members outlive their leader: they are known by group and session. Returns whether all are gone in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        left = _living(mark)
        for pid in left:
            _signal_if(pid, signal.SIGKILL, partial(_belongs, mark, pid))
        if not left:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)


def kill_descendants(ancestor: int) -> None:
    """SIGKILL once every process below one of ours, and their process groups: those can't outrun a signal by forking.

    Only for an ancestor that leads no group of its own among them, and whose descendants are all to die.
    """
    stats, below = _all_stats(), {ancestor}
    while more := {pid for pid, stat in stats.items() if stat.parent in below} - below:
        below |= more
    family = {pid: stats[pid] for pid in below - {ancestor}}
    spared = stats[ancestor].pgrp if ancestor in stats else 0
    for group in {stat.pgrp for stat in family.values()} - {0, spared}:
        with suppress(OSError):
            os.killpg(group, signal.SIGKILL)
    for pid, known in family.items():
        _signal_if(pid, signal.SIGKILL, partial(_same, known))


def _same(known: _Stat, stat: _Stat) -> bool:
    return stat.started == known.started


def _all_stats() -> dict[int, _Stat]:
    stats = ((pid, _stat(pid)) for pid in map(int, filter(str.isdecimal, os.listdir(_PROC))))
    return {pid: stat for pid, stat in stats if stat is not None and stat.state not in _DEAD}


def _belongs(mark: ProcessMark, pid: int, stat: _Stat) -> bool:
    if pid == mark.pid:
        return stat.started == mark.started
    return stat.pgrp == mark.pid and stat.session == mark.session and stat.started >= mark.started


def _living(mark: ProcessMark) -> list[int]:
    leader = _stat(mark.pid)
    if leader is not None and leader.started != mark.started:
        return []  # the number now belongs to somebody else, so its group has died out
    return [pid for pid, stat in _all_stats().items() if pid != os.getpid() and _belongs(mark, pid, stat)]


def _signal_if(pid: int, number: signal.Signals, still: Callable[[_Stat], bool]) -> bool:
    """Hold on to the pid, look again whether it is the one meant, and only then signal it.

    Where it can't be held (a kernel before 5.3, a container's filter, a Python built without it, no descriptor left) it
    is signalled by its number a moment after the look: a workload that is never ended would keep the host changed.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    except (OSError, AttributeError):
        fd = -1
    try:
        stat = _stat(pid)
        if stat is None or stat.state in _DEAD or not still(stat):
            return False
        if fd < 0:
            os.kill(pid, number)
        else:
            signal.pidfd_send_signal(fd, number)
    except OSError:
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True
