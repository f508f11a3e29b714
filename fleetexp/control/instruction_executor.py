"""Carry out what the machine says: a request to a host, a write to the store, a time to wake at."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import assert_never

from agents.messages import Apply, Begin, Claim, End, Survey
from agents.messages import Revert as RevertRequest
from agents.timeouts import timeout_factor
from analysis.plan import Crossing
from fleetexp.control.messages import (
    Abandon,
    AddPeriods,
    Analyse,
    Analysed,
    ApplyArm,
    CheckHost,
    Collect,
    EnterState,
    Instruction,
    InvalidateBlock,
    NoteCrossing,
    Reconnect,
    RecordFact,
    RevertHost,
    Snapshot,
    StartPeriod,
    TestGuardrails,
    WakeAt,
)
from fleetexp.control.run_context import ANSWER_WITHIN, RunContext
from fleetexp.control.write_queue import ALONE, FIRST, LAST
from fleetexp.domain import Approval, PeriodKind, PeriodPlan, ShortPoolPolicy

log = logging.getLogger(__name__)

SETTLING_SECONDS = 120.0 * timeout_factor()  # a workload may take so long to get ready (JIT, first touch of its memory)
APPROVAL_SECONDS = 30 * 86400.0  # a workload goes on for as long as a stage waits for approval


class InstructionExecutor:
    """The instructions' side of a runner. Requests to hosts go out at once, all others behind what must be stored."""

    def __init__(
        self,
        context: RunContext,
        *,
        analyse: Callable[[int | None], None],
        test_guardrails: Callable[[int, frozenset[str]], None],
    ) -> None:
        self._context = context
        self._analyse = analyse
        self._test_guardrails = test_guardrails
        self.wakes: list[float] = []

    def carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            log.debug("%s", instruction)
            self._one(instruction)

    def _one(self, instruction: Instruction) -> None:
        context = self._context
        store, write_queue, run_id = context.store, context.write_queue, context.run_id
        match instruction:
            case CheckHost(host=host):
                context.send(host, Survey())
            case Snapshot(host=host):
                claim = Claim(
                    run=context.job.holder.claim_name,
                    owner=context.job.holder.owner,
                    knobs=context.plan.knobs,
                    lease_seconds=context.plan.safety.lease_seconds,
                    pressure=context.plan.pressure,
                )
                context.send(host, claim)
            case ApplyArm(host=host, arm=arm):
                apply = Apply(
                    arm=context.plan.arm(arm),
                    restart=context.restart.get(arm),
                    short_pools=context.plan.safety.on_short_pool == ShortPoolPolicy.ACCEPT,
                )
                context.send(host, apply)
            case StartPeriod(host=host, period=period):
                # Behind a repeated block's rows: without them the period has no id, and no place for its samples.
                write_queue.after(lambda: self._start_period(host, period))
            case Collect(host=host, period=period):
                context.sessions[host].collect = instruction
                context.send(host, End(period_id=context.id_of(host, period)))
            case Abandon(host=host, period=period, reason=reason, broken_by=by):
                context.end(context.id_of(host, period), reason, by)
            case InvalidateBlock(host=host, block=block, attempt=attempt, reason=reason, broken_by=by):
                at = context.now()
                write_queue.add(LAST, lambda: store.void_block(run_id, host, block, attempt, reason, by, at))
            case AddPeriods(host=host, periods=periods):
                write_queue.add(
                    FIRST,
                    lambda: store.add_periods(run_id, host, periods),
                    lambda ids: self._number(host, periods, ids),
                )
            case RevertHost(host=host):
                context.sessions[host].give_up_period()
                context.send(host, RevertRequest())
            case Reconnect(host=host):
                context.sessions[host].reconnecting = True
                context.fleet.reconnect(host, ANSWER_WITHIN[Survey])
            case EnterState(state=state, cause=cause, reason=reason):
                at = context.now()
                said = {"run_id": run_id, "event": "state"}
                log.info("the run is %s%s", state.value, f": {reason}" if reason else "", extra=said)
                write_queue.add(FIRST, lambda: store.set_run_state(run_id, state, reason, cause, at=at))
            case RecordFact():
                context.note(instruction)
            case NoteCrossing(crossing=one, arm=arm, stage=during):
                at = context.now()
                known = Crossing(metric=one.metric, arm=arm, host=one.host, detail=one.detail)
                write_queue.add(FIRST, lambda: store.record_crossing(run_id, one.guardrail, known, stage=during, at=at))
            case TestGuardrails(stage=stage):
                context.once_read(partial(self._test_guardrails, stage))
            case Analyse(stage=look):
                context.once_read(partial(self._add_analysis, look))
            case WakeAt(at=wake):
                heapq.heappush(self.wakes, wake)
            case _:
                assert_never(instruction)

    def _add_analysis(self, stage: int | None, _: frozenset[str]) -> None:
        context = self._context
        context.write_queue.add(ALONE, lambda: self._analyse(stage), lambda _: context.events.append(Analysed()))

    def woken(self, now: float) -> bool:
        """Whether an instant has come that the machine wanted to be woken at."""
        found = False
        while self.wakes and now >= self.wakes[0]:
            heapq.heappop(self.wakes)
            found = True
        return found

    def _start_period(self, host: str, period: PeriodPlan) -> None:
        context = self._context
        period_id = context.id_of(host, period)
        if not context.is_current(host, period_id):
            return  # the host was lost or reverted while this waited for the store
        workload = context.plan.workloads.get(period.arm)
        if workload is not None and workload.kind != "service" and period.kind is not PeriodKind.MEASURE:
            workload = None  # a service runs through; a benchmark runs in the measured period only
        waits = any(stage.approve == Approval.MANUAL for stage in context.plan.stages) or (
            context.elsewhere is not None and len(context.plan.stages) > 1  # its server may be away at a gate
        )
        request = Begin(
            period_id=period_id,
            sample_every_seconds=context.plan.sample_every_seconds,
            workload=workload,
            time_limit_seconds=period.seconds + SETTLING_SECONDS + (APPROVAL_SECONDS if waits else 0.0),
            sources=context.plan.sources,
            events=context.plan.events,
            trace=context.plan.trace,
        )
        if context.elsewhere is not None:
            context.elsewhere.asked_to_begin(host)
        context.send(host, request)

    def _number(self, host: str, periods: tuple[PeriodPlan, ...], ids: list[int]) -> None:
        for period, period_id in zip(periods, ids, strict=True):
            self._context.period_ids[host, period.index, period.attempt] = period_id
