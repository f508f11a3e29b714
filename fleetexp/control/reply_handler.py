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
from fleetexp.control.messages import (
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
    RecordFact,
    RevertFailed,
    StepFailed,
    WorkloadFinished,
)
from fleetexp.control.run_context import RunContext
from fleetexp.control.write_kinds import Closing
from fleetexp.control.write_queue import PASSING
from fleetexp.domain import BrokenBy, EventKind
from fleetexp.fleets.base import HostReply
from fleetexp.store.records import PeriodStart

log = logging.getLogger(__name__)


class ReplyHandler:
    """The hosts' side of a runner."""

    def __init__(self, context: RunContext, *, store_is_gone: Callable[[], bool]) -> None:
        self._context = context
        self._store_is_gone = store_is_gone
        self._gone: set[str] = set()  # lost in this turn: what else they said in it is void

    def take(self, replies: Sequence[HostReply]) -> None:
        """Take in what was answered in this turn: the readings of all hosts in one write, then answer by answer."""
        self._gone.clear()
        stored = self._store(replies)
        for answer in replies:
            host = answer.host
            if host in self._gone:
                continue
            if answer.lost or isinstance(answer.error, LeaseExpired):
                self._lost(host, str(answer.error))
            elif answer.error is not None:
                self._said_no(host, answer.request, answer.error)
            else:
                self._said_yes(answer, stored)

    def _store(self, replies: Sequence[HostReply]) -> bool:
        """Store the readings of every poll that was answered; False where the store refuses."""
        context = self._context
        batches: dict[str, Sequence[Reading]] = {}
        for answer in replies:
            if isinstance(answer.reply, Polled) and answer.reply.readings and answer.host in context.polls:
                batches[answer.host] = answer.reply.readings
        if not batches:
            return True
        if not context.write_queue.may_try():
            return False
        try:
            context.store.append_many(batches)
        except PASSING as error:
            context.write_queue.refused(error)
            return False
        context.write_queue.taken()
        return True

    # ------------------------------------------------------------------ no
    def _lost(self, host: str, detail: str) -> None:
        self._context.lose(host)
        self._gone.add(host)
        self._context.events.append(HostLost(host=host, detail=detail.splitlines()[0] if detail else "no answer"))

    def _said_no(self, host: str, request: Request, error: Exception) -> None:
        context, detail = self._context, str(error)
        if not isinstance(error, AgentError):
            log.error("%s: %s failed", host, type(request).__name__, exc_info=error, extra={"host": host})
        match request:
            case Poll():
                self._lost(host, detail)
            case Survey() if context.sessions[host].reconnecting:
                self._lost(host, detail)
            case Survey() | Preflight():
                context.events.append(PreflightDone(host=host, problems=(detail,)))
            case Begin(period_id=period_id) | End(period_id=period_id):
                if context.is_current(host, period_id):
                    context.end(period_id, detail, BrokenBy.HOST)
                    context.events.append(PeriodClosed(host=host, invalid=detail))
            case Revert() | Release():
                context.polls.drop(host)
                context.events.append(RevertFailed(host=host, detail=detail))
            case _:
                context.events.append(StepFailed(host=host, detail=detail))

    # ------------------------------------------------------------------ yes
    def _said_yes(self, answer: HostReply, stored: bool) -> None:
        context, host = self._context, answer.host
        session = context.sessions[host]
        match answer.reply:
            case HostFacts() as facts:
                self._surveyed(host, facts)
            case PreflightReport() as report:
                self._checked(host, report)
            case Claimed(leftovers=leftovers):
                self._changed(host, leftovers)
                session.acknowledged = 0
                context.polls.plan(host, context.clock())
                context.events.append(KnobsSnapshotted(host=host))
            case Applied(arm=arm, changes=changes):
                self._changed(host, changes)
                session.drifting = False
                context.events.append(KnobsVerified(host=host, arm=arm))
            case Begun(period_id=period_id, begun_at=begun_at, boot_id=boot_id):
                if not context.is_current(host, period_id):
                    return  # struck out meanwhile: it must not be noted as running
                start = PeriodStart(period_id=period_id, started_at=begun_at, boot_id=boot_id)
                context.write_queue.add(context.write_kinds.starts, start)
                current = context.machine.units[host].current
                if context.elsewhere is not None and current is not None:
                    context.elsewhere.begun(period_id, host, current, begun_at)
                context.events.append(PeriodBegun(host=host))
            case Polled() as polled:
                context.polls.answered(host)
                if host in context.polls:  # else the claim is ending: its agent keeps what this was to acknowledge
                    self._polled(host, answer.request, polled, stored)
            case Ended() as ended:
                if session.collected(ended):
                    context.polls.plan(host, context.clock())
            case Reverted() as reverted:
                self._reverted(host, reverted)
            case Released():
                context.polls.drop(host)
                context.events.append(HostReverted(host=host))
            case None:
                raise AssertionError("an answer without reply or error")

    def _surveyed(self, host: str, facts: HostFacts) -> None:
        context = self._context
        context.write_queue.add(context.write_kinds.facts, facts)
        if context.elsewhere is not None:
            context.elsewhere.surveyed(facts)
        if context.sessions[host].reconnecting:
            context.sessions[host].reconnecting = False
            context.events.append(HostBack(host=host))
            return
        distinct = {repr(spec): spec for spec in context.plan.workloads.values()}
        plan = context.plan
        workloads = (*distinct.values(), *filter(None, [plan.pressure]))
        request = Preflight(
            arms=plan.arms,
            workloads=workloads,
            sources=plan.sources,
            events=plan.events,
            needed_events=plan.needed_events,
            trace=plan.trace,
        )
        context.send(host, request)

    def _checked(self, host: str, report: PreflightReport) -> None:
        context, errors = self._context, list[str]()
        counted = {one.event: one.counted for one in report.own_events if one.available and one.counted is not None}
        if counted:
            context.write_queue.add(context.write_kinds.counted, (host, counted))
        for problem in report.problems:
            text = f"{problem.what} [{problem.where}] — {problem.remedy}"
            fatal = problem.severity is Severity.ERROR
            kind = EventKind.PREFLIGHT_ERROR if fatal else EventKind.PREFLIGHT_WARNING
            context.note(RecordFact(kind=kind, detail=text, host=host))
            if fatal:
                errors.append(text)
        context.events.append(PreflightDone(host=host, problems=tuple(errors)))

    def _changed(self, host: str, changes: tuple[KnobChange, ...]) -> None:
        if changes:
            self._context.write_queue.add(self._context.write_kinds.changes, (host, changes))

    def _reverted(self, host: str, reverted: Reverted) -> None:
        context = self._context
        self._changed(host, (*reverted.earlier, *reverted.changes))
        if not reverted.ok:
            context.polls.drop(host)  # the lease runs out, and the guardian tries as well
            failed = "; ".join(f"{c.knob} reads {c.after!r}: {c.error}" for c in reverted.changes if c.error)
            context.events.append(RevertFailed(host=host, detail=failed))
        elif host in context.polls:  # the rest of the stream first, then the claim may end
            context.sessions[host].reverted(context.polls.under_way(host))
            context.polls.plan(host, context.clock())
        else:
            context.send(host, Release())

    # ------------------------------------------------------------------ the stream
    def _polled(self, host: str, poll: Request, polled: Polled, stored: bool) -> None:
        context, now = self._context, self._context.clock()
        session = context.sessions[host]
        if polled.readings and not stored:
            context.polls.plan(host, now + context.poll_every)
            if session.releasing and self._store_is_gone():
                context.release(host)  # what could not be stored stays in the host's spool
            return  # not acknowledged: the agent keeps it and sends it again
        context.traffic.came(polled.readings)
        if polled.readings:
            session.acknowledged = polled.readings[-1].position
            if (crossed := context.job.tripwires.watch(host, polled.readings)) is not None:
                context.events.append(crossed)
            self._note_latest(polled)
        if context.is_current(host, polled.period_id):
            if polled.drift and not session.drifting:
                session.drifting = True
                context.events.append(DriftSeen(host=host, detail=", ".join(polled.drift)))
            if polled.workload in {WorkloadState.FINISHED, WorkloadState.FAILED}:
                context.events.append(WorkloadFinished(host=host))
        if not polled.more and (closed := session.closed()) is not None:
            self._close(host, *closed)
        if session.stored_all(poll, len(polled.readings)):
            context.release(host)
        else:
            at_once = polled.more or session.closing is not None or session.releasing
            context.polls.plan(host, now if at_once else now + context.poll_every)

    def _note_latest(self, polled: Polled) -> None:
        for reading in polled.readings:
            if isinstance(reading, Measurement):
                self._context.latest[reading.metric] = reading.value

    def _close(self, host: str, collect: Collect, ended: Ended) -> None:
        """Close the period: everything that it read is stored."""
        context = self._context
        closing = Closing(
            host=host,
            period_id=ended.period_id,
            ended_at=ended.ended_at,
            invalid=collect.invalid or ended.invalid,
            calls=ended.calls,
        )

        def tell(closed: bool) -> None:
            if context.elsewhere is not None:
                if closed and not closing.invalid:
                    context.elsewhere.ended(closing.period_id, closing.ended_at)
                else:
                    context.elsewhere.dropped(closing.period_id)
            if closed:
                context.events.append(PeriodClosed(host=host, invalid=closing.invalid))

        context.write_queue.add(context.write_kinds.closings, closing, tell)
