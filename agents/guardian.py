"""The guardian: a small process outside Ray that undoes a claim when its lease runs out, whoever has died.

It watches one record, the lease, and sleeps until that is due. SIGTERM (a service being stopped) makes it undo at once;
SIGINT and SIGHUP are ignored. Everything it needs is imported and opened before it says that it is ready.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from agents.errors import AgentError, JournalError
from agents.host_lock import HostLock
from agents.journal import Journal, RestoreOutcome
from agents.knob_restore import kill_guarded, restore_journaled
from agents.lease import GuardianNote, GuardianState, Lease, LeaseState, Phase
from agents.messages import KnobReason
from agents.process import is_alive, mark_process, process_named, send_signal
from agents.state_files import StateFolder
from agents.sysroot import FolderRoot, SysRoot

log = logging.getLogger("fleetexp.guardian")

READY = b"ready "
LOG_NAME = "guardian.log"
TICK_SECONDS = 1.0
LOCK_WAIT_SECONDS = 1.6  # a little longer than an undo waits for pages; twice this is within the promise
_LONGEST_PAUSE_SECONDS = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)
_MCL_CURRENT_AND_FUTURE = 3


class Guardian:
    """Guard one claim of one host until it is over."""

    def __init__(self, root: SysRoot, journal: Journal, lease: Lease, note: GuardianNote) -> None:
        self._root = root
        self._journal = journal
        self._lease = lease
        self._note = note
        self._claim = journal.header.claim
        self._lock = HostLock(root.state_dir)
        self._last = LeaseState(claim=self._claim, expires_at_boot_seconds=0.0, over=False, clock=root.clock)

    @classmethod
    def of(cls, root: SysRoot, claim: str) -> Guardian:
        """Open what is needed; JournalError where this is not the claim that holds the host."""
        journal, lease, note = (
            Journal.open(root.state_dir, clock=root.clock),
            Lease.open(root.state_dir, clock=root.clock),
            GuardianNote.open(root.state_dir),
        )
        if journal is None or lease is None or note is None or journal.header.claim != claim:
            raise JournalError(f"claim {claim} does not hold this host", str(root.state_dir), "claim the host again")
        guardian = cls(root, journal, lease, note)
        guardian._state()
        guardian._say(Phase.WATCHING)
        return guardian

    def watch(self) -> None:
        """Return once the claim is over: released by its agent, or undone here."""
        while True:
            state = self._state()
            if self._is_over(state):
                return
            if state.expired:
                if self._undo(RestoreOutcome.LEASE_EXPIRED):
                    return
                continue
            got = _wait(min(TICK_SECONDS, state.remaining_seconds))
            if got == signal.SIGTERM and self._undo(RestoreOutcome.GUARDIAN_STOPPED):
                return

    def _state(self) -> LeaseState:
        """Read the lease; where that can't be done, what was read last still holds, and runs out."""
        with suppress(JournalError):
            self._last = self._lease.read()
        return self._last

    def _is_over(self, state: LeaseState) -> bool:
        return state.over or state.claim != self._claim

    def _undo(self, outcome: RestoreOutcome) -> bool:
        """Take the host over and put it back, however long it takes. False where the lease was renewed after all."""
        self._take_lock()
        try:
            state = self._state()
            if self._is_over(state) or not self._journal.is_open():
                return True
            if outcome is RestoreOutcome.LEASE_EXPIRED and not state.expired:
                return False
            self._say(Phase.UNDOING)
            pause, done = 0.2, self._try_once(outcome, repeated=False)
            while not done:
                self._lock.release()
                _wait(pause)
                pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
                if self._got_lock(LOCK_WAIT_SECONDS):  # else a person is restoring, or the next claim looks: their turn
                    done = not self._journal.is_open() or self._try_once(outcome, repeated=True)
            return True
        finally:
            self._lock.release()

    def _try_once(self, outcome: RestoreOutcome, *, repeated: bool) -> bool:
        kill_guarded(self._root, self._journal)
        changes = restore_journaled(self._root, self._journal, KnobReason.GUARDIAN, repeated=repeated)
        problems = [change.error for change in changes if change.error]
        if problems:
            log.error("claim %s is not undone yet: %s", self._claim, "; ".join(problems))
            self._say(Phase.STUCK, problems[0])
            return False
        self._journal.close(outcome, self._why(outcome))
        with suppress(JournalError):
            self._lease.finish(self._claim)
        self._say(Phase.DONE)
        return True

    def _why(self, outcome: RestoreOutcome) -> str:
        header = self._journal.header
        if outcome is RestoreOutcome.GUARDIAN_STOPPED:
            return "the guardian was told to terminate"
        agent = process_named(self._root, header.agent)
        stands = "its process is unknown" if agent is None else "is still alive" if is_alive(agent) else "is dead"
        return f"the lease of {header.lease_seconds:g} s ran out; the agent {stands}"

    def _take_lock(self) -> None:
        """Take the host lock; whoever still holds it past the end of the lease is stalled, and is killed.

        A killed process never comes back to user code, so from then on nobody writes but us.
        """
        while not self._got_lock(LOCK_WAIT_SECONDS):
            state = self._state()
            if self._is_over(state):
                return
            if state.expired:
                if self._got_lock(0):  # whoever has just let go of it is not killed for that
                    return
                holder = process_named(self._root, self._lock.holder())
                if holder is not None and holder.pid != os.getpid():
                    log.warning("killing process %d: it has held the host lock past the end of the lease", holder.pid)
                    send_signal(holder, signal.SIGKILL)
                self._got_lock(LOCK_WAIT_SECONDS)
                return

    def _got_lock(self, within_seconds: float) -> bool:
        """Try for the host lock; where its folder is gone, nobody else can have it either."""
        try:
            return self._lock.acquire(within_seconds)
        except JournalError:
            return True

    def _say(self, phase: Phase, detail: str = "") -> None:
        state = GuardianState(claim=self._claim, phase=phase, process=mark_process(os.getpid()), detail=detail)
        try:
            self._note.write(state)
        except JournalError:
            log.exception("the guardian's note could not be written")


def _wait(seconds: float) -> signal.Signals | None:
    """Sleep, or return early with the signal that came."""
    got = signal.sigtimedwait(_SIGNALS, max(0.0, seconds))
    return None if got is None else signal.Signals(got.si_signo)


def _harden() -> None:
    """Outlive the workload: last to be killed for memory, never paged out, not starved. Each where allowed."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text("fleetexp-guard")
    for score in ("-1000", "0"):
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(score)
            break
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mlockall(_MCL_CURRENT_AND_FUTURE)


def _let_go(state_dir: Path) -> None:
    """Let go of the pipe to the agent; from here on only the log hears of us."""
    try:
        log_fd = StateFolder(state_dir).create(LOG_NAME)
    except (OSError, JournalError):
        log_fd = os.open(os.devnull, os.O_WRONLY)
    os.dup2(log_fd, 1)
    os.dup2(log_fd, 2)
    os.close(log_fd)


def main(arguments: list[str]) -> int:
    """Run as `ROOT CLAIM`: leave the parent behind, open the claim, say 'ready PID' on stdout, and watch."""
    root_path, claim = arguments
    if os.fork():
        os._exit(0)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    root = FolderRoot(root_path)
    try:
        guardian = Guardian.of(root, claim)
    except AgentError as error:
        os.write(1, f"{error}\n".encode())
        return 1
    _harden()
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    started = time.monotonic()
    os.write(1, READY + b"%d\n" % os.getpid())
    _let_go(root.state_dir)
    log.info("guarding claim %s of %s", claim, root)
    guardian.watch()
    log.info("claim %s is over after %.0f s", claim, time.monotonic() - started)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
