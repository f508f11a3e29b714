"""Writes that the kernel refuses, grants in part, or lies about: all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import pytest

from agents.claim import RestoreOutcome, claim_status, closed_journals
from agents.errors import JournalError, KnobMismatch, KnobRefused, RestoreIncomplete
from agents.knobs import find_knob
from agents.messages import Arm
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import POOL_1G, POOL_2M, POOL_PATH, THP_2M, Claimer, HostTree, Refusing, arm, reads


def test_a_refused_write_takes_back_those_made_before_it(refusing: Refusing, claimer: Claimer) -> None:
    claim = claimer(refusing, "thp/enabled", THP_2M)
    claim.apply(arm(thp="always"))
    Refusing.refused = ("2048kB/enabled",)
    with pytest.raises(KnobRefused, match="refused 'never' for thp/2048kB/enabled"):
        claim.apply(arm(thp="never", thp_2M="never"))
    assert reads(refusing, "thp/enabled") == "always"
    assert claim.drift() == ()  # the arm before still holds
    assert claim.revert()[0].ok


def test_a_partial_grant_is_given_back_and_named(refusing: Refusing, claimer: Claimer) -> None:
    claim = claimer(refusing, POOL_1G)
    Refusing.granted = 2
    with pytest.raises(KnobMismatch, match="granted 2 of 4 pages"):
        claim.apply(arm(pool_1G="4"))
    assert reads(refusing, POOL_1G) == "0"
    untold = [(change.before, change.wanted, change.after) for change in claim.take_untold()]
    assert untold == [("0", "4", "2"), ("2", "0", "0")]
    assert claim.take_untold() == ()
    claim.release()
    changes = closed_journals(refusing)[0].changes
    assert [(change.before, change.wanted, change.after) for change in changes] == [("0", "4", "2"), ("2", "0", "0")]
    assert "granted 2 of 4" in (changes[0].error or "")


def test_a_partial_grant_holds_where_the_run_takes_what_there_is(refusing: Refusing, claimer: Claimer) -> None:
    claim = claimer(refusing, POOL_1G)
    Refusing.granted = 2
    (change,) = claim.apply(arm(pool_1G="4"), short_pools=True)
    assert (change.before, change.wanted, change.after, change.error) == ("0", "4", "2", None)
    assert claim.drift() == ()
    refusing.write(find_knob(refusing, POOL_1G).path, b"1\n")
    assert [(drift.wanted, drift.actual) for drift in claim.drift()] == [("2", "1")]
    assert claim.revert()[0].ok
    assert reads(refusing, POOL_1G) == "0"


def test_pages_in_use_are_no_partial_grant(host_tree: HostTree, claimer: Claimer) -> None:
    class InUse(FolderRoot):
        """A kernel that keeps the pages that are mapped."""

        def write(self, path: str, value: bytes) -> None:
            super().write(path, str(max(3, int(value))).encode() if path.endswith("/nr_hugepages") else value)

    root = InUse(host_tree().root)
    claim = claimer(root, POOL_1G)
    claim.apply(arm(pool_1G="4"), short_pools=True)
    with pytest.raises(KnobMismatch, match="still holds 3"):
        claim.apply(arm(pool_1G="1"), short_pools=True)


def test_a_pool_that_fills_only_when_asked_again_is_asked_again(host_tree: HostTree, claimer: Claimer) -> None:
    class Slow(FolderRoot):
        """A kernel that finds one page more each time it is asked."""

        def write(self, path: str, value: bytes) -> None:
            if path.endswith("/nr_hugepages"):
                value = str(min(int(self.read(path)) + 1, int(value))).encode()
            super().write(path, value)

    root = Slow(host_tree().root)
    claim = claimer(root, POOL_1G)
    (change,) = claim.apply(arm(pool_1G="3"))
    assert (change.before, change.wanted, change.after, change.error) == ("0", "3", "3", None)
    assert reads(root, POOL_1G) == "3"


def test_a_kernel_that_lies_on_reading_back_is_caught(host_tree: HostTree, claimer: Claimer) -> None:
    class Lying(FolderRoot):
        lies = False

        def read(self, path: str) -> bytes:
            if self.lies and path.endswith("2048kB/enabled"):
                return b"always [inherit] madvise never\n"
            return super().read(path)

    root = Lying(host_tree().root)
    claim = claimer(root, THP_2M)
    Lying.lies = True
    with pytest.raises(KnobMismatch, match="was set to 'always' and reads 'inherit'"):
        claim.apply(arm(thp_2M="always"))
    Lying.lies = False
    assert all(change.ok for change in claim.revert())
    assert reads(root, THP_2M) == "inherit"


@pytest.mark.usefixtures("impatient")
def test_where_even_taking_back_fails_it_is_the_loudest_error(refusing: Refusing, claimer: Claimer) -> None:
    claim = claimer(refusing, "thp/enabled", THP_2M)

    class Once(Refusing):
        def write(self, path: str, value: bytes) -> None:
            super().write(path, value)
            Refusing.refused = ("transparent_hugepage",)  # from now on nothing goes

    claim._root = Once(refusing.root)
    with pytest.raises(RestoreIncomplete, match="thp/enabled could not be put back"):
        claim.apply(arm(thp="never", thp_2M="never"))
    changes = {change.knob: change for change in claim.revert()}
    assert not changes["thp/enabled"].ok
    Refusing.refused = ()
    claim._root = refusing
    assert all(change.ok for change in claim.revert())
    claim.release()


def test_knobs_that_set_the_same_thing_are_not_claimed_to_both_hold(host_tree: HostTree, claimer: Claimer) -> None:
    node = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"

    class OneNode(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            super().write(path, value)
            if path in (node, POOL_PATH.format(2048)):
                super().write(node if path != node else POOL_PATH.format(2048), value)

    root = OneNode(host_tree().root)
    claim = claimer(root, POOL_2M, "hugetlb/node0/2048kB/nr_hugepages")
    with pytest.raises(KnobMismatch, match="set the same thing"):
        claim.apply(Arm(name="a", knobs={POOL_2M: "4", "hugetlb/node0/2048kB/nr_hugepages": "2"}))
    assert reads(root, POOL_2M) == "0"
    changes = claim.apply(Arm(name="b", knobs={POOL_2M: "4", "hugetlb/node0/2048kB/nr_hugepages": "4"}))
    assert all(change.ok for change in changes)
    assert all(change.ok for change in claim.revert())
    claim.release()


def test_on_a_full_disk_an_apply_is_refused_and_a_revert_works(
    host_tree: HostTree, claimer: Claimer, mounted: Callable[..., None]
) -> None:
    root = host_tree()
    root.state_dir.mkdir(parents=True)
    mounted("-t", "tmpfs", "-o", "size=256k,mode=0700", "tmpfs", str(root.state_dir))
    claim = claimer(root, THP_2M)
    filler = root.state_dir / "filler"
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    last = "inherit"
    with pytest.raises(JournalError, match="No space left"):
        for number in range(2000):
            value = ("always", "never")[number % 2]
            claim.apply(arm(thp_2M=value))
            last = value
    assert reads(root, THP_2M) == last  # what could not be journaled was not written
    claim.renew()
    assert all(change.ok for change in claim.revert())
    claim.release()
    assert closed_journals(root)[0].outcome is RestoreOutcome.RELEASED
    filler.write_bytes(bytes(170 * 1024))
    with pytest.raises(JournalError):
        claimer(root, THP_2M)
    assert claim_status(root) is None
    filler.unlink()
    claimer(root, THP_2M).release()


@pytest.mark.parametrize("spoil", ["others may write it", "it is gone", "its lock is a pipe"])
def test_a_state_folder_that_is_spoilt_in_mid_run_keeps_no_host_changed(
    host_tree: HostTree, claimer: Claimer, spoil: str
) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    before = reads(root, THP_2M)
    claim.apply(arm(thp_2M="always"))
    if spoil == "others may write it":
        root.state_dir.chmod(0o777)
    elif spoil == "it is gone":
        shutil.rmtree(root.state_dir)
    else:
        (root.state_dir / "state.lock").unlink()
        os.mkfifo(root.state_dir / "state.lock")
    assert all(change.ok for change in claim.revert())
    assert reads(root, THP_2M) == before != "always"
