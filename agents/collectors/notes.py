"""What the collectors can't read, and what went away while they watched."""

from __future__ import annotations

import errno
from collections.abc import Iterable

_REASONS = {
    errno.ENOENT: "this kernel or host does not have it",
    errno.ENODEV: "it was removed",
    errno.EACCES: "not permitted; run as root",
    errno.EPERM: "not permitted; run as root",
    errno.EOPNOTSUPP: "compiled in but off; boot with psi=1",  # only pressure files answer a read with this
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}


def why(error: OSError | ValueError) -> str:
    """Say in a few words why a file could not be read."""
    if not isinstance(error, OSError) or error.errno is None:
        return f"not understood: {error}"
    # One number has two names on Linux; this is the one of the manual pages.
    name = "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode.get(error.errno, "error")
    return f"{name}: {_REASONS.get(error.errno, error.strerror)}"


class Notes:
    """Reasons by metric, and sentences on sources that went away since they were last asked for."""

    __slots__ = ("_lost", "doubts", "unavailable")

    def __init__(self) -> None:
        self.unavailable: dict[str, str] = {}
        self.doubts: set[str] = set()  # metrics that can't be believed, since they were last found
        self._lost: list[str] = []

    def missing(self, metrics: Iterable[str], reason: str) -> None:
        self.unavailable.update(dict.fromkeys(metrics, reason))

    def found(self, metrics: Iterable[str]) -> None:
        for metric in metrics:
            self.unavailable.pop(metric, None)
            self.doubts.discard(metric)

    def doubted(self, metric: str, reason: str) -> None:
        """Note a metric that was read and can't be believed; it counts as lost once, until it is found again."""
        if metric not in self.doubts:
            self.doubts.add(metric)
            self.lost(f"{metric}, {reason}")
        self.unavailable[metric] = reason

    def lost(self, sentence: str) -> None:
        self._lost.append(sentence)

    def take_lost(self) -> list[str]:
        """Return what went away since the last call."""
        lost, self._lost = self._lost, []
        return lost
