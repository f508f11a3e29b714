"""The system call perf_event_open(2) through ctypes, and what its errors mean.

Layout of struct perf_event_attr and flags: include/uapi/linux/perf_event.h.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.event_text import TYPE_SOFTWARE

_READ_FORMAT = 0x1 | 0x2 | 0x8  # PERF_FORMAT_TOTAL_TIME_ENABLED | PERF_FORMAT_TOTAL_TIME_RUNNING | PERF_FORMAT_GROUP
_EXCLUDE_USER, _EXCLUDE_KERNEL, _EXCLUDE_HYPERVISOR = 1 << 4, 1 << 5, 1 << 6
_FLAG_PID_CGROUP, _FLAG_FD_CLOEXEC = 1 << 2, 1 << 3
# type, size, config, sample_period, sample_type, read_format, flag bits, wakeup_events, bp_type, config1, config2
_ATTRIBUTE = struct.Struct("=IIQQQQQIIQQ")
# arch/*/include/generated/uapi/asm/unistd*.h
_NUMBERS = {"x86_64": 298, "aarch64": 241, "riscv64": 241, "loongarch64": 241, "ppc64le": 319, "s390x": 331}


@functools.cache
def _syscall() -> Callable[..., int]:
    # cached: one handle of libc for the process
    call: Any = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return call  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfEvent:
    """One event as perf_event_open wants it, and what it is: `name` is the metric, `event` perf's or the maker's name.

    `pmu` is empty for the kernel's generic events; `counts` says where it is not what the metric's meaning says.
    """

    name: str
    event: str = ""
    pmu: str = ""
    counts: str = ""
    kind: int
    config: int
    config1: int = 0
    config2: int = 0
    exclude_user: bool = False
    exclude_kernel: bool = False

    @property
    def flags(self) -> int:
        """The bits that leave code out, as perf sets them for u and k: both leave the hypervisor out."""
        if not (self.exclude_user or self.exclude_kernel):
            return 0
        left_out = _EXCLUDE_USER if self.exclude_user else _EXCLUDE_KERNEL
        return left_out | _EXCLUDE_HYPERVISOR


def open_event(event: PerfEvent, *, cpu: int, cgroup_fd: int = -1, leader: int = -1) -> int:
    """Start counting an event on one CPU, of all tasks or of a cgroup's; return the descriptor.

    `leader` is the descriptor of the event in whose group it is: reading that one reads the whole group. OSError with
    the kernel's errno; ENOSYS where the system call's number is not known for this architecture.
    """
    number = _NUMBERS.get(os.uname().machine)
    if number is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), os.uname().machine)
    packed = _ATTRIBUTE.pack(
        event.kind, _ATTRIBUTE.size, event.config, 0, 0, _READ_FORMAT, event.flags, 0, 0, event.config1, event.config2
    )
    attribute = ctypes.create_string_buffer(packed, len(packed))
    flags = _FLAG_FD_CLOEXEC | (_FLAG_PID_CGROUP if cgroup_fd >= 0 else 0)
    fd = _syscall()(
        ctypes.c_long(number),
        attribute,
        ctypes.c_long(cgroup_fd),  # pid -1: every task
        ctypes.c_long(cpu),
        ctypes.c_long(leader),
        ctypes.c_ulong(flags),
    )
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return int(fd)


_DUMMY = PerfEvent(name="dummy", kind=TYPE_SOFTWARE, config=9)  # PERF_COUNT_SW_DUMMY: every kernel since 3.12


def require_cgroup(cgroup_fd: int, cgroup: Path, *, cpu: int) -> None:
    """OSError where the kernel counts no event whatever for this cgroup: it is not the CPU that lacks them."""
    try:
        os.close(open_event(_DUMMY, cpu=cpu, cgroup_fd=cgroup_fd))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EBADF):
            raise OSError(error.errno, _NO_EVENTS_OF_CGROUP, str(cgroup)) from error
        # any other error is the events' own to tell


def why_not(error: OSError) -> str:
    """Say what an error of perf_event_open means, with the remedy where there is one."""
    name = errno.errorcode.get(error.errno or 0, "error")
    return f"{name}: {_REASONS.get(error.errno or 0, error.strerror or str(error))}"


def unreadable(error: OSError, path: str) -> str:
    """Say why a file that tells of events could not be read: a process short of descriptors is told the remedy."""
    return why_not(error) if error.errno == errno.EMFILE else f"{error.strerror}: {error.filename or path}"


_NO_EVENTS_OF_CGROUP = (
    "the kernel counts no perf events for this cgroup; where no controller was ever enabled below the root, enable "
    "one, such as +memory in the root's cgroup.subtree_control"
)
_NOT_OFFERED = "the CPU or hypervisor offers no such event"
_NOT_PERMITTED = "not permitted; run as root, give CAP_PERFMON, or lower kernel.perf_event_paranoid"
_REASONS = {
    errno.ENOENT: _NOT_OFFERED,
    errno.EOPNOTSUPP: _NOT_OFFERED,
    errno.ENODEV: _NOT_OFFERED,
    errno.EINVAL: "the kernel does not accept the event",
    errno.EACCES: _NOT_PERMITTED,
    errno.EPERM: _NOT_PERMITTED,
    errno.ENOSYS: "no perf events in this kernel, or an architecture whose system call is not known here",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.EBUSY: "another program holds the counters",
}
