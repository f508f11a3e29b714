"""A fork of a scenario's process, and what it found."""

from __future__ import annotations

import os
from collections.abc import Callable


def in_a_fork(act: Callable[[], int]) -> int:
    """Return the count that a function returned in a fork of this process, 254 at most.

    ChildProcessError where it raised, or was killed.
    """
    pid = os.fork()
    if pid == 0:
        damaged = 255
        try:
            damaged = min(act(), 254)
        finally:
            os._exit(damaged)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status < 0 or status == 255:
        raise ChildProcessError(f"the fork ended with status {status}")
    return status
