"""The guardian of a simulated host: the real one's undo, journal and lease, woken in virtual time instead of asleep."""

from __future__ import annotations

import logging
from contextlib import suppress

from agents.errors import AgentError, JournalError
from agents.host_lock import HostLock
from agents.journal import Journal, RestoreOutcome
from agents.knob_restore import restore_journaled
from agents.lease import GuardianNote, GuardianState, Lease, Phase
from agents.messages import KnobReason
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0


class SimulatedGuardian:
    """Guards the claim that holds a host. `wake` does what is due and says when to wake it next, in seconds."""

    def __init__(self, root: SysRoot) -> None:
        self._root = root
        self._pause = _FIRST_PAUSE_SECONDS
        self._stuck = False

    def wake(self) -> float | None:
        """Undo the claim where its lease has run out; None once there is no claim to guard any more."""
        try:
            remaining = self._remaining_seconds()
            if remaining is None or remaining > 0:
                return remaining
            with HostLock(self._root.state_dir):
                return self._undo()
        except AgentError:
            log.exception("%r: the guardian will try again", self._root)
            return self._later()

    def _remaining_seconds(self) -> float | None:
        lease = Lease.open(self._root.state_dir, read_only=True, clock=self._root.clock)
        if lease is None:
            return None
        try:
            state = lease.read()
        finally:
            lease.close()
        return None if state.over else state.remaining_seconds

    def _undo(self) -> float | None:
        journal = Journal.open(self._root.state_dir, clock=self._root.clock)
        if journal is None:
            return None
        try:
            claim = journal.header.claim
            self._say(claim, Phase.UNDOING)
            changes = restore_journaled(self._root, journal, KnobReason.GUARDIAN, repeated=self._stuck)
            problems = [change.error for change in changes if change.error]
            if problems:
                self._stuck = True
                self._say(claim, Phase.STUCK, problems[0])
                return self._later()
            journal.close(RestoreOutcome.LEASE_EXPIRED, f"the lease of {journal.header.lease_seconds:g} s ran out")
            self._finish(claim)
            return None
        finally:
            journal.leave()

    def _finish(self, claim: str) -> None:
        lease = Lease.open(self._root.state_dir, clock=self._root.clock)
        if lease is not None:
            with suppress(JournalError):
                lease.finish(claim)
            lease.close()
        self._say(claim, Phase.DONE)

    def _later(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE_SECONDS)
        return pause

    def _say(self, claim: str, phase: Phase, detail: str = "") -> None:
        note = GuardianNote.open(self._root.state_dir)
        if note is None:
            return
        with suppress(JournalError):
            note.write(GuardianState(claim=claim, phase=phase, process=None, detail=detail))
        note.close()
