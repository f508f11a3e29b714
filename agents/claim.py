"""Taking a host for a run: one claim at a time, with what an earlier one left put back first."""

from __future__ import annotations

import math
import os
import uuid
from collections.abc import Sequence
from contextlib import ExitStack

from agents.errors import AgentError, GuardianError, JournalError, KnobNotWritable
from agents.host_claim import HostClaim
from agents.host_lock import HostLock
from agents.journal import ClosedJournal, Header, Journal, RestoreOutcome
from agents.knob_restore import KnobDrift
from agents.knobs import Knob, find_knob, read_knob
from agents.lease import GuardianNote, Lease
from agents.messages import KnobChange
from agents.own_cgroup import end_left_over_cgroups
from agents.process import is_alive, mark_process, process_named
from agents.recovery import (
    ClaimStanding,
    ClaimStatus,
    boot_id,
    claim_status,
    closed_journals,
    end_claim,
    held_error,
    incomplete,
    restore,
    standing_of,
)
from agents.state_files import StateFolder
from agents.sysroot import FolderRoot, SysRoot

__all__ = [
    "ClaimStanding",
    "ClaimStatus",
    "ClosedJournal",
    "HostClaim",
    "KnobDrift",
    "RestoreOutcome",
    "claim_status",
    "closed_journals",
    "restore",
    "take_claim",
]

_GUARDIAN_WAIT_SECONDS = 6.0  # how long a new claim waits for the guardian of the last one to finish


def take_claim(
    root: SysRoot,
    *,
    run: str,
    owner: str,
    knobs: Sequence[str],
    lease_seconds: float,
    guardian_command: Sequence[str] | None = None,
) -> HostClaim:
    """Claim a host: journal what these knobs hold, start the guardian, and have it ready before anything is written.

    A claim that nobody upholds any more is undone first and reported in `leftovers`: one whose lease has run out and
    whose guardian is dead, one from before a reboot, one of this same run whose agent has died. `guardian_command`
    starts another program in the guardian's place; an empty one starts none, for hosts that are not processes.

    Raises HostClaimed (who, how long yet), UnknownKnob, KnobNotWritable, JournalError, GuardianError: nothing was
    changed; RestoreIncomplete where an earlier claim can't be undone.
    """
    if not (math.isfinite(lease_seconds) and lease_seconds > 0):
        raise AgentError(f"a lease of {lease_seconds!r} s", "lease_seconds", "give a number of seconds above 0")
    found_knobs = [find_knob(root, name) for name in dict.fromkeys(knobs)]
    for knob in found_knobs:
        if not root.writable(knob.path):
            raise KnobNotWritable(
                f"{knob.name} can't be written", knob.path, "run as root, with /sys and /proc/sys mounted read-write"
            )
    if guardian_command is None and not isinstance(root, FolderRoot):
        raise GuardianError("this root has no folder for a guardian to watch", repr(root), "pass guardian_command=()")
    try:
        StateFolder(root.state_dir).take()
    except OSError as error:
        raise JournalError(
            f"the state folder can't be made: {error.strerror}",
            str(root.state_dir),
            "run as a user who may write there",
        ) from error

    deadline = root.clock.monotonic() + _GUARDIAN_WAIT_SECONDS
    while True:
        with HostLock(root.state_dir):
            standing, leftovers = _clear_the_way(root, run, last_try=root.clock.monotonic() > deadline)
            if standing is not ClaimStanding.UNDOING:
                if root.real:
                    end_left_over_cgroups()
                claim = _open(
                    root,
                    Header(
                        claim=uuid.uuid4().hex[:12],
                        run=run,
                        owner=owner,
                        boot_id=boot_id(root),
                        claimed_at=root.clock.now(),
                        lease_seconds=lease_seconds,
                        agent=mark_process(os.getpid()),
                        found={knob.name: read_knob(root, knob) for knob in found_knobs},
                    ),
                    knobs=found_knobs,
                    leftovers=leftovers,
                    command=guardian_command,
                )
                claim.start()
                return claim
        root.clock.sleep(0.05)


def _clear_the_way(root: SysRoot, run: str, *, last_try: bool) -> tuple[ClaimStanding | None, tuple[KnobChange, ...]]:
    """Undo a claim that nobody upholds; HostClaimed where somebody does. UNDOING: its guardian needs a moment yet."""
    journal = Journal.open(root.state_dir, clock=root.clock)
    if journal is None:
        return None, ()
    try:
        header, standing = journal.header, standing_of(root, journal)
        agent = process_named(root, header.agent)
        orphaned = header.run == run and agent is not None and not is_alive(agent)
        if standing is ClaimStanding.UNDOING and not last_try:
            return standing, ()
        if standing is ClaimStanding.UNDOING or (standing is ClaimStanding.HELD and not orphaned):
            raise held_error(root, journal, standing)
        why = "its agent had died" if standing is ClaimStanding.HELD else "agent and guardian had died"
        changes = end_claim(root, journal, RestoreOutcome.TAKEN_OVER, f"undone by the next claim: {why}")
        if not all(change.ok for change in changes):
            raise incomplete(changes, header.run)
        return None, tuple(change for change in changes if change.before != change.after)
    finally:
        journal.leave()


def _open(
    root: SysRoot,
    header: Header,
    *,
    knobs: Sequence[Knob],
    leftovers: tuple[KnobChange, ...],
    command: Sequence[str] | None,
) -> HostClaim:
    """Make the claim's files, the journal last: it is what claims the host."""
    with ExitStack() as made:
        lease = Lease.create(root.state_dir, claim=header.claim, seconds=header.lease_seconds, clock=root.clock)
        made.callback(lease.close)
        note = GuardianNote.create(root.state_dir, claim=header.claim)
        made.callback(note.close)
        journal = Journal.create(root.state_dir, header, root.clock)
        made.pop_all()
    return HostClaim(root, journal=journal, lease=lease, note=note, knobs=knobs, leftovers=leftovers, command=command)
