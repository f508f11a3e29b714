"""How much longer than usual hosts may take to answer: FLEETEXP_PATIENCE=4 where machines are emulated or crowded."""

from __future__ import annotations

import os

from fleetexp.errors import RunError

_VARIABLE = "FLEETEXP_PATIENCE"
_MOST = 1000.0


def read_patience(text: str) -> float:
    """Return the factor that a text names, 1 where it is empty; RunError where it is not a number from 1 to 1000."""
    try:
        factor = float(text or 1)
    except ValueError:
        factor = 0.0
    if not 1 <= factor <= _MOST:
        raise RunError(
            f"{text!r} is not a factor for the time that hosts have to answer",
            where=f"{_VARIABLE} in the environment",
            remedy=f"unset it, or set it to a number from 1 to {_MOST:.0f}",
        )
    return factor


PATIENCE = read_patience(os.environ.get(_VARIABLE, ""))
