"""A claim: one run at a time, all or nothing, and nothing written once it has ended."""

from __future__ import annotations

import errno
import os
import pickle
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents import guardian_start, undo
from agents.claim import HostClaim, Outcome, Standing, claim_status, closed_journals, restore, take_claim
from agents.errors import (
    AgentError,
    GuardianError,
    HostClaimed,
    JournalError,
    KnobMismatch,
    KnobNotWritable,
    KnobRefused,
    LeaseExpired,
    RestoreIncomplete,
    UnknownKnob,
)
from agents.host_lock import HostLock
from agents.knobs import find_knob, read_knob
from agents.messages import Arm, KnobReason
from agents.sysroot import FolderRoot

HostTree = Callable[..., FolderRoot]
Claimer = Callable[..., HostClaim]
THP_2M = "thp/2048kB/enabled"
POOL_2M = "hugetlb/2048kB/nr_hugepages"
POOL_1G = "hugetlb/1048576kB/nr_hugepages"
POOL_PATH = "sys/kernel/mm/hugepages/hugepages-{}kB/nr_hugepages"
BOOT_ID = "proc/sys/kernel/random/boot_id"


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
    monkeypatch.setattr(undo, "_FIRST_PAUSE_SECONDS", 60.0)


def arm(**knobs: str) -> Arm:
    """`arm(thp_2M="always")` by short names."""
    names = {"thp_2M": THP_2M, "thp": "thp/enabled", "pool_2M": POOL_2M, "pool_1G": POOL_1G}
    return Arm(name="treatment", knobs={names[name]: value for name, value in knobs.items()})


def reads(root: FolderRoot, name: str) -> str:
    return read_knob(root, find_knob(root, name))


# -------------------------------------------------------------------------------------------------- the usual way
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
    assert (closed.outcome, closed.run, closed.owner) == (Outcome.RELEASED, "r1", "ada@ctl 4711")
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
    assert (status.run, status.owner, status.standing) == ("r1", "ada@ctl 4711", Standing.HELD)
    assert 50 < status.lease_remaining_seconds <= 60
    assert status.agent_alive
    assert (status.guardian_alive, status.guardian_pid) == (False, None)
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


# -------------------------------------------------------------------------------------------------- refusals
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
        """A root that is no folder."""

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


# -------------------------------------------------------------------------------------------------- failed writes
class Refusing(FolderRoot):
    """A kernel that refuses writes to the paths named, and grants at most `granted` pages of a pool."""

    refused: tuple[str, ...] = ()
    granted = 10**6

    def write(self, path: str, value: bytes) -> None:
        if any(part in path for part in self.refused):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        if path.endswith("/nr_hugepages"):
            value = str(min(self.granted, int(value))).encode()
        super().write(path, value)


@pytest.fixture
def refusing(host_tree: HostTree) -> Iterator[Refusing]:
    """Return a host whose kernel learns to refuse."""
    yield Refusing(host_tree().root)
    Refusing.refused, Refusing.granted = (), 10**6


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
    mounted("-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root.state_dir))
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
    assert closed_journals(root)[0].outcome is Outcome.RELEASED
    filler.write_bytes(bytes(170 * 1024))
    with pytest.raises(JournalError):
        claimer(root, THP_2M)
    assert claim_status(root) is None
    filler.unlink()
    claimer(root, THP_2M).release()


# -------------------------------------------------------------------------------------------------- drift
def test_somebody_elses_write_is_seen_and_ours_is_not(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M, "thp/enabled")
    claim.apply(arm(thp_2M="always"))
    root.write(find_knob(root, "thp/enabled").path, b"never")
    (drift,) = claim.drift()
    assert (drift.knob, drift.wanted, drift.actual) == ("thp/enabled", "madvise", "never")
    claim.apply(arm(thp_2M="always"), KnobReason.REAPPLY)
    assert claim.drift() == ()


def test_a_knob_that_has_gone_is_a_drift(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    path = root.root / find_knob(root, THP_2M).path
    path.unlink()
    (drift,) = claim.drift()
    assert drift.actual == ""
    path.write_text("inherit")
    assert claim.drift() == ()

    class Broken:
        def read(self) -> bytes:
            raise OSError(errno.ENODEV, "gone")

        def close(self) -> None: ...

    claim._readers[THP_2M] = Broken()
    assert claim.drift()[0].actual == ""
    assert claim.drift() == ()  # opened again


def test_drift_is_not_asked_while_we_write_ourselves(host_tree: HostTree, claimer: Claimer) -> None:
    writing, go_on = threading.Event(), threading.Event()

    class Slow(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            super().write(path, value)
            writing.set()
            assert go_on.wait(10)

    claim = claimer(Slow(host_tree().root), THP_2M)
    thread = threading.Thread(target=claim.apply, args=(arm(thp_2M="always"),))
    thread.start()
    assert writing.wait(10)
    assert claim.drift() == ()
    claim.renew()  # a poll is answered meanwhile
    go_on.set()
    thread.join()
    assert claim.drift() == ()


# -------------------------------------------------------------------------------------------------- ends
def test_once_the_lease_has_run_out_nothing_is_written(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    claim.apply(arm(thp_2M="always"))
    claim._expires = 0.0
    for act in (claim.renew, lambda: claim.apply(arm(thp_2M="never")), lambda: claim.guard_process(os.getpid())):
        with pytest.raises(LeaseExpired, match="lease has run out"):
            act()
    claim.unguard_process(os.getpid())
    assert reads(root, THP_2M) == "always"
    assert claim.revert()[0].ok  # putting back is right whoever does it
    claim.release()


def test_a_lease_that_runs_out_between_two_writes_stops_the_second(host_tree: HostTree, claimer: Claimer) -> None:
    class Slow(FolderRoot):
        def write(self, path: str, value: bytes) -> None:
            super().write(path, value)
            claim._expires = 0.0

    root = Slow(host_tree().root)
    claim = claimer(root, "thp/enabled", THP_2M)
    with pytest.raises(LeaseExpired):
        claim.apply(arm(thp="never", thp_2M="never"))
    assert (reads(root, "thp/enabled"), reads(root, THP_2M)) == ("never", "inherit")
    assert all(change.ok for change in claim.revert())


def test_release_waits_for_the_host_to_be_as_found_and_may_be_repeated(host_tree: HostTree, claimer: Claimer) -> None:
    claim = claimer(host_tree(), THP_2M)
    claim.apply(arm(thp_2M="always"))
    with pytest.raises(RestoreIncomplete, match="reads 'always', found 'inherit'"):
        claim.release()
    claim.revert()
    claim.release()
    claim.release()
    for act in (claim.renew, claim.revert, lambda: claim.apply(arm())):
        with pytest.raises(LeaseExpired, match="it is over"):
            act()
    assert not claim.ensure_guardian()


def test_restore_by_hand_refuses_a_live_claim_and_with_force_ends_it(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    assert restore(root) == ()
    claim = claimer(root, THP_2M)
    claim.apply(arm(thp_2M="always"))
    with pytest.raises(HostClaimed, match=r"run r1 of ada@ctl 4711 .* another (59|60) s") as caught:
        restore(root)
    assert "--force" in caught.value.remedy
    (change,) = restore(root, force=True)
    assert (change.before, change.after, change.reason) == ("always", "inherit", KnobReason.RESTORE)
    assert closed_journals(root, run="r1")[0].outcome is Outcome.RESTORED
    assert restore(root) == ()
    for act in (claim.renew, claim.revert, lambda: claim.apply(arm(thp_2M="never"))):
        with pytest.raises(LeaseExpired, match="ended by its guardian or a restore"):
            act()
    assert reads(root, THP_2M) == "inherit"
    claim.release()
    assert closed_journals(root)[0].outcome is Outcome.RESTORED


def test_a_dead_claim_is_undone_by_the_next_one_and_reported(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    old = claimer(root, THP_2M, "thp/enabled", lease_seconds=0.2)
    old.apply(arm(thp_2M="always"))
    old._lease.extend(old._header.claim, 0.0)
    status = claim_status(root)
    assert status is not None
    assert (status.standing, status.lease_remaining_seconds) == (Standing.DEAD, 0.0)
    new = claimer(root, THP_2M, run="r2")
    assert [(change.knob, change.before, change.after) for change in new.leftovers] == [(THP_2M, "always", "inherit")]
    assert new.found == {THP_2M: "inherit"}
    (closed,) = closed_journals(root)
    assert closed.outcome is Outcome.TAKEN_OVER
    assert closed.changes[-1].reason is KnobReason.RESTORE
    new.release()


def test_a_dead_claim_is_undone_by_hand_too(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    old = claimer(root, THP_2M)
    old.apply(arm(thp_2M="always"))
    (root.state_dir / "lease").unlink()  # nobody can say that it still runs
    (root.state_dir / "guardian").write_bytes(b"damaged")
    assert restore(root)[0].ok
    assert reads(root, THP_2M) == "inherit"


@pytest.mark.usefixtures("impatient")
def test_a_dead_claim_that_cannot_be_undone_keeps_the_host(refusing: Refusing, claimer: Claimer) -> None:
    claim = claimer(refusing, THP_2M)
    claim.apply(arm(thp_2M="always"))
    claim._lease.extend(claim._header.claim, 0.0)
    Refusing.refused = ("2048kB",)
    with pytest.raises(RestoreIncomplete, match="run r1 left thp/2048kB/enabled=always"):
        claimer(refusing, THP_2M, run="r2")
    (change,) = restore(refusing)
    assert not change.ok
    assert claim_status(refusing) is not None
    Refusing.refused = ()
    assert claimer(refusing, THP_2M, run="r2").leftovers[0].after == "inherit"


def test_after_a_reboot_the_journal_is_closed_and_nothing_is_written(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    # A new boot: another id, the kernel's own defaults; here one that differs from what was found.
    (root.root / BOOT_ID).write_text("another boot\n")
    (root.root / find_knob(root, THP_2M).path).write_text("never")
    status = claim_status(root)
    assert status is not None
    assert (status.standing, status.changed, status.agent_alive) == (Standing.REBOOTED, (), False)
    claim = claimer(root, THP_2M, run="r2")
    assert (claim.leftovers, claim.found) == ((), {THP_2M: "never"})
    assert closed_journals(root, run="r1")[0].outcome is Outcome.REBOOTED
    claim.release()


def test_restore_after_a_reboot_has_nothing_to_write(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    (root.root / BOOT_ID).write_text("another boot\n")
    assert restore(root) == ()
    assert reads(root, THP_2M) == "always"
    assert closed_journals(root)[0].outcome is Outcome.REBOOTED


def test_a_damaged_journal_stops_the_next_claim_and_is_kept(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    root.state_dir.mkdir(parents=True)
    (root.state_dir / "journal.jsonl").write_text("garbage\n")
    for look in (lambda: claimer(root, THP_2M), lambda: restore(root, force=True), lambda: claim_status(root)):
        with pytest.raises(JournalError, match="can't be read"):
            look()
    assert (root.state_dir / "journal.jsonl").exists()


def test_of_many_who_race_for_a_host_one_gets_it(host_tree: HostTree) -> None:
    root = host_tree()
    got: list[HostClaim] = []
    refused: list[HostClaimed] = []
    start = threading.Barrier(6)

    def race(number: int) -> None:
        start.wait()
        try:
            got.append(
                take_claim(root, run=f"r{number}", owner="o", knobs=[THP_2M], lease_seconds=60, guardian_command=())
            )
        except HostClaimed as error:
            refused.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)
    assert all(got[0]._header.run in str(error) for error in refused)
    got[0].release()


def test_a_host_whose_lock_is_held_too_long_says_by_whom(
    host_tree: HostTree, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host_tree()
    claim = claimer(root, THP_2M)
    acquire = HostLock.acquire
    with HostLock(root.state_dir), monkeypatch.context() as patched:
        patched.setattr(HostLock, "acquire", lambda self, _: acquire(self, 0.05))
        with pytest.raises(HostClaimed, match=f"process {os.getpid()}"):
            claim.apply(arm(thp_2M="always"))
    assert reads(root, THP_2M) == "inherit"


# -------------------------------------------------------------------------------------------------- the guardian
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import sys; print('no room here'); sys.exit(3)", "no room here"),
        ("import sys; sys.stdin.close()", "it said nothing"),
        ("import os, time; os.close(1); os.close(2); time.sleep(60)", "it said nothing"),
        ("import time; print('hello', flush=True); time.sleep(60)", "hello"),
        ("print('ready 4194399', flush=True)", "ready 4194399"),
    ],
)
def test_a_guardian_that_is_not_ready_means_no_claim(
    host_tree: HostTree, monkeypatch: pytest.MonkeyPatch, program: str, said: str
) -> None:
    monkeypatch.setattr(guardian_start, "READY_WITHIN_SECONDS", 0.5)
    root = host_tree()
    with pytest.raises(GuardianError, match=said):
        take_claim(
            root,
            run="r",
            owner="o",
            knobs=[THP_2M],
            lease_seconds=60,
            guardian_command=[sys.executable, "-c", program],
        )
    assert claim_status(root) is None
    (closed,) = closed_journals(root)
    assert (closed.outcome, closed.changes) == (Outcome.NOT_STARTED, ())


def test_a_guardian_that_is_not_there_means_no_claim(host_tree: HostTree, tmp_path: Path) -> None:
    root = host_tree()
    with pytest.raises(GuardianError, match="No such file"):
        take_claim(
            root,
            run="r",
            owner="o",
            knobs=[THP_2M],
            lease_seconds=60,
            guardian_command=[str(tmp_path / "nowhere")],
        )
    assert claim_status(root) is None


def test_what_status_and_errors_say_survives_a_trip_through_ray(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    status = claim_status(root)
    assert pickle.loads(pickle.dumps(status)) == status  # noqa: S301
    with pytest.raises(HostClaimed) as caught:
        claimer(root, run="r2")
    again = pickle.loads(pickle.dumps(caught.value))  # noqa: S301
    assert str(again) == str(caught.value)
