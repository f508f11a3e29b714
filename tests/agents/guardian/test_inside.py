"""The guardian in this process: expired leases, renewals at the last moment, locks that are held."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agents import guardian as guardian_module
from agents.claim import HostClaim, RestoreOutcome, closed_journals, take_claim
from agents.errors import JournalError
from agents.guardian import Guardian
from agents.host_lock import HostLock
from agents.lease import Phase, boot_seconds
from agents.messages import Arm, KnobReason
from agents.process import mark_process
from agents.sysroot import FolderRoot
from tests.agents.guardian.agent_process import PATH_2M, THP_2M, HostTree, only_closed, phase, reads
from tests.agents.guardian.own_tree import OwnTree
from tests.state_fuzz import record_file

pytestmark = pytest.mark.usefixtures("no_guardian_left")


@pytest.fixture
def here(host_tree: HostTree) -> Iterator[Callable[..., tuple[FolderRoot, HostClaim, Guardian]]]:
    """Return a host, a claim with no process to guard it, and the guardian to be run in this one."""
    made: list[HostClaim] = []

    def make(*, root: FolderRoot | None = None, lease_seconds: float = 60.0) -> tuple[FolderRoot, HostClaim, Guardian]:
        root = root or host_tree()
        claim = take_claim(root, run="r1", owner="o", knobs=[THP_2M], lease_seconds=lease_seconds, guardian_command=())
        made.append(claim)
        return root, claim, Guardian.of(root, claim._header.claim)

    yield make
    for claim in made:
        claim.leave()


def let_lease_end(claim: HostClaim, *, in_seconds: float = 0.0) -> None:
    claim._lease.extend(claim._header.claim, boot_seconds() + in_seconds)


def test_the_guardian_undoes_what_has_expired(here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]]) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    let_lease_end(claim)
    guardian.watch()
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is RestoreOutcome.LEASE_EXPIRED


@pytest.mark.parametrize(
    "said", [b'{"claim": "%b", "expires": NaN, "over": false}', b"[1]", b"7", b"[" * 900, b"", b'{"claim": "%b"}']
)
def test_a_lease_that_says_what_no_lease_can_runs_out_as_it_was_read_last(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], said: bytes
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    let_lease_end(claim, in_seconds=0.2)
    guardian._state()
    (root.state_dir / "lease").write_bytes(record_file(said.replace(b"%b", claim._header.claim.encode())))
    guardian.watch()
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is RestoreOutcome.LEASE_EXPIRED


def test_the_guardian_leaves_a_claim_that_somebody_else_has_ended(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here()
    claim._lease.finish(claim._header.claim)
    claim._journal.close(RestoreOutcome.RELEASED)
    guardian.watch()
    assert only_closed(root)[0] is RestoreOutcome.RELEASED
    root, claim, guardian = here(root=root)
    claim._journal.close(RestoreOutcome.RELEASED)  # and died before it could say so in the lease
    (root.root / PATH_2M).write_text("always\n")
    let_lease_end(claim)
    guardian.watch()
    assert reads(root) == "always"


def test_a_guardian_is_for_the_claim_that_holds_the_host(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, _, _ = here()
    with pytest.raises(JournalError, match="does not hold this host"):
        Guardian.of(root, "another")


def test_a_lease_renewed_at_the_last_moment_counts(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    take_lock = guardian._take_lock

    def renewed_first() -> None:
        monkeypatch.undo()
        claim._lease.extend(claim._header.claim, guardian._state().expires_at_boot_seconds + 0.3)
        assert reads(root) == "always"
        take_lock()

    monkeypatch.setattr(guardian, "_take_lock", renewed_first)
    let_lease_end(claim)
    guardian.watch()
    assert only_closed(root)[0] is RestoreOutcome.LEASE_EXPIRED
    assert reads(root) == "inherit"


def test_a_damaged_lease_runs_out_as_it_was_last_read(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    let_lease_end(claim, in_seconds=0.2)
    guardian._state()
    (root.state_dir / "lease").write_bytes(b"garbage")
    guardian.watch()
    assert reads(root) == "inherit"


def test_what_cannot_be_put_back_is_said_and_tried_again(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], host_tree: HostTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Late(OwnTree):
        refusals = 0

        def write(self, path: str, value: bytes) -> None:
            if value == b"inherit" and self.refusals > 0:
                type(self).refusals -= 1
                raise OSError(16, "Device or resource busy")
            super().write(path, value)

    root, claim, guardian = here(root=Late(host_tree().root))
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr("agents.knob_restore._FIRST_PAUSE_SECONDS", 60.0)
    Late.refusals = 2
    said: list[tuple[Phase, str]] = []
    say = guardian._say
    monkeypatch.setattr(guardian, "_say", lambda phase, detail="": (said.append((phase, detail)), say(phase, detail)))
    let_lease_end(claim)
    guardian.watch()
    assert [phase for phase, _ in said] == [Phase.UNDOING, Phase.STUCK, Phase.STUCK, Phase.DONE]
    assert "busy" in said[1][1]
    assert reads(root) == "inherit"
    errors = [change.error for change in closed_journals(root)[0].changes if change.reason is KnobReason.GUARDIAN]
    assert len(errors) == 2  # the first refusal and the success; what repeats fills no journal
    assert errors[1] is None


def test_somebody_else_may_put_the_host_back_while_the_guardian_is_stuck(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    (root.root / PATH_2M).unlink()
    monkeypatch.setattr("agents.knob_restore._FIRST_PAUSE_SECONDS", 60.0)

    def person(_: float) -> None:
        (root.root / PATH_2M).write_text("always\n")
        claim.revert()
        claim._journal.close(RestoreOutcome.RESTORED)

    wait = guardian_module._wait
    monkeypatch.setattr(
        guardian_module, "_wait", lambda seconds: person(seconds) if phase(root) is Phase.STUCK else wait(seconds)
    )
    let_lease_end(claim)
    guardian.watch()
    assert reads(root) == "inherit"
    assert only_closed(root)[0] is RestoreOutcome.RESTORED


def test_a_note_that_cannot_be_written_stops_nothing(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]],
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    guardian._note.close()
    let_lease_end(claim)
    guardian.watch()
    assert reads(root) == "inherit"


def test_whoever_holds_the_lock_past_the_end_of_the_lease_is_killed(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_WAIT_SECONDS", 0.3)
    program = (
        "import pathlib, sys, time; from agents.host_lock import HostLock\n"
        "with HostLock(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    stalled = subprocess.Popen(
        [sys.executable, "-c", program, str(root.state_dir)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    with stalled:
        assert stalled.stdout is not None
        assert stalled.stdout.readline() == b"held\n"
        let_lease_end(claim)
        guardian.watch()
    assert stalled.returncode == -signal.SIGKILL
    assert reads(root) == "inherit"


def test_whoever_has_just_let_go_of_the_lock_is_not_killed(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name stands in the lock until the next one signs: between the look and the kill it may have gone on."""
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    bystander = subprocess.Popen(["sleep", "60"])
    signed, mark = HostLock(root.state_dir), mark_process(bystander.pid)
    assert mark is not None
    monkeypatch.setattr("agents.host_lock.mark_process", lambda _: mark)
    assert signed.acquire(1)
    monkeypatch.setattr(guardian_module, "LOCK_WAIT_SECONDS", 0.05)
    try_for_it = guardian._lock.acquire

    def in_vain_then_free(seconds: float) -> bool:
        got = try_for_it(seconds)
        signed.release()
        return got

    monkeypatch.setattr(guardian._lock, "acquire", in_vain_then_free)
    let_lease_end(claim)
    guardian.watch()
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
    assert reads(root) == "inherit"


def test_a_guardian_told_to_terminate_waits_for_a_write_under_way(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_WAIT_SECONDS", 0.02)
    monkeypatch.setattr(guardian_module, "_wait", lambda _: signal.SIGTERM)
    lock = HostLock(root.state_dir)
    assert lock.acquire(1)
    release = threading.Timer(0.2, lock.release)
    release.start()
    guardian.watch()
    release.join()
    assert reads(root) == "inherit"
    assert only_closed(root) == (RestoreOutcome.GUARDIAN_STOPPED, "the guardian was told to terminate")


def test_a_lock_that_nobody_lets_go_of_is_passed_by(
    here: Callable[..., tuple[FolderRoot, HostClaim, Guardian]], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, claim, guardian = here()
    claim.apply(Arm(name="a", knobs={THP_2M: "always"}))
    monkeypatch.setattr(guardian_module, "LOCK_WAIT_SECONDS", 0.1)
    with HostLock(root.state_dir):  # held by this very process, which is not killed for it
        let_lease_end(claim)
        guardian.watch()
    assert reads(root) == "inherit"
