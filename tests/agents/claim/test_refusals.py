"""What a claim refuses, before anything is made or written."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agents.claim import claim_status, take_claim
from agents.errors import (
    AgentError,
    GuardianError,
    JournalError,
    KnobNotWritable,
    KnobRefused,
    RestoreIncomplete,
    UnknownKnob,
)
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import BOOT_ID, THP_2M, Claimer, HostTree, arm, reads


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_a_lease_that_makes_no_sense_is_refused(host_tree: HostTree, claimer: Claimer, seconds: float) -> None:
    root = host_tree()
    with pytest.raises(AgentError, match="above 0"):
        claimer(root, THP_2M, lease_seconds=seconds)
    assert not root.state_dir.exists()


def test_an_unknown_knob_is_refused_before_anything_is_made(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    with pytest.raises(UnknownKnob, match="2048kB"):
        claimer(root, "thp/1048576kB/enabled")
    assert not root.state_dir.exists()


def test_a_knob_that_cannot_be_written_is_refused_at_the_claim(host_tree: HostTree, claimer: Claimer) -> None:
    class ReadOnly(FolderRoot):
        def writable(self, path: str) -> bool:
            return False

    root = ReadOnly(host_tree().root)
    with pytest.raises(KnobNotWritable, match="read-write"):
        claimer(root, THP_2M)
    assert claim_status(root) is None


@pytest.mark.usefixtures("impatient")
def test_a_read_only_mount_is_refused_and_one_made_later_is_survived(
    host_tree: HostTree, claimer: Claimer, mounted: Callable[..., None]
) -> None:
    root = host_tree()
    sysfs = str(root.root / "sys")
    mounted("--bind", sysfs, sysfs)
    claim = claimer(root, THP_2M)
    claim.apply(arm(thp_2M="always"))
    mounted("-o", "remount,bind,ro", sysfs)
    with pytest.raises(KnobNotWritable, match="Read-only file system"):
        claim.apply(arm(thp_2M="never"))
    (change,) = claim.revert()
    assert "Read-only file system" in (change.error or "")
    with pytest.raises(RestoreIncomplete, match="reads 'always', found 'inherit'"):
        claim.release()
    with pytest.raises(KnobNotWritable):
        claimer(root, THP_2M, run="r2")
    mounted("-o", "remount,bind,rw", sysfs)
    assert all(one.ok for one in claim.revert())
    claim.release()


def test_an_arm_may_only_set_what_was_claimed_to_what_is_legal(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    with pytest.raises(UnknownKnob, match="not journaled"):
        claim.apply(arm(thp_2M="always", thp="never"))
    with pytest.raises(KnobRefused, match="this kernel knows"):
        claim.apply(arm(thp_2M="sometimes"))
    assert reads(root, THP_2M) == "inherit"


def test_without_a_folder_there_is_no_guardian_process(host_tree: HostTree) -> None:
    class Memory:
        """A root that is not a folder."""

        def __init__(self, tree: FolderRoot) -> None:
            self._tree = tree
            self.real = False
            self.state_dir = tree.state_dir

        def __getattr__(self, name: str) -> object:
            return getattr(self._tree, name)

    root = Memory(host_tree())
    with pytest.raises(GuardianError, match="no folder"):
        take_claim(root, run="r", owner="o", knobs=[THP_2M], lease_seconds=9)  # type: ignore[arg-type]
    claim = take_claim(root, run="r", owner="o", knobs=[THP_2M], lease_seconds=9, guardian_command=())  # type: ignore[arg-type]
    assert claim.guardian_alive()
    assert not claim.ensure_guardian()
    claim.release()


def test_a_state_folder_that_cannot_be_made_is_an_error(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    (root.root / "var").write_text("in the way")
    with pytest.raises(JournalError, match="state folder"):
        claimer(root, THP_2M)


def test_without_a_boot_id_no_claim_is_made(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree(files={BOOT_ID: None})
    with pytest.raises(JournalError, match="boot id"):
        claimer(root, THP_2M)
    (root.root / BOOT_ID).parent.mkdir(parents=True, exist_ok=True)
    (root.root / BOOT_ID).write_text("b1")
    claimer(root, THP_2M)
