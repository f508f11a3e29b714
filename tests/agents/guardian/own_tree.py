"""A tree whose processes are this machine's own: what `/` is, on files that a test may change, guardian included."""

from __future__ import annotations

import sys
from pathlib import Path

from agents import guardian
from agents.sysroot import FolderRoot

_MAIN = "import sys; sys.path.insert(0, {!r}); from tests.agents.guardian.own_tree import guard; sys.exit(guard())"
COMMAND = (sys.executable, "-I", "-S", "-c", _MAIN.format(str(Path(__file__).parents[3])))


class OwnTree(FolderRoot):
    """The journal of any other tree may come from elsewhere, so that no process it names is touched."""

    @property
    def real(self) -> bool:
        return True


def guard() -> int:
    """Be the guardian of such a tree."""
    guardian.FolderRoot = OwnTree  # type: ignore[misc]
    return guardian.main(sys.argv[1:])
