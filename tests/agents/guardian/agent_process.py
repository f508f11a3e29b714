"""An agent in a process of its own, to be killed or stopped, and how its host reads then."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from agents.claim import ClaimStanding, RestoreOutcome, claim_status, closed_journals
from agents.knobs import find_knob, read_knob
from agents.lease import Phase
from agents.process import ProcessMark, mark_process
from agents.recovery import read_note
from agents.sysroot import FolderRoot

HostTree = Callable[..., FolderRoot]
Wait = Callable[..., float]
THP_2M = "thp/2048kB/enabled"
PATH_2M = "sys/kernel/mm/transparent_hugepage/hugepages-2048kB/enabled"
PROMISE_SECONDS = 5.0
LAST_SECONDS = 1.0  # from `let_lease_end` on
LEASE_SECONDS = 60.0


AGENT = """
import os, sys
from dataclasses import replace
from agents.claim import take_claim
from agents.host_lock import HostLock
from agents.messages import Arm
from tests.agents.guardian.own_tree import COMMAND, OwnTree

os.set_inheritable(os.open("/dev/zero", os.O_RDONLY), True)
root, lease, knobs = OwnTree(sys.argv[1]), float(sys.argv[2]), ["thp/2048kB/enabled"]
claim = take_claim(root, run="r1", owner="agent", knobs=knobs, lease_seconds=lease, guardian_command=COMMAND)
print("claimed", flush=True)
for line in sys.stdin:
    word, _, value = line.strip().partition(" ")
    try:
        match word:
            case "apply":
                claim.apply(Arm(name="a", knobs={"thp/2048kB/enabled": value}))
            case "renew":
                claim.renew()
            case "last":
                claim._header = replace(claim._header, lease_seconds=float(value))
                claim.renew()
            case "guard":
                claim.guard_process(int(value))
            case "hold":
                lock = HostLock(root.state_dir).__enter__()
            case "revert":
                claim.revert()
        print("ok", flush=True)
    except Exception as error:
        print(type(error).__name__, flush=True)
"""


class Agent:
    """An agent in a process of its own that does what it is told, a line at a time."""

    def __init__(self, root: FolderRoot, lease_seconds: float) -> None:
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-c", AGENT, str(root.root), str(lease_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd=Path(__file__).parents[3],
        )
        try:
            self.guardian = self._guardian()
        except BaseException:
            self.kill()
            self.process.communicate()
            raise

    def _guardian(self) -> ProcessMark:
        assert self._answer() == "claimed"
        status = claim_status(self.root)
        assert status is not None
        assert status.guardian_pid is not None
        mark = mark_process(status.guardian_pid)
        assert mark is not None
        return mark

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return self._answer()

    def let_lease_end(self) -> None:
        """Have the lease end in a second; until then a test has all the time it needs."""
        assert self.tell(f"last {LAST_SECONDS}") == "ok"

    def kill(self) -> None:
        """SIGKILL everything in the agent's session that is in its process group, as a raylet would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def reads(root: FolderRoot) -> str:
    return read_knob(root, find_knob(root, THP_2M))


def comes_back(root: FolderRoot) -> None:
    """Have the knob that was gone be there, changed: at once, as a guardian may write it at any moment."""
    fresh = root.root / "fresh"
    fresh.write_text("always\n")
    fresh.rename(root.root / PATH_2M)


def only_closed(root: FolderRoot) -> tuple[RestoreOutcome, str]:
    (closed,) = closed_journals(root)
    return closed.outcome, closed.detail


def guardian_of(root: FolderRoot) -> ProcessMark:
    status = claim_status(root)
    assert status is not None
    note = read_note(root, status.claim)
    assert note is not None
    assert note.process is not None
    return note.process


def standing(root: FolderRoot) -> ClaimStanding | None:
    status = claim_status(root)
    return None if status is None else status.standing


def phase(root: FolderRoot) -> Phase | None:
    status = claim_status(root)
    note = None if status is None else read_note(root, status.claim)
    return None if note is None else note.phase
