"""Claims without a guardian process, and a host whose kernel learns to refuse."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agents import knob_restore
from agents.claim import HostClaim, take_claim
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import Claimer, HostTree, Refusing


@pytest.fixture
def claimer() -> Iterator[Claimer]:
    """Take claims without a guardian process, and let go of their files at the end."""
    taken: list[HostClaim] = []

    def take(root: FolderRoot, *knobs: str, run: str = "r1", lease_seconds: float = 60.0) -> HostClaim:
        claim = take_claim(
            root, run=run, owner="ada@ctl 4711", knobs=knobs, lease_seconds=lease_seconds, guardian_command=()
        )
        taken.append(claim)
        return claim

    yield take
    for claim in taken:
        claim.leave()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an undo try once: the kernel of this test won't come round."""
    monkeypatch.setattr(knob_restore, "_FIRST_PAUSE_SECONDS", 60.0)


@pytest.fixture
def refusing(host_tree: HostTree) -> Iterator[Refusing]:
    """Return a host whose kernel learns to refuse."""
    yield Refusing(host_tree().root)
    Refusing.refused, Refusing.granted = (), 10**6
