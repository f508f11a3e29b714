"""What the parts of a controller share: the run, where it is written down, and a session with each host."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from agents.messages import (
    Apply,
    Begin,
    Claim,
    End,
    HostFacts,
    Poll,
    Preflight,
    Reading,
    Release,
    Request,
    Revert,
    Survey,
    WorkloadSpec,
)
from agents.timeouts import timeout_factor
from fleetexp.control.host_session import HostSession
from fleetexp.control.messages import Event, RecordFact
from fleetexp.control.poll_scheduler import LONGEST_SECONDS, LONGEST_VIRTUAL_SECONDS, PollScheduler, poll_every_seconds
from fleetexp.control.run_machine import RunMachine
from fleetexp.control.tripwires import Tripwires
from fleetexp.control.write_kinds import WriteKinds
from fleetexp.control.write_queue import WriteQueue
from fleetexp.domain import BrokenBy, PeriodPlan, PeriodState, Plan
from fleetexp.fleets.base import Fleet
from fleetexp.simulated import is_simulated
from fleetexp.store.records import EventRecord, PeriodEnd
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from fleetexp.control.central_readings import CentralJob

log = logging.getLogger(__name__)

ANSWER_WITHIN: dict[type, float] = {
    kind: seconds * timeout_factor()
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """In whose name hosts are claimed: the run's, as hosts know it, and the user's, with host and process."""

    claim_name: str
    owner: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A run to be driven: what decides, where it is done and written down, and in whose name hosts are claimed."""

    run_id: int
    holder: Holder
    machine: RunMachine
    store: Store
    fleet: Fleet
    tripwires: Tripwires
    central: CentralJob | None = None  # what is read from a metrics' server


class Elsewhere(Protocol):
    """Whoever reads metrics of the periods from somewhere else than their hosts."""

    def surveyed(self, facts: HostFacts) -> None: ...
    def asked_to_begin(self, host: str) -> None: ...
    def begun(self, period_id: int, host: str, plan: PeriodPlan, started_at: datetime) -> None: ...
    def ended(self, period_id: int, ended_at: datetime) -> None: ...
    def dropped(self, period_id: int) -> None: ...
    def once_read(self, act: Callable[[frozenset[str]], None]) -> None:
        """Do something once everything up to now is read, or can't be; it is told the metrics of which some can't."""
        ...


class RunContext:
    """One run at work. Its time is the fleet's; in a simulation a wait takes none."""

    def __init__(self, job: Job, *, observe: Callable[[Sequence[int]], None]) -> None:
        plan, store = job.machine.plan, job.store
        self.job = job
        self.run_id, self.plan, self.machine = job.run_id, plan, job.machine
        self.store, self.fleet = store, job.fleet
        self.clock, self.now = job.fleet.clock.monotonic, job.fleet.clock.now
        self.virtual = is_simulated(job.fleet.name)
        self.restart = _restarts(plan)
        self.write_queue = WriteQueue(self.clock, store.together)
        self.write_kinds = WriteKinds.of(store, job.run_id, plan, observe=observe, is_current=self.is_current)
        # (host, place in its schedule, attempt) -> number in the store
        self.period_ids = {(p.host, p.plan.index, p.plan.attempt): p.period_id for p in store.periods(job.run_id)}
        self.sessions = {unit.host: HostSession() for unit in plan.units}
        self.polls = PollScheduler()
        self.poll_every = poll_every_seconds(
            lease_seconds=plan.safety.lease_seconds,
            sample_every_seconds=plan.sample_every_seconds,
            hosts=len(plan.units),
            longest=LONGEST_VIRTUAL_SECONDS if self.virtual else LONGEST_SECONDS,
        )
        self.events: deque[Event] = deque()  # what the machine has not heard of yet
        self.traffic = Traffic()
        self.elsewhere: Elsewhere | None = None
        self.latest: dict[str, float] = {}  # metric -> the value that was reported last

    def send(self, host: str, request: Request) -> None:
        fills_memory = isinstance(request, Claim) and request.pressure is not None  # as long as a workload gets ready
        self.fleet.send(host, request, ANSWER_WITHIN[Begin if fills_memory else type(request)])

    def poll(self, host: str) -> None:
        poll = Poll(acknowledged=self.sessions[host].acknowledged)
        self.polls.sent(host, poll, self.clock())
        self.fleet.send(host, poll, max(1.0, self.plan.safety.lease_seconds / 2))

    def release(self, host: str) -> None:
        self.sessions[host].releasing = False
        self.polls.drop(host)
        self.send(host, Release())

    def lose(self, host: str) -> None:
        """Forget everything that is under way with a host."""
        self.fleet.forget(host)
        self.polls.lose(host)
        self.sessions[host].lose()

    def note(self, record: RecordFact) -> None:
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
            metric=record.metric,
        )
        self.write_queue.add(self.write_kinds.events, event)

    def end(self, period_id: int, reason: str, broken_by: BrokenBy) -> None:
        """Strike out a period that is over."""
        end = PeriodEnd(
            period_id=period_id,
            ended_at=self.now(),
            state=PeriodState.INVALID,
            reason=reason,
            broken_by=broken_by,
        )
        self.write_queue.add(self.write_kinds.ends, end)
        if self.elsewhere is not None:
            self.elsewhere.dropped(period_id)

    def once_read(self, act: Callable[[frozenset[str]], None]) -> None:
        """Do something once what is read elsewhere is there, told what could not be read; at once where nothing is."""
        if self.elsewhere is None:
            act(frozenset())
        else:
            self.elsewhere.once_read(act)

    def id_of(self, host: str, period: PeriodPlan) -> int:
        return self.period_ids[host, period.index, period.attempt]

    def is_current(self, host: str, period_id: int) -> bool:
        """Whether this is still the period that the machine has the host in; an answer may come too late for it."""
        period = self.machine.units[host].current
        return period is not None and self.period_ids.get((host, period.index, period.attempt)) == period_id


def _restarts(plan: Plan) -> Mapping[str, WorkloadSpec]:
    """For each arm, the service that is restarted when the arm is applied."""
    return {
        arm: spec
        for arm, spec in plan.workloads.items()
        if spec.kind == "service" and spec.options.get("restart") == "on_apply"
    }
