"""Programs that each have the kernel split one big page, by one cause, under a name of their own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import time
import traceback
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
_POINTER, _SIZE, _INT = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
LIBC.mmap.restype = LIBC.mremap.restype = _POINTER
LIBC.mmap.argtypes = [_POINTER, _SIZE, _INT, _INT, _INT, ctypes.c_long]
LIBC.munmap.argtypes = LIBC.mlock.argtypes = [_POINTER, _SIZE]
LIBC.mprotect.argtypes = LIBC.madvise.argtypes = [_POINTER, _SIZE, _INT]
LIBC.mremap.argtypes = [_POINTER, _SIZE, _SIZE, _INT, _POINTER]
LIBC.prctl.argtypes = [_INT, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
PAGE = os.sysconf("SC_PAGE_SIZE")
PRIVATE_ANONYMOUS_NORESERVE = 0x4022
DONTNEED, MERGEABLE, HUGEPAGE, PAGEOUT = 4, 12, 14, 21
MBIND = {"x86_64": 237, "aarch64": 235}


def reserve(size: int) -> int:
    """Map room for an aligned page of that size, with nothing in it yet; returns where the page would begin."""
    start = LIBC.mmap(None, 2 * size, 3, PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
    return int((start + size - 1) // size * size)


def fault_in(size: int) -> int:
    """Have one page of that size; returns where it is."""
    at = reserve(size)
    LIBC.madvise(at, size, HUGEPAGE)
    ctypes.memset(at, 1, 1)
    return at


def rename(name: str) -> None:
    LIBC.prctl(15, name.encode(), 0, 0, 0)


def fork(at: int, size: int) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def copy_on_write(at: int, size: int) -> None:
    child = os.fork()
    if child == 0:
        ctypes.memset(at + PAGE, 2, 1)
        os._exit(0)
    os.waitpid(child, 0)


def munmap(at: int, size: int) -> None:
    LIBC.munmap(at + PAGE, PAGE)


def mprotect(at: int, size: int) -> None:
    LIBC.mprotect(at, PAGE, 1)


def mremap(at: int, size: int) -> None:
    LIBC.mremap(at, size // 2, size // 2, 3, reserve(size) + PAGE)


def madvise(at: int, size: int) -> None:
    LIBC.madvise(at, PAGE, DONTNEED)


def mlock(at: int, size: int) -> None:
    LIBC.mlock(at, PAGE)


def migration(at: int, size: int) -> None:
    node = ctypes.c_ulong(1)
    number = MBIND[os.uname().machine]
    LIBC.syscall(number, _POINTER(at), _SIZE(size), 2, ctypes.byref(node), ctypes.c_ulong(64), 3)


def smaps_reader(at: int, size: int) -> None:
    Path("/proc/self/smaps").read_bytes()


def pagemap_reader(at: int, size: int) -> None:
    with Path("/proc/self/pagemap").open("rb", buffering=0) as file:
        file.seek(at // PAGE * 8)
        file.read(8)


def reclaim(at: int, size: int) -> None:
    """Ask a cgroup of our own to give memory back: reclaim, in this program's name."""
    group = Path("/sys/fs/cgroup/splits")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+memory")
    group.mkdir(exist_ok=True)
    (group / "cgroup.procs").write_text("0")
    again = fault_in(size)  # charged there
    ctypes.memset(again, 1, size)
    with contextlib.suppress(OSError):  # less than that was found
        (group / "memory.reclaim").write_text(str(size))


def ksm(at: int, size: int) -> None:
    """Let the kernel's own daemon merge what is the same: it splits, in the name of ksmd."""
    ctypes.memset(at, 7, size)
    LIBC.madvise(at, size, MERGEABLE)
    switch = Path("/sys/kernel/mm/ksm")
    (switch / "pages_to_scan").write_text("2000")
    (switch / "run").write_text("1")
    merged = time.monotonic() + 8
    while int((switch / "pages_shared").read_text()) == 0 and time.monotonic() < merged:
        time.sleep(0.1)
    (switch / "run").write_text("2")


def run_as(name: str, cause: Callable[[int, int], None], size: int) -> None:
    """Have a page and split it, in a process of that name."""
    child = os.fork()
    if child == 0:
        try:
            rename(name)
            cause(fault_in(size), size)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def program_of(level: str, cause: Callable[[int, int], None]) -> str:
    """Return the name of the program that splits a page of a level ('pmd', 'pud') by a cause: 15 characters."""
    return f"{level}-{cause.__name__}"[:15]


TOO_MUCH = (reclaim, ksm)  # for pages of hundreds of megabytes
AT_PMD = (copy_on_write, munmap, mprotect, mremap, madvise, mlock, reclaim, ksm)
AT_PUD = (fork, munmap, mprotect, mremap, madvise, migration, smaps_reader, pagemap_reader)
