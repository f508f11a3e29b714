"""Looking: which ways to look at a process split its pages?"""

from __future__ import annotations

import os
from collections.abc import Callable

from agents.conformance.bench import Bench
from agents.conformance.counters import Count, Level
from agents.conformance.memory import Advice, Memory

_ENTRY_BYTES = 8  # of /proc/PID/pagemap, for each base page


def looking(bench: Bench) -> None:
    """Each way to look at a page, at one of its own: a PMD and less stays whole; of a PUD it is told what splits it."""
    ways: dict[str, Callable[[Memory], object]] = {
        "maps": lambda memory: _read("maps"),
        "status": lambda memory: _read("status"),
        "smaps_rollup": lambda memory: _read("smaps_rollup"),
        "smaps": lambda memory: _read("smaps"),
        "numa_maps": lambda memory: _read("numa_maps"),
        "pagemap": lambda memory: _read_pagemap(memory, bench),
        "mincore": Memory.resident,
        "MADV_COLD": lambda memory: memory.advise(Advice.COLD),
    }
    splits: dict[str, int] = {}
    for name, look in ways.items():
        with bench.page() as (memory, pattern):
            with bench.counting() as rise:
                try:
                    look(memory)
                except OSError as error:
                    bench.tell(name, f"not to be had: {error.strerror}")
                    continue
            bench.check_data(f"the memory after {name}", pattern.damaged())
        if bench.level is Level.PUD:
            splits[name] = rise.of(Count.MAPPING_SPLIT) or 0
        else:
            if bench.level is Level.PMD:
                rise.check(Count.MAPPING_SPLIT, 0)
            rise.check(Count.SPLIT, 0)
    if bench.level is Level.PUD:
        bench.tell("splits a page", ", ".join(name for name, count in splits.items() if count) or "none of them")
        bench.tell("leaves it whole", ", ".join(name for name, count in splits.items() if not count) or "none of them")


def _read(name: str) -> int:
    with open(f"/proc/self/{name}", "rb") as file:  # noqa: PTH123 - read to its end, and let go
        return len(file.read())


def _read_pagemap(memory: Memory, bench: Bench) -> int:
    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        size, at = _ENTRY_BYTES * bench.pages, memory.start // bench.base * _ENTRY_BYTES
        done = 0
        while done < size and (data := os.pread(fd, size - done, at + done)):
            done += len(data)
        return done
    finally:
        os.close(fd)
