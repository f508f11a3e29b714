"""Programs that end with the test that started them, however it ends: a guest of QEMU's would run on for good."""

from __future__ import annotations

# Each is told by the kernel when its parent dies (prctl(2), PR_SET_PDEATHSIG): unshare itself, and the first process of
# its new PID namespace, with which all others in it end, those that a script has started included.
_WORDS = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child")


def ends_with_us(words: list[str]) -> list[str]:
    """Return the command that runs these words so. Started by a thread, they end with that thread."""
    return [*_WORDS, *words]
