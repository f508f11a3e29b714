"""Nothing is written once a claim has ended, and a dead one is undone by whoever comes next."""

from __future__ import annotations

import os
import threading

import pytest

from agents.claim import ClaimStanding, HostClaim, RestoreOutcome, claim_status, closed_journals, restore, take_claim
from agents.errors import HostClaimed, JournalError, LeaseExpired, RestoreIncomplete
from agents.host_lock import HostLock
from agents.knobs import find_knob
from agents.messages import KnobReason
from agents.sysroot import FolderRoot
from tests.agents.claim.claims import BOOT_ID, THP_2M, Claimer, HostTree, Refusing, arm, reads


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
    assert closed_journals(root, run="r1")[0].outcome is RestoreOutcome.RESTORED
    assert restore(root) == ()
    for act in (claim.renew, claim.revert, lambda: claim.apply(arm(thp_2M="never"))):
        with pytest.raises(LeaseExpired, match="ended by its guardian or a restore"):
            act()
    assert reads(root, THP_2M) == "inherit"
    claim.release()
    assert closed_journals(root)[0].outcome is RestoreOutcome.RESTORED


def test_a_dead_claim_is_undone_by_the_next_one_and_reported(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    old = claimer(root, THP_2M, "thp/enabled")
    old.apply(arm(thp_2M="always"))
    old._lease.extend(old._header.claim, 0.0)
    status = claim_status(root)
    assert status is not None
    assert (status.standing, status.lease_remaining_seconds) == (ClaimStanding.DEAD, 0.0)
    new = claimer(root, THP_2M, run="r2")
    assert [(change.knob, change.before, change.after) for change in new.leftovers] == [(THP_2M, "always", "inherit")]
    assert new.found == {THP_2M: "inherit"}
    (closed,) = closed_journals(root)
    assert closed.outcome is RestoreOutcome.TAKEN_OVER
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
    assert (status.standing, status.changed, status.agent_alive) == (ClaimStanding.REBOOTED, (), False)
    claim = claimer(root, THP_2M, run="r2")
    assert (claim.leftovers, claim.found) == ((), {THP_2M: "never"})
    assert closed_journals(root, run="r1")[0].outcome is RestoreOutcome.REBOOTED
    claim.release()


def test_restore_after_a_reboot_has_nothing_to_write(host_tree: HostTree, claimer: Claimer) -> None:
    root = host_tree()
    claimer(root, THP_2M).apply(arm(thp_2M="always"))
    (root.root / BOOT_ID).write_text("another boot\n")
    assert restore(root) == ()
    assert reads(root, THP_2M) == "always"
    assert closed_journals(root)[0].outcome is RestoreOutcome.REBOOTED


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
