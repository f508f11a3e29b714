"""How much longer than usual an answer is waited for: FLEETEXP_TIMEOUT_FACTOR=4 where machines are emulated or busy."""

from __future__ import annotations

import os

from agents.errors import AgentError

VARIABLE = "FLEETEXP_TIMEOUT_FACTOR"
START_SECONDS = 15.0
_MOST = 1000.0


def read_timeout_factor(text: str) -> float:
    """Return the factor that a text names, 1 where it is empty; AgentError where it is not a number from 1 to 1000."""
    try:
        factor = float(text or 1)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= _MOST:
        raise AgentError(
            f"{text!r} is not a factor for the time that hosts have to answer",
            where=f"{VARIABLE} in the environment",
            remedy=f"unset it, or set it to a number from 1 to {_MOST:.0f}",
        )
    return factor


def timeout_factor() -> float:
    """Return the factor of this process's environment; AgentError as `read_timeout_factor`."""
    return read_timeout_factor(os.environ.get(VARIABLE, ""))


def start_seconds() -> float:
    """Return how long a process of this package's own may take to start: a guardian, a launcher, a reader of pages."""
    return START_SECONDS * timeout_factor()
