"""Carry out what the machine says: a request to a host, a write to the store, a time to wake at."""

from __future__ import annotations

import heapq
import logging
from collections.abc import Callable, Iterable
from typing import assert_never

from agents.messages import Apply, Begin, Claim, End, Survey
from agents.messages import Revert as RevertRequest
from analysis.plan import Crossing
from fleetexp.domain import PeriodKind, PeriodPlan
from fleetexp.orchestrator.desk import ANSWER_WITHIN, Desk
from fleetexp.orchestrator.ledger import ALONE, FIRST, LAST
from fleetexp.orchestrator.messages import (
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
    Record,
    Revert,
    Snapshot,
    StartPeriod,
    TestGuardrails,
    WakeAt,
)

log = logging.getLogger(__name__)

SETTLING_SECONDS = 120.0  # a workload may take so long to get ready (JIT, first touch of its memory)
APPROVAL_SECONDS = 30 * 86400.0  # a workload goes on for as long as a stage waits for approval


class Errands:
    """The instructions' side of a runner. Requests to hosts go out at once, all others behind what must be stored."""

    def __init__(
        self, desk: Desk, *, analyse: Callable[[int | None], None], test_guardrails: Callable[[int], None]
    ) -> None:
        self._desk = desk
        self._analyse = analyse
        self._test_guardrails = test_guardrails
        self.wakes: list[float] = []

    def carry_out(self, instructions: Iterable[Instruction]) -> None:
        for instruction in instructions:
            log.debug("%s", instruction)
            self._one(instruction)

    def _one(self, instruction: Instruction) -> None:
        desk = self._desk
        store, ledger, run_id = desk.store, desk.ledger, desk.run_id
        match instruction:
            case CheckHost(host=host):
                desk.send(host, Survey())
            case Snapshot(host=host):
                claim = Claim(
                    run=desk.job.claim_name,
                    owner=desk.job.owner,
                    knobs=desk.plan.knobs,
                    lease_seconds=desk.plan.safety.lease_seconds,
                )
                desk.send(host, claim)
            case ApplyArm(host=host, arm=arm):
                desk.send(host, Apply(arm=desk.plan.arm(arm), restart=desk.restart.get(arm)))
            case StartPeriod(host=host, period=period):
                # Behind a repeated block's rows: without them the period has no id, and no place for its samples.
                ledger.after(lambda: self._start_period(host, period))
            case Collect(host=host, period=period):
                desk.sessions[host].collect = instruction
                desk.send(host, End(period_id=desk.id_of(host, period)))
            case Abandon(host=host, period=period, reason=reason, broken_by=by):
                desk.end(desk.id_of(host, period), reason, by)
            case InvalidateBlock(host=host, block=block, attempt=attempt, reason=reason, broken_by=by):
                at = desk.now()
                ledger.add(LAST, lambda: store.void_block(run_id, host, block, attempt, reason, by, at))
            case AddPeriods(host=host, periods=periods):
                ledger.add(
                    FIRST,
                    lambda: store.add_periods(run_id, host, periods),
                    lambda ids: self._number(host, periods, ids),
                )
            case Revert(host=host):
                desk.sessions[host].give_up_period()
                desk.send(host, RevertRequest())
            case Reconnect(host=host):
                desk.sessions[host].reconnecting = True
                desk.fleet.reconnect(host, ANSWER_WITHIN[Survey])
            case EnterState(state=state, cause=cause, reason=reason):
                at = desk.now()
                said = {"run_id": run_id, "event": "state"}
                log.info("the run is %s%s", state.value, f": {reason}" if reason else "", extra=said)
                ledger.add(FIRST, lambda: store.set_run_state(run_id, state, reason, cause, at=at))
            case Record():
                desk.note(instruction)
            case NoteCrossing(crossing=one, arm=arm, stage=during):
                at = desk.now()
                known = Crossing(metric=one.metric, arm=arm, host=one.host, detail=one.detail)
                ledger.add(FIRST, lambda: store.record_crossing(run_id, one.guardrail, known, stage=during, at=at))
            case TestGuardrails(stage=stage):
                self._test_guardrails(stage)
            case Analyse(stage=stage):
                ledger.add(ALONE, lambda: self._analyse(stage), lambda _: desk.events.append(Analysed()))
            case WakeAt(at=wake):
                heapq.heappush(self.wakes, wake)
            case _:
                assert_never(instruction)

    def woken(self, now: float) -> bool:
        """Whether an instant has come that the machine wanted to be woken at."""
        found = False
        while self.wakes and now >= self.wakes[0]:
            heapq.heappop(self.wakes)
            found = True
        return found

    def _start_period(self, host: str, period: PeriodPlan) -> None:
        desk = self._desk
        period_id = desk.id_of(host, period)
        if not desk.is_current(host, period_id):
            return  # the host was lost or reverted while this waited for the store
        workload = desk.plan.workloads.get(period.arm)
        if workload is not None and workload.kind != "service" and period.kind is not PeriodKind.MEASURE:
            workload = None  # a service runs through; a benchmark runs in the measured period only
        waits = any(stage.approve == "manual" for stage in desk.plan.stages)
        request = Begin(
            period_id=period_id,
            sample_every_seconds=desk.plan.sample_every_seconds,
            workload=workload,
            time_limit_seconds=period.seconds + SETTLING_SECONDS + (APPROVAL_SECONDS if waits else 0.0),
            sources=desk.plan.sources,
            events=desk.plan.events,
        )
        desk.send(host, request)

    def _number(self, host: str, periods: tuple[PeriodPlan, ...], ids: list[int]) -> None:
        for period, period_id in zip(periods, ids, strict=True):
            self._desk.period_ids[host, period.index, period.attempt] = period_id
