"""After a run that ended with some host out of reach: ask those hosts again, and see that they read as found.

Their guardians put them back when the lease ran out, and wrote down what they did. That is collected here: from a
host that answers, the writes that its guardian made are entered into the store, whatever is still changed is put
back, and every knob of the run is read and compared with what it held before the run's first write to it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from agents.messages import HostFacts, KnobChange, KnobReason, Release, Released, Request, Revert, Reverted, Survey
from fleetexp.control.run_context import ANSWER_WITHIN
from fleetexp.domain import EventKind
from fleetexp.fleets.base import Fleet, HostReply
from fleetexp.store.store import Store

WAIT_SECONDS = 0.25


@dataclass(slots=True, kw_only=True)
class Restoring:
    """One attempt at all hosts of a run that are not known to be restored; `left` says of each why it is not yet."""

    store: Store
    run_id: int
    fleet: Fleet
    left: dict[str, str]
    clock: Callable[[], float] = time.monotonic
    restored: list[str] = field(default_factory=list)
    _found: dict[str, dict[str, str]] = field(default_factory=dict)  # host -> knob -> what it held before the run
    _reverted: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Ask every host at once; returns when each is seen restored, has said no, or has not answered in time."""
        for host, change in self.store.knob_changes(self.run_id):
            self._note(host, change)
        waiting = set(self.left)
        for host in waiting:
            self._send(host, Survey())
        deadline = self.clock() + sum(ANSWER_WITHIN[kind] for kind in (Survey, Revert, Release, Survey))
        while waiting and self.clock() < deadline:
            for answer in self.fleet.receive(WAIT_SECONDS):
                if answer.host in waiting and self._take(answer):
                    waiting.discard(answer.host)

    def _send(self, host: str, request: Request) -> None:
        self.fleet.send(host, request, ANSWER_WITHIN[type(request)])

    def _take(self, answer: HostReply) -> bool:
        """Go on to the next step with a host; returns whether that was the last."""
        host = answer.host
        match answer.reply:
            case HostFacts() as facts if host in self._reverted:
                return self._verify(host, facts)
            case HostFacts():
                self._send(host, Revert())
                return False
            case Reverted(changes=changes) as reverted:
                self.store.record_knob_changes(self.run_id, host, (*reverted.earlier, *changes))
                for change in changes:
                    self._note(host, change)
                if not reverted.ok:
                    self.left[host] = "; ".join(f"{c.knob} reads {c.after!r}: {c.error}" for c in changes if c.error)
                    return True
                self._send(host, Release())
                return False
            case Released():
                self._reverted.add(host)
                self._send(host, Survey())
                return False
            case _:
                self.left[host] = f"unreachable: {answer.error}" if answer.lost else str(answer.error)
                return True

    def _note(self, host: str, change: KnobChange) -> None:
        undone = change.reason in {KnobReason.REVERT, KnobReason.GUARDIAN, KnobReason.RESTORE}
        self._found.setdefault(host, {}).setdefault(change.knob, change.wanted if undone else change.before)

    def _verify(self, host: str, facts: HostFacts) -> bool:
        wrong = [
            f"{knob} reads {facts.knobs.get(knob)!r}, was {value!r}"
            for knob, value in self._found.get(host, {}).items()
            if facts.knobs.get(knob) != value
        ]
        if wrong:
            self.left[host] = "; ".join(wrong)
            return True
        del self.left[host]
        self.restored.append(host)
        self.store.record_event(
            self.run_id, EventKind.RESTORED, "every knob reads as it was found", host=host, at=datetime.now(UTC)
        )
        return True
