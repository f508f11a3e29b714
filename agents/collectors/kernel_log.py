"""The kernel's own cries for help: its log from now on, and its taint flags.

Record format of /dev/kmsg: Documentation/ABI/testing/dev-kmsg. Taint flags: Documentation/admin-guide/tainted-kernels.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator

from agents.collectors.notes import why
from agents.messages import HostEventKind
from agents.sysroot import Reader, SysRoot

_KMSG = "dev/kmsg"
_RECORD_BYTES = 8192  # more than the longest record
_AT_MOST = 2000  # records looked at in one call; the rest wait for the next
_SHOWN = 300  # characters of a message
_MOST_DIGITS = 10  # of a priority: it is a number of 32 bits
_FACILITY_SHIFT = 3  # a priority is 8 times the facility, and the level

# Every form begins the line, as the kernel's printk prints it: what a process is called stands in the kernel's lines
# too, and a driver or an audit record may quote. The corpus with the source of each form: tests/cases/kernel_log.
# Lines that begin with the name of a process, which may be anything of 15 characters.
_OF_A_PROCESS = re.compile(
    r"(traps: )?.{1,15}(\[\d+\]:? (segfault|general protection|trap |unhandled |bad frame|vsyscall)"
    r"| invoked oom-killer: | \(\d+\): drop_caches: |: page allocation (failure|stalls))"
)
_BAD_PAGE = re.compile(
    r"BUG: (Bad page (state|map|cache)\b|Bad rss-counter |non-zero pgtables_bytes )"
    r"|\S+\.[ch]:\d+: bad (pgd|p4d|pud|pmd|pte) "
    r"|\w+: (Bad|Unused) swap (file|offset) entry "
    # Data that somebody had: not a clean or a free page that was taken out of use in time.
    r"|Memory failure: 0x[0-9a-f]+: "
    r"(Killing |Sending SIGBUS |recovery action for (dirty .*|.*: (Failed|Ignored|Delayed)))"
)
# A checker that finds races, a checker that ran out of room, and a packet that a rule of the firewall logs.
_NO_BUG = r"(?!KCSAN: |MAX_[A-Z_]+ too low|arch topology borken|.* IN=\S* OUT=)"
_OOPS = re.compile(
    r"((NMI )?watchdog: )?BUG: "
    + _NO_BUG
    # The head of an oops, 'what: error code [#1] SMP'; a crash of a process has no such number.
    + r"|(Oops\b|Internal error: |Kernel BUG).*\[#\d+\]"
    r"|[A-Za-z][^:;\[\]]*: [0-9a-f]{1,16} (ilc:\d+ )?\[#\d+\]( ?[A-Z]|$)"
    r"|(CPU \d+ )?Unable to handle kernel "
    r"|[kK]ernel BUG at \S+:\d+!"
    r"|kernel tried to (execute|access) |[kK]ernel attempted to \w+ user page|unable to execute userspace code"
    r"|Fixing recursive fault |Insufficient stack space to handle exception"
    r"|(traps: )?PANIC: double fault|Bad mode in |SError Interrupt on CPU|Unhandled 64-bit el1h "
    r"|(---\[ end )?Kernel panic - not syncing|sysrq: Trigger a crash"
    r"|((NMI )?watchdog: (CPU ?\d+:? )?)?((Watchdog |self-)?detected )?[hH]ard LOCKUP"
    r"|(rcu: )?INFO: \w+ (self-detected stall on |detected (expedited )?stalls on )"
    r"|(rcu: )?\w+ kthread (starved for|timer wakeup didn't happen for) "
    r"|KASAN: (null-ptr-deref|maybe wild|probably user)"
    r"|list_(add|del) (corruption|double add)"
    r"|BUG [^\s:]+( \([^)]*\))?: "  # a slab
    r"|slab error in |Slab corruption|usercopy: [kK]ernel memory (exposure|overwrite) attempt"
    # Hardware that could not correct itself.
    r"|(mce: )?\[Hardware Error\]: (CPU \d+: Machine Check Exception: |Machine check: |System Fatal|Uncorrected)"
    r"|MCE: (Killing |CPU\d+: machine check .*\[Not recovered\])|(Severe|Fatal) Machine check interrupt \[Not recovered"
    r"|mce: (Uncorrected hardware memory error|Memory error not recovered)"
    r"|EDAC \w+: (\d+ )?UE\b"
    r"|\{\d+\}\[Hardware Error\]: event severity: (recoverable|fatal)"
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
# A machine check, a bad page, an oops, a warning, a soft lockup; the others say what was loaded into the kernel.
SICK_TAINTS = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 9 | 1 << 14


def classify(message: str) -> HostEventKind | None:
    """Tell what a line of the kernel's log means for an experiment; None for nothing."""
    if _OF_A_PROCESS.match(message):
        return None
    if _BAD_PAGE.match(message):
        return HostEventKind.BAD_PAGE
    return HostEventKind.KERNEL_OOPS if _OOPS.match(message) else None


def kernel_wrote(record: bytes) -> bool:
    """Tell whether a record is the kernel's own: its facility is 0, which nobody else can write with."""
    priority = record.partition(b",")[0]
    return not priority.isdigit() or (len(priority) <= _MOST_DIGITS and int(priority) >> _FACILITY_SHIFT == 0)


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
        for message in self.messages():
            if message is None:
                found.append((HostEventKind.SOURCE_LOST, "kernel log: records were overwritten before they were read"))
            elif (kind := classify(message)) is not None:
                found.append((kind, message))
        return found

    def messages(self) -> Iterator[str | None]:
        """Return the kernel's own messages since the last call, oldest first; None where records were lost."""
        for record in self._records() if self._fd >= 0 else self._lines():
            if record is None:
                yield None
            elif kernel_wrote(record):
                yield message_of(record)

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
