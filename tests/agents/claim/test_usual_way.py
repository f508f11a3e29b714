"""A claim finds, applies, reverts and is released."""

from __future__ import annotations

import pytest

from agents.claim import ClaimStanding, RestoreOutcome, claim_status, closed_journals
from agents.errors import HostClaimed
from agents.messages import Arm, KnobReason
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import POOL_1G, POOL_2M, POOL_PATH, THP_2M, Claimer, HostTree, arm, reads


def test_a_claim_finds_applies_reverts_and_is_released(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M, "thp/enabled")
    assert claim.found == {THP_2M: "inherit", "thp/enabled": "madvise"}
    assert claim.leftovers == ()
    changes = claim.apply(arm(thp_2M="always"))
    assert [(change.knob, change.before, change.after) for change in changes] == [
        (THP_2M, "inherit", "always"),
        ("thp/enabled", "madvise", "madvise"),
    ]
    assert claim.drift() == ()
    assert {change.knob: change.after for change in claim.revert()} == claim.found
    claim.release()
    (closed,) = closed_journals(root)
    assert (closed.outcome, closed.run, closed.owner) == (RestoreOutcome.RELEASED, "r1", "ada@ctl 4711")
    assert [(change.knob, change.after, change.reason) for change in closed.changes] == [
        (THP_2M, "always", KnobReason.APPLY),
        (THP_2M, "inherit", KnobReason.REVERT),
    ]
    assert claim_status(root) is None
    assert claim.lease_remaining_seconds == 0.0


def test_what_an_arm_does_not_name_holds_what_was_found(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M, "thp/enabled")
    claim.apply(arm(thp_2M="always", thp="never"))
    claim.apply(arm(thp_2M="madvise"))
    assert (reads(root, THP_2M), reads(root, "thp/enabled")) == ("madvise", "madvise")
    claim.apply(Arm(name="control", knobs={}), KnobReason.REAPPLY)
    assert reads(root, THP_2M) == "inherit"
    claim.release()


def test_the_journal_is_on_disk_before_the_knob_is_written(host_tree: HostTree, claimer: Claimer) -> None:
    seen: list[str] = []

    class Watched(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            seen.append((self.state_dir / "journal.jsonl").read_text().rstrip("\0").splitlines()[-1])
            super().write(path, value)

    root = Watched(host_tree().root)
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    assert len(seen) == 1
    assert '"kind":"intent"' in seen[0]
    assert '"before":"inherit"' in seen[0]


def test_a_claim_with_no_knobs_holds_the_host_all_the_same(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root)
    assert claim.apply(Arm(name="control", knobs={})) == ()
    with pytest.raises(HostClaimed):
        claimer(root, run="r2")
    claim.release()


def test_status_says_what_is_held_and_what_differs(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    assert claim_status(root) is None
    claim = claimer(root, THP_2M, "thp/enabled")
    claim.apply(arm(thp_2M="always"))
    status = claim_status(root)
    assert status is not None
    assert (status.run, status.owner, status.standing) == ("r1", "ada@ctl 4711", ClaimStanding.HELD)
    assert 50 < status.lease_remaining_seconds <= 60
    assert (status.agent_alive, status.guardian_alive, status.guardian_pid) == (False, False, None)  # of a tree
    assert [(one.knob, one.wanted, one.actual) for one in status.changed] == [(THP_2M, "inherit", "always")]


def test_pools_shrink_before_others_grow(host_tree: HostTree, claimer: Claimer) -> None:
    order: list[str] = []

    class Recording(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            order.append(path)
            super().write(path, value)

    root = Recording(host_tree().root)
    claim = claimer(root, POOL_1G, POOL_2M)
    claim.apply(arm(pool_2M="512"))
    claim.apply(arm(pool_1G="1"))
    assert order[-2:] == [POOL_PATH.format(2048), POOL_PATH.format(1048576)]
