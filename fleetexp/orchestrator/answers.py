"""Take in what hosts answer: store it, and tell the machine what it means."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from agents.errors import AgentError, LeaseExpired
from agents.messages import (
    Applied,
    Begin,
    Begun,
    Claimed,
    End,
    Ended,
    HostFacts,
    KnobChange,
    Measurement,
    Poll,
    Polled,
    Preflight,
    PreflightReport,
    Reading,
    Release,
    Released,
    Request,
    Revert,
    Reverted,
    Severity,
    Survey,
    WorkloadState,
)
from fleetexp.domain import BrokenBy, EventKind
from fleetexp.orchestrator.desk import Desk
from fleetexp.orchestrator.entries import Closing
from fleetexp.orchestrator.fleet import Answer
from fleetexp.orchestrator.ledger import PASSING
from fleetexp.orchestrator.messages import (
    Collect,
    DriftSeen,
    HostBack,
    HostLost,
    HostReverted,
    KnobsSnapshotted,
    KnobsVerified,
    PeriodBegun,
    PeriodClosed,
    PreflightDone,
    Record,
    RevertFailed,
    StepFailed,
    WorkloadFinished,
)
from fleetexp.store.records import PeriodStart

log = logging.getLogger(__name__)


class Answers:
    """The hosts' side of a runner."""

    def __init__(self, desk: Desk, *, store_is_gone: Callable[[], bool]) -> None:
        self._desk = desk
        self._store_is_gone = store_is_gone
        self._gone: set[str] = set()  # lost in this turn: what else they said in it is void

    def take(self, answers: Sequence[Answer]) -> None:
        """Take in what was answered in this turn: the readings of all hosts in one write, then answer by answer."""
        self._gone.clear()
        stored = self._store(answers)
        for answer in answers:
            host = answer.host
            if host in self._gone:
                continue
            if answer.lost or isinstance(answer.error, LeaseExpired):
                self._lost(host, str(answer.error))
            elif answer.error is not None:
                self._said_no(host, answer.request, answer.error)
            else:
                self._said_yes(answer, stored)

    def _store(self, answers: Sequence[Answer]) -> bool:
        """Store the readings of every poll that was answered; False where the store refuses."""
        desk = self._desk
        batches: dict[str, Sequence[Reading]] = {}
        for answer in answers:
            if isinstance(answer.reply, Polled) and answer.reply.readings and answer.host in desk.polls:
                batches[answer.host] = answer.reply.readings
        if not batches:
            return True
        if not desk.ledger.may_try():
            return False
        try:
            desk.store.append_many(batches)
        except PASSING as error:
            desk.ledger.refused(error)
            return False
        desk.ledger.taken()
        return True

    # ------------------------------------------------------------------ no
    def _lost(self, host: str, detail: str) -> None:
        self._desk.lose(host)
        self._gone.add(host)
        self._desk.events.append(HostLost(host=host, detail=detail.splitlines()[0] if detail else "no answer"))

    def _said_no(self, host: str, request: Request, error: Exception) -> None:
        desk, detail = self._desk, str(error)
        if not isinstance(error, AgentError):
            log.error("%s: %s failed", host, type(request).__name__, exc_info=error, extra={"host": host})
        match request:
            case Poll():
                self._lost(host, detail)
            case Survey() if desk.sessions[host].reconnecting:
                self._lost(host, detail)
            case Survey() | Preflight():
                desk.events.append(PreflightDone(host=host, problems=(detail,)))
            case Begin(period_id=period_id) | End(period_id=period_id):
                if desk.is_current(host, period_id):
                    desk.end(period_id, detail, BrokenBy.HOST)
                    desk.events.append(PeriodClosed(host=host, invalid=detail))
            case Revert() | Release():
                desk.polls.drop(host)
                desk.events.append(RevertFailed(host=host, detail=detail))
            case _:
                desk.events.append(StepFailed(host=host, detail=detail))

    # ------------------------------------------------------------------ yes
    def _said_yes(self, answer: Answer, stored: bool) -> None:
        desk, host = self._desk, answer.host
        session = desk.sessions[host]
        match answer.reply:
            case HostFacts() as facts:
                self._surveyed(host, facts)
            case PreflightReport() as report:
                self._checked(host, report)
            case Claimed(leftovers=leftovers):
                self._changed(host, leftovers)
                session.acknowledged = 0
                desk.polls.plan(host, desk.clock())
                desk.events.append(KnobsSnapshotted(host=host))
            case Applied(arm=arm, changes=changes):
                self._changed(host, changes)
                session.drifting = False
                desk.events.append(KnobsVerified(host=host, arm=arm))
            case Begun(period_id=period_id, begun_at=begun_at, boot_id=boot_id):
                if not desk.is_current(host, period_id):
                    return  # struck out meanwhile: it must not be noted as running
                start = PeriodStart(period_id=period_id, started_at=begun_at, boot_id=boot_id)
                desk.ledger.add(desk.entries.starts, start)
                desk.events.append(PeriodBegun(host=host))
            case Polled() as polled:
                desk.polls.answered(host)
                if host in desk.polls:  # else the claim is ending: its agent keeps what this was to acknowledge
                    self._polled(host, answer.request, polled, stored)
            case Ended() as ended:
                if session.collected(ended):
                    desk.polls.plan(host, desk.clock())
            case Reverted() as reverted:
                self._reverted(host, reverted)
            case Released():
                desk.polls.drop(host)
                desk.events.append(HostReverted(host=host))
            case None:
                raise AssertionError("an answer without reply or error")

    def _surveyed(self, host: str, facts: HostFacts) -> None:
        desk = self._desk
        desk.ledger.add(desk.entries.facts, facts)
        if desk.sessions[host].reconnecting:
            desk.sessions[host].reconnecting = False
            desk.events.append(HostBack(host=host))
            return
        distinct = {repr(spec): spec for spec in desk.plan.workloads.values()}
        plan = desk.plan
        workloads = tuple(distinct.values())
        request = Preflight(
            arms=plan.arms,
            workloads=workloads,
            sources=plan.sources,
            events=plan.events,
            needed_events=plan.needed_events,
        )
        desk.send(host, request)

    def _checked(self, host: str, report: PreflightReport) -> None:
        desk, errors = self._desk, list[str]()
        counted = {one.event: one.counted for one in report.own_events if one.available and one.counted is not None}
        if counted:
            desk.ledger.add(desk.entries.counted, (host, counted))
        for problem in report.problems:
            text = f"{problem.what} [{problem.where}] — {problem.remedy}"
            fatal = problem.severity is Severity.ERROR
            kind = EventKind.PREFLIGHT_ERROR if fatal else EventKind.PREFLIGHT_WARNING
            desk.note(Record(kind=kind, detail=text, host=host))
            if fatal:
                errors.append(text)
        desk.events.append(PreflightDone(host=host, problems=tuple(errors)))

    def _changed(self, host: str, changes: tuple[KnobChange, ...]) -> None:
        if changes:
            self._desk.ledger.add(self._desk.entries.changes, (host, changes))

    def _reverted(self, host: str, reverted: Reverted) -> None:
        desk = self._desk
        self._changed(host, (*reverted.earlier, *reverted.changes))
        if not reverted.ok:
            desk.polls.drop(host)  # the lease runs out, and the guardian tries as well
            failed = "; ".join(f"{c.knob} reads {c.after!r}: {c.error}" for c in reverted.changes if c.error)
            desk.events.append(RevertFailed(host=host, detail=failed))
        elif host in desk.polls:  # the rest of the stream first, then the claim may end
            desk.sessions[host].reverted(desk.polls.under_way(host))
            desk.polls.plan(host, desk.clock())
        else:
            desk.send(host, Release())

    # ------------------------------------------------------------------ the stream
    def _polled(self, host: str, poll: Request, polled: Polled, stored: bool) -> None:
        desk, now = self._desk, self._desk.clock()
        session = desk.sessions[host]
        if polled.readings and not stored:
            desk.polls.plan(host, now + desk.poll_every)
            if session.releasing and self._store_is_gone():
                desk.release(host)  # what could not be stored stays in the host's spool
            return  # not acknowledged: the agent keeps it and sends it again
        desk.traffic.came(polled.readings)
        if polled.readings:
            session.acknowledged = polled.readings[-1].position
            if (crossed := desk.job.tripwires.watch(host, polled.readings)) is not None:
                desk.events.append(crossed)
            self._note_latest(polled)
        if desk.is_current(host, polled.period_id):
            if polled.drift and not session.drifting:
                session.drifting = True
                desk.events.append(DriftSeen(host=host, detail=", ".join(polled.drift)))
            if polled.workload in {WorkloadState.FINISHED, WorkloadState.FAILED}:
                desk.events.append(WorkloadFinished(host=host))
        if not polled.more and (closed := session.closed()) is not None:
            self._close(host, *closed)
        if session.stored_all(poll, len(polled.readings)):
            desk.release(host)
        else:
            at_once = polled.more or session.closing is not None or session.releasing
            desk.polls.plan(host, now if at_once else now + desk.poll_every)

    def _note_latest(self, polled: Polled) -> None:
        for reading in polled.readings:
            if isinstance(reading, Measurement):
                self._desk.latest[reading.metric] = reading.value

    def _close(self, host: str, collect: Collect, ended: Ended) -> None:
        """Close the period: everything that it read is stored."""
        desk = self._desk
        closing = Closing(
            host=host,
            period_id=ended.period_id,
            ended_at=ended.ended_at,
            invalid=collect.invalid or ended.invalid,
        )

        def tell(closed: bool) -> None:
            if closed:
                desk.events.append(PeriodClosed(host=host, invalid=closing.invalid))

        desk.ledger.add(desk.entries.closings, closing, tell)
