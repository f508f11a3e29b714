"""The kernel's own cries for help: its log from now on, and its taint flags.

Record format of /dev/kmsg: Documentation/ABI/testing/dev-kmsg. Taint flags: Documentation/admin-guide/tainted-kernels.
"""

from __future__ import annotations

import errno
import os
import re

from agents.collectors.notes import why
from agents.messages import HostEventKind
from agents.sysroot import Reader, SysRoot

_KMSG = "dev/kmsg"
_RECORD_BYTES = 8192  # more than the longest record
_AT_MOST = 2000  # records looked at in one call; the rest wait for the next
_SHOWN = 300  # characters of a message

_BAD_PAGE = re.compile(
    r"Bad page (state|map|cache)|\b[Bb]ad p(g|4|u|m)d\b|Bad rss-counter|non-zero pgtables_bytes|Bad swap (file|offset)"
)
_OOPS = re.compile(
    r"\bBUG: |\bkernel BUG at |\bOops\b[:\s]|Unable to handle kernel |unable to handle (kernel|page fault)"
    r"|general protection fault|Internal error: |Kernel panic|list_(add|del) corruption|stack segment: "
    r"|double fault: |detected stalls? on|self-detected stall on CPU|hard LOCKUP|blocked for more than \d+ seconds"
)

_TAINTS = (
    "proprietary module loaded",
    "module was force loaded",
    "kernel running on an out of specification system",
    "module was force unloaded",
    "processor reported a machine check",
    "bad page referenced or unexpected page flags",
    "taint requested by userspace",
    "kernel died recently (oops or BUG)",
    "ACPI table overridden",
    "kernel issued a warning",
    "staging driver loaded",
    "workaround for a platform firmware bug",
    "externally built module loaded",
    "unsigned module loaded",
    "soft lockup occurred",
    "kernel live patched",
    "auxiliary taint",
    "struct randomisation plugin",
    "in-kernel test ran",
    "userspace used a mutating debug operation in fwctl",
)


def classify(message: str) -> HostEventKind | None:
    """Tell what a line of the kernel's log means for an experiment; None for nothing."""
    if _BAD_PAGE.search(message):
        return HostEventKind.BAD_PAGE
    return HostEventKind.KERNEL_OOPS if _OOPS.search(message) else None


def message_of(record: bytes) -> str:
    """Return the message of a /dev/kmsg record 'priority,sequence,time,flags;message', without its dictionary."""
    head, mark, text = record.partition(b";")
    line = (text if mark else head).partition(b"\n")[0]
    return line.decode("utf-8", "replace")[:_SHOWN]


class KernelLog:
    """New records of the kernel's log that matter. `unavailable` says why there are none to be had."""

    def __init__(self, root: SysRoot) -> None:
        self.unavailable = ""
        self._fd = -1
        self._file: Reader | None = None  # a host that is not this machine: a plain file that grows
        self._seen = 0
        try:
            if root.real:
                self._fd = os.open(f"/{_KMSG}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                os.lseek(self._fd, 0, os.SEEK_END)
            else:
                self._file = root.reader(_KMSG)
                self._seen = len(self._file.read())
        except OSError as error:
            self.unavailable = f"/{_KMSG}: {why(error)}"

    def events(self) -> list[tuple[HostEventKind, str]]:
        """Return what the log says since the last call, oldest first; never waits."""
        found: list[tuple[HostEventKind, str]] = []
        for record in self._records() if self._fd >= 0 else self._lines():
            if record is None:
                found.append((HostEventKind.SOURCE_LOST, "kernel log: records were overwritten before they were read"))
            elif (kind := classify(message := message_of(record))) is not None:
                found.append((kind, message))
        return found

    def _records(self) -> list[bytes | None]:
        records: list[bytes | None] = []
        while len(records) < _AT_MOST:
            try:
                records.append(os.read(self._fd, _RECORD_BYTES))
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.EPIPE:
                    self.unavailable = f"/{_KMSG}: {why(error)}"
                    self.close()
                    break
                records.append(None)
        return records

    def _lines(self) -> list[bytes | None]:
        if self._file is None:
            return []
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        fresh, self._seen = whole[self._seen :], max(self._seen, len(whole))
        return list(fresh.splitlines())

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._file is not None:
            self._file.close()
            self._file = None


def taint_names(flags: int) -> tuple[str, ...]:
    """Return what each set taint flag means."""
    known = [name for bit, name in enumerate(_TAINTS) if flags >> bit & 1]
    unknown = [f"flag {bit}" for bit in range(len(_TAINTS), flags.bit_length()) if flags >> bit & 1]
    return (*known, *unknown)
