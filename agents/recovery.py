"""What to do about a claim that somebody else left on a host: look at it, end it, or wait for its guardian."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from agents.errors import AgentError, HostClaimed, JournalError, RestoreIncomplete
from agents.host_lock import HostLock
from agents.journal import ClosedJournal, Journal, RestoreOutcome
from agents.journal import closed_journals as journals_in
from agents.knob_restore import KnobDrift, differences, kill_guarded, restore_journaled
from agents.lease import GuardianNote, GuardianState, Lease, LeaseState, Phase
from agents.messages import KnobChange, KnobReason
from agents.own_cgroup import end_left_over_cgroups
from agents.process import ProcessMark, is_alive, is_stopped, process_named, send_signal
from agents.state_files import StateFolder
from agents.sysroot import SysRoot

log = logging.getLogger(__name__)

_BOOT_ID = "proc/sys/kernel/random/boot_id"


class ClaimStanding(StrEnum):
    """How an open claim stands."""

    HELD = "held"  # its lease runs
    UNDOING = "undoing"  # its lease has run out, and its guardian is at work
    DEAD = "dead"  # its lease has run out, and nobody is left to undo it
    REBOOTED = "rebooted"  # it was taken before the last boot


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimStatus:
    """The claim that holds a host, as it stands now. `changed` is what doesn't read as it was found."""

    claim: str
    run: str
    owner: str
    claimed_at: datetime
    standing: ClaimStanding
    lease_remaining_seconds: float
    agent_alive: bool
    guardian_pid: int | None
    guardian_alive: bool
    guardian_detail: str
    changed: tuple[KnobDrift, ...]


def boot_id(root: SysRoot) -> str:
    """Return the id of this boot of the host; JournalError where it can't be read."""
    try:
        return root.read(_BOOT_ID).decode(errors="replace").strip()
    except OSError as error:
        raise JournalError(
            f"the boot id can't be read: {error.strerror}", _BOOT_ID, "without it a reboot can't be told: mount /proc"
        ) from error


def working_guardian(root: SysRoot, state: GuardianState | None) -> ProcessMark | None:
    """Return the guardian's process where it runs and isn't stopped."""
    process = None if state is None or state.phase is Phase.DONE else process_named(root, state.process)
    return process if process is not None and is_alive(process) and not is_stopped(process) else None


def read_lease(root: SysRoot, claim: str) -> LeaseState | None:
    """Return the lease of this claim; None where it is gone, damaged or of another claim."""
    with suppress(AgentError):
        lease = Lease.open(root.state_dir, read_only=True, clock=root.clock)
        if lease is not None:
            try:
                state = lease.read()
            finally:
                lease.close()
            return state if state.claim == claim else None
    return None


def read_note(root: SysRoot, claim: str) -> GuardianState | None:
    """Return what the guardian of this claim wrote down; None where it is gone, damaged or of another claim."""
    with suppress(AgentError):
        note = GuardianNote.open(root.state_dir, read_only=True)
        if note is not None:
            try:
                state = note.read()
            finally:
                note.close()
            return state if state.claim == claim else None
    return None


def standing_of(root: SysRoot, journal: Journal) -> ClaimStanding:
    """Judge an open claim by boot, lease and guardian."""
    header = journal.header
    if header.boot_id != boot_id(root):
        return ClaimStanding.REBOOTED
    lease, note = read_lease(root, header.claim), read_note(root, header.claim)
    taken_over = note is not None and note.has_taken_over
    if lease is not None and not lease.over and not lease.expired and not taken_over:
        return ClaimStanding.HELD
    return ClaimStanding.DEAD if working_guardian(root, note) is None else ClaimStanding.UNDOING


def end_claim(root: SysRoot, journal: Journal, outcome: RestoreOutcome, detail: str) -> tuple[KnobChange, ...]:
    """Undo a claim and close its journal, for whoever holds the host lock.

    After a reboot nothing is written. Where a knob doesn't come back, that is in its change and the journal stays open.
    """
    header = journal.header
    changes: tuple[KnobChange, ...] = ()
    if header.boot_id != boot_id(root):
        outcome, detail = RestoreOutcome.REBOOTED, "the host has booted since: its kernel came up without these changes"
    else:
        kill_guarded(root, journal)
        changes = restore_journaled(root, journal, KnobReason.RESTORE)
        if not all(change.ok for change in changes):
            return changes
    journal.close(outcome, detail)
    note = read_note(root, header.claim)
    guardian = None if note is None else process_named(root, note.process)
    with suppress(AgentError):
        lease = Lease.open(root.state_dir)
        if lease is not None:
            try:
                if lease.read().claim == header.claim:
                    lease.finish(header.claim)
            finally:
                lease.close()
    if guardian is not None and header.boot_id == boot_id(root):
        send_signal(guardian, signal.SIGUSR1)  # it looks at the lease again, and leaves
    return changes


def incomplete(changes: Sequence[KnobChange], run: str) -> RestoreIncomplete:
    """Say which knobs of a run did not come back."""
    failed = [change for change in changes if not change.ok]
    return RestoreIncomplete(
        f"run {run} left {', '.join(f'{change.knob}={change.after} (was {change.wanted})' for change in failed)}",
        where="; ".join(change.error or "" for change in failed),
        remedy="end what keeps the kernel from taking it back, then 'fleetexp restore'",
    )


def held_error(root: SysRoot, journal: Journal, standing: ClaimStanding) -> HostClaimed:
    """Say who holds the host, how long yet, and what to do about it."""
    header = journal.header
    what = f"the host is claimed by run {header.run} of {header.owner} since {header.claimed_at:%Y-%m-%d %H:%M:%S} UTC"
    if standing is ClaimStanding.UNDOING:
        note = read_note(root, header.claim)
        detail = note.detail if note is not None else ""
        return HostClaimed(
            f"{what}; its lease has run out and its guardian is still putting the host back",
            where=detail or str(root.state_dir),
            remedy="try again shortly; 'fleetexp doctor' shows what is in the way",
        )
    lease = read_lease(root, header.claim)
    left = lease.remaining_seconds if lease is not None else 0.0
    return HostClaimed(
        f"{what}; its lease lasts another {left:.0f} s",
        where=str(root.state_dir),
        remedy="wait for that run or end it with 'fleetexp abort'; 'fleetexp restore --force' undoes it here and now",
    )


def restore(root: SysRoot, *, force: bool = False) -> tuple[KnobChange, ...]:
    """Undo the claim that holds this host, if there is one; with `force` also one whose lease still runs.

    Returns a change per knob, with what went wrong in `error`; then the journal stays open. HostClaimed where the
    claim lives and `force` isn't given.
    """
    if not StateFolder(root.state_dir).exists():
        return ()
    with HostLock(root.state_dir):
        journal = Journal.open(root.state_dir, clock=root.clock)
        if root.real:
            end_left_over_cgroups()
        if journal is None:
            return ()
        try:
            standing = standing_of(root, journal)
            if standing is ClaimStanding.HELD and not force:
                raise held_error(root, journal, standing)
            return end_claim(root, journal, RestoreOutcome.RESTORED, f"restored by hand; the claim was {standing}")
        finally:
            journal.leave()


def claim_status(root: SysRoot) -> ClaimStatus | None:
    """Return the claim that holds this host, or None. Takes no lock and writes nothing."""
    journal = Journal.open(root.state_dir, read_only=True)
    if journal is None:
        return None
    try:
        header, standing = journal.header, standing_of(root, journal)
    finally:
        journal.leave()
    lease, note = read_lease(root, header.claim), read_note(root, header.claim)
    same_boot = standing is not ClaimStanding.REBOOTED
    agent, guardian = process_named(root, header.agent), None if note is None else process_named(root, note.process)
    return ClaimStatus(
        claim=header.claim,
        run=header.run,
        owner=header.owner,
        claimed_at=header.claimed_at,
        standing=standing,
        lease_remaining_seconds=lease.remaining_seconds if lease and standing is ClaimStanding.HELD else 0.0,
        agent_alive=same_boot and agent is not None and is_alive(agent),
        guardian_pid=guardian.pid if guardian is not None and same_boot else None,
        guardian_alive=same_boot and working_guardian(root, note) is not None,
        guardian_detail=note.detail if note is not None else "",
        changed=differences(root, header.found) if same_boot else (),
    )


def closed_journals(root: SysRoot, run: str | None = None) -> tuple[ClosedJournal, ...]:
    """Return how the last claims of this host ended, oldest first; of one run only, where it is named."""
    return journals_in(root.state_dir, run)
