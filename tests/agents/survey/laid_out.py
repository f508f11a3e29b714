"""A process whose memory has a layout that is known page by page.

    python laid_out.py SIZE

It maps SIZE bytes, aligned to SIZE, between two stretches that nobody may touch, and touches pages by their numbers as
the first line of stdin says in JSON: {"write": [...], "read": [...], "split_at": page or null, "refuse": true}, where
refuse calls MADV_NOHUGEPAGE. It prints the address, then does what further lines say: 'touch' writes to what it wrote
to again, 'fork' forks a child that waits, 'open PATH' keeps a file open. It ends with its stdin.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PRIVATE_ANONYMOUS_NORESERVE = 0x2 | 0x20 | 0x4000
PAGE = os.sysconf("SC_PAGE_SIZE")
_NOHUGEPAGE = 15


@dataclass(frozen=True)
class LaidOut:
    """A running process, and where its region begins."""

    process: subprocess.Popen[str]
    address: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def tell(self, word: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextlib.contextmanager
def laid_out(
    size: int,
    *,
    write: Sequence[int] = (),
    read: Sequence[int] = (),
    split_at: int | None = None,
    refuse: bool = False,
) -> Iterator[LaidOut]:
    """Start such a process; end it afterwards."""
    pattern = json.dumps({"write": list(write), "read": list(read), "split_at": split_at, "refuse": refuse})
    command = [sys.executable, "-I", "-S", __file__, str(size)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            started = LaidOut(process, 0)
            yield LaidOut(process, int(started.tell(pattern)))
        finally:
            process.kill()


def main(size: int, pattern: dict[str, list[int] | int | bool | None]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    for name in ("mprotect", "madvise"):
        getattr(libc, name).argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    reserved = libc.mmap(None, 3 * size, 0, PRIVATE_ANONYMOUS_NORESERVE, -1, 0)
    begin = (reserved + size - 1) // size * size + (size if reserved % size == 0 else 0)
    assert libc.mprotect(begin, size, 3) == 0
    if pattern["refuse"]:
        assert libc.madvise(begin, size, _NOHUGEPAGE) == 0
    if pattern["split_at"] is not None:
        assert libc.mprotect(begin, pattern["split_at"] * PAGE, 1 | 2 | 4) == 0

    def touch() -> None:
        for page in pattern["write"]:
            ctypes.memset(begin + page * PAGE, 1, 1)

    touch()
    assert sum(ctypes.string_at(begin + page * PAGE, 1)[0] for page in pattern["read"]) == 0
    print(begin, flush=True)  # noqa: T201
    kept = []
    for line in sys.stdin:
        match line.split():
            case ["touch"]:
                touch()
            case ["open", path]:
                kept.append(os.open(path, os.O_RDONLY))
            case ["fork"] if os.fork() == 0:
                sys.stdin.read()
                os._exit(0)
        print("done", flush=True)  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.stdin.readline()))
