"""A claim as its agent holds it: apply arms, notice drift, keep the lease, put back, release."""

from __future__ import annotations

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from types import MappingProxyType

from agents.errors import (
    AgentError,
    JournalError,
    KnobError,
    KnobMismatch,
    KnobRefused,
    LeaseExpired,
    RestoreIncomplete,
    UnknownKnob,
)
from agents.guardian_start import start_guardian
from agents.host_lock import HostLock
from agents.journal import Journal, RestoreOutcome
from agents.knob_restore import (
    KnobDrift,
    differences,
    make_room,
    record_if_possible,
    restore_journaled,
    restore_knobs,
    shrinking_first,
)
from agents.knobs import Knob, attempt_write, check_value, current_value, read_knob
from agents.lease import GuardianNote, Lease, Phase
from agents.messages import Arm, KnobChange, KnobReason
from agents.process import ProcessMark, is_alive, is_stopped, mark_process, send_signal
from agents.sysroot import FolderRoot, Reader, SysRoot
from agents.traced_calls import Traced
from agents.tracing.kernel_trace import KernelTrace
from agents.tracing.removal import has_tracing

log = logging.getLogger(__name__)

_LEAVING_SECONDS = 2.0
_ASK_AGAIN, _ASK_AGAIN_SECONDS = 8, 0.25


class HostClaim:
    """The hold of one run on one host, from `take_claim` to `release`.

    Everything that writes a knob happens under the host lock and only while the lease runs. `renew` and `drift` may be
    called from other threads at any time. Once the guardian, a restore or a reboot has ended the claim, every call but
    `release` raises LeaseExpired and writes nothing.
    """

    def __init__(
        self,
        root: SysRoot,
        *,
        journal: Journal,
        lease: Lease,
        note: GuardianNote,
        knobs: Sequence[Knob],
        leftovers: tuple[KnobChange, ...],
        command: Sequence[str] | None,
    ) -> None:
        header = journal.header
        self.found: Mapping[str, str] = MappingProxyType(dict(header.found))
        self.leftovers = leftovers
        self._root = root
        self._header = header
        self._journal = journal
        self._lease = lease
        self._note = note
        self._command = command
        self._guardian: ProcessMark | None = None  # as we started it, not as a file of the state says
        self._knobs = {knob.name: knob for knob in knobs}
        self._wanted = dict(header.found)
        self._readers: dict[str, Reader] = {}
        self._clock = root.clock
        self._expires = self._clock.boot_seconds() + header.lease_seconds
        self._changing = threading.Lock()
        self._ended = False
        self._untold: list[KnobChange] = []

    # ------------------------------------------------------------------ the lease
    @property
    def lease_remaining_seconds(self) -> float:
        """Seconds until the guardian undoes this claim, 0.0 once it is over."""
        return 0.0 if self._ended else max(0.0, self._expires - self._clock.boot_seconds())

    def renew(self) -> None:
        """Start the lease anew. LeaseExpired where it has run out or the guardian has taken over."""
        self._must_run()
        until = self._clock.boot_seconds() + self._header.lease_seconds
        self._lease.extend(self._header.claim, until)
        # The guardian decides with the lock held, by what it read before: what it has written down counts.
        if self._note.read().has_taken_over or not self._journal.in_place:
            raise self._expired("it has been ended by its guardian or a restore")
        self._expires = until

    def _must_run(self) -> None:
        if self._ended:
            raise self._expired("it is over")
        if self._clock.boot_seconds() >= self._expires:
            raise self._expired("its lease has run out")

    def _expired(self, why: str) -> LeaseExpired:
        return LeaseExpired(
            f"the claim of run {self._header.run} no longer holds this host: {why}",
            where=str(self._root.state_dir),
            remedy="nothing is written under it any more; the run must claim the host again",
        )

    @contextmanager
    def _mine(self) -> Iterator[None]:
        """Hold the host lock with the claim known to be ours."""
        self._must_run()
        with HostLock(self._root.state_dir):
            self._must_run()
            if not self._journal.is_open() or self._note.read().has_taken_over:
                raise self._expired("it has been ended by its guardian or a restore")
            yield

    # ------------------------------------------------------------------ knobs
    def apply(
        self, arm: Arm, reason: KnobReason = KnobReason.APPLY, *, short_pools: bool = False
    ) -> tuple[KnobChange, ...]:
        """Make every claimed knob hold the arm, or what was found where the arm doesn't name it.

        One change per knob, no-ops too. With `short_pools` a pool that the kernel granted in part holds the arm too.
        All or nothing: where a write fails, those made here are taken back and the error says which knob it was.
        RestoreIncomplete where even that fails; `revert` can still be tried.
        """
        target = self._target(arm)
        with self._changing, self._mine():
            made: list[KnobChange] = []
            before = {name: read_knob(self._root, knob) for name, knob in self._knobs.items()}
            try:
                wanted: dict[str, str] = {}
                for knob, value in shrinking_first(self._root, target):
                    wanted[knob.name] = self._write(knob, value, reason, made, short_pools=short_pools)
                self._settle(wanted, reason, made)
            except LeaseExpired:
                raise  # what was made here is the guardian's now
            except AgentError as error:
                self._untold += made
                self._take_back(before, error)
                raise
            self._wanted = wanted
            return tuple(made)

    def _target(self, arm: Arm) -> list[tuple[Knob, str]]:
        for name, value in arm.knobs.items():
            if name not in self._knobs:
                raise UnknownKnob(
                    f"arm {arm.name} sets {name}, which this claim has not journaled",
                    where=name,
                    remedy=f"claim it too; claimed are {', '.join(self._knobs) or 'none'}",
                )
            if (problem := check_value(self._knobs[name], value)) is not None:
                raise KnobRefused(problem, f"arm {arm.name}", "choose a value this kernel knows")
        return [(self._knobs[name], arm.knobs.get(name, value)) for name, value in self.found.items()]

    def _write(
        self, knob: Knob, value: str, reason: KnobReason, made: list[KnobChange], *, short_pools: bool = False
    ) -> str:
        """Journal, write, read back, journal; the change is in `made` also where it went wrong. Return what holds."""
        self._must_run()
        before = read_knob(self._root, knob)
        if before != value:
            self._journal.intend(knob.name, before, value, reason)
        change, failure = self._insist(knob, value, reason)
        change = replace(change, before=before)
        if short_pools and failure is not None and _granted_in_part(knob, change):
            change, failure = replace(change, error=None), None  # what was granted stands in `after`
        made.append(change)
        if change.before != change.after or failure is not None:
            record_if_possible(self._journal, change)
        if failure is not None:
            raise failure
        return change.after

    def _insist(self, knob: Knob, value: str, reason: KnobReason) -> tuple[KnobChange, KnobError | None]:
        """Write; ask again a few times where the kernel granted a part of the pages: it finds more as memory moves."""
        change, failure = attempt_write(self._root, knob, value, reason)
        for _ in range(_ASK_AGAIN):
            if not (knob.is_pool and isinstance(failure, KnobMismatch)):
                break
            make_room(self._root, [knob.name])
            self._clock.sleep(_ASK_AGAIN_SECONDS)
            self._must_run()
            change, failure = attempt_write(self._root, knob, value, reason)
        return change, failure

    def _settle(self, wanted: Mapping[str, str], reason: KnobReason, made: list[KnobChange]) -> None:
        """Write once more what another write has moved; KnobMismatch where two knobs won't both hold."""
        for drift in differences(self._root, wanted):
            self._write(self._knobs[drift.knob], drift.wanted, reason, made)
        if left := differences(self._root, wanted):
            raise KnobMismatch(
                f"{left[0].knob} was set to {left[0].wanted!r} and reads {left[0].actual!r} once the others are set",
                where=self._knobs[left[0].knob].path,
                remedy="two of this arm's knobs set the same thing, or another program writes it",
            )

    def _take_back(self, before: Mapping[str, str], cause: AgentError) -> None:
        """Put back what held when this apply began; RestoreIncomplete, after trying all, where that fails."""
        changes = restore_knobs(self._root, before, KnobReason.REVERT)
        self._untold += changes
        for change in changes:
            if change.before != change.after or not change.ok:
                record_if_possible(self._journal, change)
        if failed := [change for change in changes if not change.ok]:
            raise RestoreIncomplete(
                f"{cause.what}; and {', '.join(change.knob for change in failed)} could not be put back",
                where="; ".join(change.error or "" for change in failed),
                remedy="the journal keeps the original values: revert the host",
            ) from cause

    def take_untold(self) -> tuple[KnobChange, ...]:
        """Return, once, the changes that no answer has told of: those of an apply that failed and was taken back."""
        untold, self._untold = tuple(self._untold), []
        return untold

    def drift(self) -> tuple[KnobDrift, ...]:
        """Return the knobs that don't hold what was last applied, by kept descriptors; empty while we change them."""
        if not self._changing.acquire(blocking=False):
            return ()
        try:
            read = ((name, value, self._read_kept(name)) for name, value in self._wanted.items())
            return tuple(KnobDrift(knob=name, wanted=value, actual=now) for name, value, now in read if now != value)
        finally:
            self._changing.release()

    def _read_kept(self, name: str) -> str:
        try:
            if name not in self._readers:
                self._readers[name] = self._root.reader(self._knobs[name].path)
            return current_value(self._readers[name].read().decode(errors="replace"))
        except OSError:
            kept = self._readers.pop(name, None)
            if kept is not None:
                kept.close()
            return ""

    def revert(self, reason: KnobReason = KnobReason.REVERT) -> tuple[KnobChange, ...]:
        """Put every claimed knob back and read it back, also after the lease ran out if nobody else has done it.

        One change per knob, with what went wrong in `error`; all are tried. LeaseExpired where the claim has ended.
        """
        if self._ended:
            raise self._expired("it is over")
        with self._changing, ExitStack() as held:
            try:
                held.enter_context(HostLock(self._root.state_dir))
            except JournalError as error:  # then nobody else can have it either: the host comes first
                log.warning("the host is put back without its lock: %s", error)
            if not self._journal.is_open():
                raise self._expired("it has been ended by its guardian or a restore")
            changes = restore_journaled(self._root, self._journal, reason)
            self._wanted = dict(self.found)
            return changes

    # ------------------------------------------------------------------ tracing
    def trace(self, wanted: Sequence[Traced]) -> KernelTrace:
        """Have the kernel count calls from now on. Undone with the claim, as the knobs are, whoever has died."""
        with self._changing, self._mine():
            return KernelTrace.start(self._root, self._header.claim, wanted)

    # ------------------------------------------------------------------ workloads and guardian
    def guard_process(self, pid: int) -> None:
        """Have the guardian SIGKILL this workload, with the process group it leads, before it undoes the knobs.

        What else this process has started is known by its cgroups (`agents.own_cgroup`).
        """
        mark = mark_process(pid)
        if mark is not None:
            with self._mine():
                self._journal.guard(mark)

    def unguard_process(self, pid: int) -> None:
        """Say that a workload has ended. Never raises: a process that is gone is never killed anyway."""
        with suppress(AgentError), self._mine():
            self._journal.unguard(pid)

    def guardian_alive(self) -> bool:
        """Whether the guardian runs (a stopped one doesn't); always where the claim was taken with none."""
        if self._command is not None and not self._command:
            return True
        if self._ended or self._guardian is None or self._note.read().phase is Phase.DONE:
            return False
        return is_alive(self._guardian) and not is_stopped(self._guardian)

    def ensure_guardian(self) -> bool:
        """Start a new guardian where the old one has died; True where that was needed."""
        if self.guardian_alive():
            return False
        with self._mine():
            if self.guardian_alive():  # another thread saw it too, and was first
                return False
            if self._guardian is not None:
                send_signal(self._guardian, signal.SIGKILL)
            self._start_guardian()
        log.warning("the guardian of run %s had died and was started again", self._header.run)
        return True

    def start(self) -> None:
        """Start the guardian, and then the lease; where that fails the claim ends, with nothing written."""
        try:
            self._start_guardian()
            self._expires = math.inf  # while it started nothing could be written; it says itself if it has taken over
            self.renew()
        except AgentError as error:
            self._over(RestoreOutcome.NOT_STARTED, str(error))
            raise

    def _start_guardian(self) -> None:
        if self._command is None or self._command:
            assert isinstance(self._root, FolderRoot)  # noqa: S101 - `take_claim` has seen to it
            self._guardian = start_guardian(self._root, self._header.claim, self._command)

    # ------------------------------------------------------------------ the end
    def release(self) -> None:
        """End the claim once everything reads as it was found; the guardian leaves.

        RestoreIncomplete, and the claim stays, where something doesn't. Nothing to do where it has ended already.
        """
        if self._ended:
            return
        with self._changing, HostLock(self._root.state_dir):
            if self._journal.is_open():
                if left := differences(self._root, self.found):
                    raise RestoreIncomplete(
                        ", ".join(f"{drift.knob} reads {drift.actual!r}, found {drift.wanted!r}" for drift in left),
                        where=str(self._root.state_dir),
                        remedy="revert the host before it is released",
                    )
                if has_tracing(self._root, self._header.claim):
                    raise RestoreIncomplete(
                        "an instance or probes of this claim are left in the kernel's tracing",
                        where=str(self._root.state_dir),
                        remedy="revert the host before it is released",
                    )
                self._over(RestoreOutcome.RELEASED, "")
            else:
                self._over(None, "")

    def _over(self, outcome: RestoreOutcome | None, detail: str) -> None:
        """Close the journal with its outcome (None: somebody else has), send the guardian away, let go of files."""
        guardian = self._guardian
        if outcome is not None:
            self._journal.close(outcome, detail)
            with suppress(JournalError):
                self._lease.finish(self._header.claim)
        self._ended = True
        if guardian is not None and outcome is not None:
            send_signal(guardian, signal.SIGUSR1)  # it looks at the lease again, and leaves
            deadline = time.monotonic() + _LEAVING_SECONDS
            while is_alive(guardian) and time.monotonic() < deadline:
                time.sleep(0.005)
        self.leave()

    def leave(self) -> None:
        """Let go of the claim's files. Where it hasn't ended, its guardian or the agent that follows undoes it."""
        self._ended = True
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()
        self._lease.close()
        self._note.close()
        self._journal.leave()


def _granted_in_part(knob: Knob, change: KnobChange) -> bool:
    """Whether the kernel has given a pool some of the pages that were to be added, and not taken any away."""
    counts = (change.before, change.after, change.wanted)
    if not knob.is_pool or not all(count.isdecimal() for count in counts):
        return False
    before, after, wanted = map(int, counts)
    return before <= after < wanted
