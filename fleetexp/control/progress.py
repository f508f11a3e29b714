"""What a run tells those who watch it while it goes on, and what it says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analysis.results import Decision
from fleetexp.control.host_registry import HostState
from fleetexp.control.run_machine import Gate, RunMachine
from fleetexp.domain import PeriodKind, RunState, UnitState
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from fleetexp.control.controller import Controller


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of a run. `current` says it in words: 'block 3 of 8, thp-2m, measuring'."""

    run_id: int
    state: RunState
    planned_seconds: float
    elapsed_seconds: float
    periods_done: int = 0
    periods_total: int = 0
    units: Mapping[UnitState, int] = field(default_factory=dict)  # how many hosts are in each state
    current: str = ""
    latest: Mapping[str, float] = field(default_factory=dict)  # metric -> value, in the metric's unit
    stage: int = 0  # from 0
    stages: int = 1
    hosts_failed: int = 0  # take no further part
    readings_stored: int = 0  # since this orchestrator started, as the next two
    polls_answered: int = 0
    newest_reading_age_seconds: float | None = None  # of those stored
    oldest_poll_seconds: float = 0.0  # how long the poll that waits longest has gone unanswered
    store_outage_seconds: float = 0.0  # for how long the store has been refusing
    writes_waiting: int = 0  # for the store to take them
    guardrails: Mapping[str, str] = field(default_factory=dict)  # metric -> what its last test said
    message: str = ""  # something that happened just now and deserves a line of its own

    @property
    def share(self) -> float:
        """How far the run is, 0 to 1: by periods, by time where none is planned; below 1 until it has ended."""
        if self.state.is_terminal:
            return 1.0
        if self.periods_total:
            return min(self.periods_done / self.periods_total, 0.99)
        return min(self.elapsed_seconds / self.planned_seconds, 0.99) if self.planned_seconds > 0 else 0.0

    @property
    def remaining_seconds(self) -> float:
        """Time that is left: as planned, or at the pace so far where that is slower. A resumed run has no pace yet."""
        if self.state.is_terminal:
            return 0.0
        share = self.share
        at_this_pace = self.elapsed_seconds * (1 - share) / share if share else 0.0
        return max(self.planned_seconds * (1 - share), at_this_pace)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """How a run ended. `decision` is None where the run did not get as far as an analysis."""

    run_id: int
    state: RunState
    decision: Decision | None
    reason: str
    exit_code: ExitCode


def progress_of(runner: Controller, guardrails: Mapping[str, str] | None = None) -> Progress:
    """Say where a run is; `guardrails` are the last verdicts. The cost does not grow with the fleet."""
    machine, counts, traffic = runner.machine, runner.machine.registry.counts, runner.traffic
    total = machine.registry.periods_planned
    return Progress(
        run_id=runner.run_id,
        state=machine.state,
        planned_seconds=runner.planned_seconds,
        elapsed_seconds=runner.elapsed_seconds,
        periods_done=max(0, total - counts.periods_left),
        periods_total=total,
        units={state: count for state, count in machine.registry.states.items() if count},
        current=_current(machine),
        latest=dict(runner.latest),
        stage=machine.stage,
        stages=len(machine.plan.stages),
        hosts_failed=counts.failed,
        readings_stored=traffic.readings_stored,
        polls_answered=traffic.polls_answered,
        newest_reading_age_seconds=runner.newest_reading_age_seconds,
        oldest_poll_seconds=runner.oldest_poll_seconds,
        store_outage_seconds=runner.store_outage_seconds,
        writes_waiting=runner.writes_waiting,
        guardrails=dict(guardrails or {}),
        message=machine.goal.reason if machine.goal and not machine.state.is_terminal else "",
    )


def _current(machine: RunMachine) -> str:
    if machine.state is not RunState.RUNNING:
        return machine.state.value
    if len(machine.units) == 1:
        return _doing(next(iter(machine.units.values()))) or machine.state.value
    states = machine.registry.states
    doing = ", ".join(f"{states[state]} {state.value.replace('_', ' ')}" for state in UnitState if states[state])
    stages = f"stage {machine.stage + 1} of {len(machine.plan.stages)}"
    return f"{stages}, {machine.gate.value}: {doing}" if machine.gate is not Gate.PASSED else f"{stages}: {doing}"


def _doing(unit: HostState) -> str:
    period = unit.current
    if period is None:
        return ""
    blocks = len({p.block for p in unit.plan.periods if p.block >= 0})
    where = f"block {period.block + 1} of {blocks}, " if period.block >= 0 else ""
    again = f", attempt {period.attempt + 1}" if period.attempt else ""
    doing = {PeriodKind.WASHOUT: "washing out", PeriodKind.MEASURE: "measuring"}.get(period.kind, "baseline")
    return f"{where}{period.arm}, {doing}{again}"
