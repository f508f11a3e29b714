"""A fork of a scenario's process, and what it found."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable


def in_a_fork(act: Callable[[], int]) -> int:
    """Return what a function returned in a fork of this process; what it raised there is raised here.

    ChildProcessError where the fork was killed.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            try:
                answer: int | Exception = act()
            except Exception as error:
                answer = error
            os.write(writer, pickle.dumps(answer))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status or not said:
        raise ChildProcessError(f"the fork ended with status {status} before it was done")
    answer = pickle.loads(said)  # noqa: S301 - of our own fork
    if isinstance(answer, Exception):
        raise answer
    return answer
