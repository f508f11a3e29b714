"""Processes that are known by how long they sleep: so long as nobody else's on this machine, nor a test's beside it."""

from __future__ import annotations

import itertools
import os
import subprocess

_numbers = itertools.count(1)


def new_nap() -> str:
    """Return a number of seconds that no other process sleeps."""
    return f"{os.getpid()}{next(_numbers):03d}"


def napping(nap: str) -> list[int]:
    """Return the processes, but for this one, whose command line has it."""
    found = subprocess.run(["pgrep", "-f", nap], capture_output=True, text=True, check=False).stdout.split()
    return [pid for pid in map(int, found) if pid != os.getpid()]
