"""What the parts of a runner share: the run, where it is written down, and what is under way with each host."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from agents.messages import (
    Apply,
    Begin,
    Claim,
    End,
    Ended,
    Poll,
    Preflight,
    Reading,
    Release,
    Request,
    Revert,
    Survey,
    WorkloadSpec,
)
from fleetexp.domain import BrokenBy, PeriodPlan, PeriodState, Plan
from fleetexp.orchestrator.entries import Entries
from fleetexp.orchestrator.fleet import Fleet
from fleetexp.orchestrator.guardrails import Tripwires
from fleetexp.orchestrator.ledger import Ledger
from fleetexp.orchestrator.machine import Machine
from fleetexp.orchestrator.messages import Collect, Event, Record
from fleetexp.orchestrator.patience import PATIENCE
from fleetexp.orchestrator.polls import Polls
from fleetexp.store.records import EventRecord, PeriodEnd
from fleetexp.store.store import Store

log = logging.getLogger(__name__)

ANSWER_WITHIN: dict[type, float] = {
    kind: seconds * PATIENCE
    for kind, seconds in (
        (Survey, 45.0),
        (Preflight, 45.0),
        (Claim, 45.0),
        (Apply, 300.0),
        (Begin, 600.0),
        (End, 90.0),
        (Revert, 120.0),
        (Release, 30.0),
    )
}


@dataclass(slots=True)
class Traffic:
    """What has come in from all hosts since this orchestrator started."""

    polls_answered: int = 0
    readings_stored: int = 0
    newest_reading_at: datetime | None = None

    def came(self, readings: Sequence[Reading]) -> None:
        """Note a poll that was answered, and its readings stored."""
        self.polls_answered += 1
        self.readings_stored += len(readings)
        if readings and (self.newest_reading_at is None or readings[-1].taken_at > self.newest_reading_at):
            self.newest_reading_at = readings[-1].taken_at


@dataclass(slots=True, kw_only=True)
class Desk:
    """One run at work."""

    run_id: int
    claim_name: str
    owner: str
    plan: Plan
    store: Store
    fleet: Fleet
    machine: Machine
    ledger: Ledger
    entries: Entries = field(init=False)  # set by whoever puts the desk up
    tripwires: Tripwires
    restart: Mapping[str, WorkloadSpec]
    clock: Callable[[], float]
    now: Callable[[], datetime]
    poll_every: float
    period_ids: dict[tuple[str, int, int], int]  # (host, place in its schedule, attempt) -> number in the store
    events: deque[Event] = field(default_factory=deque)  # what the machine has not heard of yet
    polls: Polls = field(default_factory=Polls)
    traffic: Traffic = field(default_factory=Traffic)
    latest: dict[str, float] = field(default_factory=dict)  # metric -> the value that was reported last
    acknowledged: dict[str, int] = field(default_factory=dict)
    collects: dict[str, Collect] = field(default_factory=dict)  # an End is under way
    closing: dict[str, tuple[Collect, Ended]] = field(default_factory=dict)  # ended; the stream is not yet stored
    # Reverted, the rest of the stream still to be stored; a poll that was under way then does not know it all.
    releasing: dict[str, Poll | None] = field(default_factory=dict)
    reconnecting: set[str] = field(default_factory=set)
    drifting: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # lost in this turn: what else they said in it is void

    def send(self, host: str, request: Request) -> None:
        self.fleet.send(host, request, ANSWER_WITHIN[type(request)])

    def poll(self, host: str) -> None:
        poll = Poll(acknowledged=self.acknowledged.get(host, 0))
        self.polls.sent(host, poll, self.clock())
        self.fleet.send(host, poll, max(1.0, self.plan.safety.lease_seconds / 2))

    def release(self, host: str) -> None:
        self.releasing.pop(host, None)
        self.polls.drop(host)
        self.send(host, Release())

    def lose(self, host: str) -> None:
        """Forget everything that is under way with a host."""
        self.fleet.forget(host)
        self.polls.lose(host)
        for by_host in (self.closing, self.collects, self.releasing):
            by_host.pop(host, None)
        self.reconnecting.discard(host)
        self.drifting.discard(host)
        self.gone.add(host)

    def note(self, record: Record) -> None:
        """Write to the audit trail, and to the log."""
        kind, detail, host = record.kind, record.detail, record.host
        where = f"{host}: " if host else ""
        said = f"{where}{kind.replace('_', ' ')}{': ' if detail else ''}{detail}"
        log.info("%s", said, extra={"run_id": self.run_id, "host": host, "event": kind})
        event = EventRecord(
            at=self.now(),
            host=host,
            period_id=0,
            kind=kind,
            detail=detail,
            state=record.goal,
            cause=record.cause,
            stage=record.stage,
        )
        self.ledger.add(self.entries.events, event)

    def end(self, period_id: int, reason: str, broken_by: BrokenBy) -> None:
        """Strike out a period that is over."""
        end = PeriodEnd(
            period_id=period_id,
            ended_at=self.now(),
            state=PeriodState.INVALID,
            reason=reason,
            broken_by=broken_by,
        )
        self.ledger.add(self.entries.ends, end)

    def id_of(self, host: str, period: PeriodPlan) -> int:
        return self.period_ids[host, period.index, period.attempt]

    def is_current(self, host: str, period_id: int) -> bool:
        """Whether this is still the period that the machine has the host in; an answer may come too late for it."""
        period = self.machine.units[host].current
        return period is not None and self.period_ids.get((host, period.index, period.attempt)) == period_id
