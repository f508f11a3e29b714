"""Anonymous memory by the system calls themselves: aligned extents, a pattern in each base page, and what damaged it.

Python's `mmap.mmap(-1, n)` is shared memory, whose huge pages follow other rules; here it is MAP_PRIVATE. Nothing of
this process's heap is used, so that what is counted is what a scenario does. Numbers: asm-generic/mman-common.h.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import platform
import random
from contextlib import suppress
from enum import IntEnum

PROT_NONE, PROT_READ, PROT_WRITE = 0, 1, 2
_MAP_PRIVATE, _MAP_ANONYMOUS, _MAP_NORESERVE = 0x02, 0x20, 0x4000
_MREMAP_MAYMOVE, _MREMAP_FIXED = 1, 2
_MPOL_DEFAULT, _MPOL_BIND, _MPOL_LOCAL, _MPOL_MF_MOVE = 0, 2, 4, 2
_MPOL_F_NODE, _MPOL_F_ADDR = 1, 2
_MOST_NODES = 1024
_CALLS = {
    "x86_64": {"mbind": 237, "set_mempolicy": 238, "get_mempolicy": 239},
    "aarch64": {"mbind": 235, "get_mempolicy": 236, "set_mempolicy": 237},
}
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.mmap.restype = _LIBC.mremap.restype = ctypes.c_void_p
_LIBC.syscall.restype = ctypes.c_long
_FAILED = ctypes.c_void_p(-1).value


class Advice(IntEnum):
    """Numbers of madvise(2) that are the same on every architecture Linux has huge pages on."""

    NORMAL = 0
    DONTNEED = 4
    FREE = 8
    HUGEPAGE = 14
    NOHUGEPAGE = 15
    COLD = 20
    PAGEOUT = 21
    COLLAPSE = 25


class _Part(ctypes.Structure):
    """struct iovec"""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def _asked(name: str, result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _mapped(name: str, address: int | None) -> int:
    if address is None or address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return address


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


class Memory:
    """Addresses `start` to `start + length`, readable and writable. OSError as the kernel gives it.

    Aligned memory lies in a larger reservation that can't be touched, so that its mapping is exactly as long as asked
    for and merges with no other.
    """

    def __init__(self, length: int, *, align: int = 0) -> None:
        self.length = length
        self._reserved = length + 2 * align
        protection = PROT_NONE if align else PROT_READ | PROT_WRITE
        self._reservation = _mapped(
            "mmap",
            _LIBC.mmap(
                None,
                ctypes.c_size_t(self._reserved),
                protection,
                _MAP_PRIVATE | _MAP_ANONYMOUS | _MAP_NORESERVE,
                -1,
                _long(0),
            ),
        )
        self.start = self._reservation
        if align:
            self.start += align - self.start % align if self.start % align else align
            self.protect(0, length, PROT_READ | PROT_WRITE)

    def view(self) -> memoryview:
        """Return the bytes; touching one that is unmapped or protected ends the process."""
        return memoryview((ctypes.c_ubyte * self.length).from_address(self.start)).cast("B")

    def touch(self, offset: int = 0, value: int = 1) -> None:
        """Write one byte."""
        ctypes.memset(self.start + offset, value, 1)

    def advise(self, advice: Advice, offset: int = 0, length: int = 0) -> None:
        size = ctypes.c_size_t(length or self.length - offset)
        _asked(f"madvise {advice.name}", _LIBC.madvise(ctypes.c_void_p(self.start + offset), size, int(advice)))

    def protect(self, offset: int, length: int, protection: int) -> None:
        where = ctypes.c_void_p(self.start + offset)
        _asked("mprotect", _LIBC.mprotect(where, ctypes.c_size_t(length), protection))

    def unmap(self, offset: int, length: int) -> None:
        _asked("munmap", _LIBC.munmap(ctypes.c_void_p(self.start + offset), ctypes.c_size_t(length)))

    def lock(self) -> None:
        _asked("mlock", _LIBC.mlock(ctypes.c_void_p(self.start), ctypes.c_size_t(self.length)))

    def unlock(self) -> None:
        _asked("munlock", _LIBC.munlock(ctypes.c_void_p(self.start), ctypes.c_size_t(self.length)))

    def part(self, offset: int, length: int) -> Memory:
        """Return a part of this memory, which lives no longer than this."""
        part = Memory.__new__(Memory)
        part.start, part.length = self.start + offset, length
        return part

    def move_to(self, other: Memory) -> None:
        """Move the pages to the place of another memory of the same length, which is given up for it."""
        size = ctypes.c_size_t(self.length)
        flags = _MREMAP_MAYMOVE | _MREMAP_FIXED
        moved = _LIBC.mremap(ctypes.c_void_p(self.start), size, size, flags, ctypes.c_void_p(other.start))
        _mapped("mremap", moved)

    def bind(self, node: int) -> None:
        """Have all pages on one NUMA node, and move those that are not."""
        mask = (ctypes.c_ulong * (_MOST_NODES // 64))()
        mask[node // 64] = 1 << node % 64
        bits = _long(_MOST_NODES)
        _syscall("mbind", self.start, self.length, _long(_MPOL_BIND), mask, bits, _long(_MPOL_MF_MOVE))

    def node(self, offset: int = 0) -> int:
        """Return the NUMA node that a page lies on."""
        found = ctypes.c_int(-1)
        where, flags = ctypes.c_void_p(self.start + offset), _long(_MPOL_F_NODE | _MPOL_F_ADDR)
        _syscall("get_mempolicy", ctypes.byref(found), None, _long(0), where, flags)
        return found.value

    def resident(self) -> int:
        """Return how many bytes mincore(2) finds in memory."""
        pages = -(-self.length // mmap.PAGESIZE)
        said = (ctypes.c_ubyte * pages)()
        _asked("mincore", _LIBC.mincore(ctypes.c_void_p(self.start), ctypes.c_size_t(self.length), said))
        return sum(byte & 1 for byte in bytes(said)) * mmap.PAGESIZE

    def pin(self, pipe: int, offset: int) -> None:
        """Give a base page to a pipe as it is: it stays pinned until the pipe is read or closed."""
        part = _Part(self.start + offset, mmap.PAGESIZE)
        _asked("vmsplice", _LIBC.vmsplice(pipe, ctypes.byref(part), ctypes.c_size_t(1), 0))

    def refuses_writes(self, offset: int) -> bool:
        """Whether the kernel won't write there for us: no signal, as a touch would bring."""
        with open("/dev/zero", "rb", buffering=0) as zeros:  # noqa: PTH123 - its descriptor is what is wanted
            where = ctypes.c_void_p(self.start + offset)
            done = _LIBC.read(zeros.fileno(), where, ctypes.c_size_t(1))
            return bool(done < 0 and ctypes.get_errno() == errno.EFAULT)

    def close(self) -> None:
        _asked("munmap", _LIBC.munmap(ctypes.c_void_p(self._reservation), ctypes.c_size_t(self._reserved)))


def _syscall(name: str, *arguments: object) -> int:
    """Make a call that libc has no function for; ENOSYS on an architecture whose number is not known here."""
    number = _CALLS.get(platform.machine(), {}).get(name)
    if number is None:
        raise OSError(errno.ENOSYS, f"{name}: its number on {platform.machine()} is not known")
    taken = [ctypes.c_ulong(one) if isinstance(one, int) else one for one in arguments]
    return _asked(name, int(_LIBC.syscall(_long(number), *taken)))


def allow_balancing(allowed: bool) -> None:
    """Let NUMA balancing look through this process's memory, or keep it out: it splits mappings as it looks.

    Memory under a policy of its own is left alone: set_mempolicy(2), vma_policy_mof in mm/mempolicy.c.
    """
    with suppress(OSError):  # a kernel without NUMA balances nothing
        _syscall("set_mempolicy", _long(_MPOL_DEFAULT if allowed else _MPOL_LOCAL), None, _long(0))


class Pattern:
    """Bytes that differ from page to page, at the start, the middle and the end of every base page of a memory."""

    def __init__(self, memory: Memory, seed: int = 1) -> None:
        self._memory = memory
        page = mmap.PAGESIZE
        self._pages = memory.length // page
        numbers = random.Random(seed)  # noqa: S311 - a pattern, no secret
        self._bytes = {at: bytearray(numbers.randbytes(self._pages)) for at in (0, page // 2, page - 1)}

    def write(self) -> None:
        view = self._memory.view()
        for at, wanted in self._bytes.items():
            view[at :: mmap.PAGESIZE] = wanted

    def damaged(self, first: int = 0, last: int | None = None, *, moved_to: Memory | None = None) -> int:
        """Return how many base pages from `first` up to `last` do not hold what was written; those only are touched.

        `moved_to`: where these pages lie now.
        """
        last = self._pages if last is None else last
        begin = 0 if moved_to else first * mmap.PAGESIZE
        view = (moved_to or self._memory).view()[begin : begin + (last - first) * mmap.PAGESIZE]
        bad: set[int] = set()
        for at, wanted in self._bytes.items():
            seen, expected = view[at :: mmap.PAGESIZE].tobytes(), bytes(wanted[first:last])
            if seen != expected:
                bad |= {n for n, (one, other) in enumerate(zip(seen, expected, strict=True)) if one != other}
        return len(bad)

    def change(self, page: int) -> None:
        """Write another byte to one page, and expect it from now on."""
        self._bytes[0][page] ^= 0xFF
        self._memory.touch(page * mmap.PAGESIZE, self._bytes[0][page])
