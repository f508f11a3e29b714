"""The table of a run's and a host's life: which event may come in which state, who takes it, where that may lead.

Whoever drives the machine gives it events as they come, and answers may be late: what may be ignored is listed as that,
with why. A pair that is not listed can't happen: it changes nothing and goes into the audit trail, and in tests it
raises, as does a next state that is not listed. `docs/STATES.md` is this table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar, get_args

from fleetexp.control.messages import (
    Analysed,
    ApprovalGiven,
    DriftSeen,
    Event,
    GuardrailBreached,
    GuardrailsTested,
    HostBack,
    HostLost,
    HostReverted,
    KnobsSnapshotted,
    KnobsVerified,
    PauseRequested,
    PeriodBegun,
    PeriodClosed,
    PreflightDone,
    RecordFact,
    RevertFailed,
    RunEvent,
    StepFailed,
    StopRequested,
    TimePassed,
    TripwireCrossed,
    UnitEvent,
    WorkloadFinished,
)
from fleetexp.domain import EventKind, RunState, UnitState

S = TypeVar("S", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """The method that takes the event, and the states that may follow."""

    handler: str
    next: frozenset[S]


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing is done; why that is right."""

    why: str


Row: TypeAlias = Mapping[type[Event], Step[S] | Ignored]
Table: TypeAlias = Mapping[S, Row[S]]


def _step(handler: str, *following: S) -> Step[S]:
    return Step(handler, frozenset(following))


# ------------------------------------------------------------------ one host
_IDLE, _SNAPSHOTTED, _APPLIED, _WASHING_OUT, _MEASURING, _REVERTING, _REVERTED, _LOST = UnitState

_LATE = Ignored("an answer to what was asked before the host was to be put back")
_NO_PERIOD = Ignored("its period is over, or has not begun")


def _trouble(*following: UnitState, lost: Step[UnitState] | Ignored | None = None) -> Row[UnitState]:
    """What may go wrong with a host at any time, `following` where it is taken out of the run."""
    return {
        StepFailed: _step("refused", *following),
        TripwireCrossed: _step("trip", *following),
        HostLost: lost or _step("lost", _LOST),
    }


HOST: Table[UnitState] = {
    _IDLE: {
        PreflightDone: _step("checked", _IDLE, _REVERTED),
        KnobsSnapshotted: _step("snapshotted", _SNAPSHOTTED, _REVERTING),
        WorkloadFinished: _NO_PERIOD,
        DriftSeen: _step("drift_of_none", _IDLE),
        **_trouble(_REVERTING, _REVERTED, lost=_step("lost", _LOST, _REVERTED)),
    },
    _SNAPSHOTTED: {
        KnobsVerified: _step("verified", _WASHING_OUT, _MEASURING),
        WorkloadFinished: _NO_PERIOD,
        DriftSeen: _step("drift_of_none", _SNAPSHOTTED),
        **_trouble(_REVERTING),
    },
    _APPLIED: {
        KnobsVerified: _step("verified", _WASHING_OUT, _MEASURING),
        PeriodBegun: Ignored("the period was broken before it began: its block is being repeated"),
        WorkloadFinished: _NO_PERIOD,
        DriftSeen: _step("drift_of_none", _APPLIED),
        **_trouble(_REVERTING),
    },
    _WASHING_OUT: {
        KnobsVerified: _step("reapplied", _WASHING_OUT),
        PeriodBegun: _step("begun", _WASHING_OUT),
        WorkloadFinished: _step("finished", _WASHING_OUT),
        PeriodClosed: _step("closed", _MEASURING, _APPLIED, _REVERTING),
        DriftSeen: _step("drift", _WASHING_OUT),
        **_trouble(_REVERTING),
    },
    _MEASURING: {
        KnobsVerified: _step("reapplied", _MEASURING),
        PeriodBegun: _step("begun", _MEASURING),
        WorkloadFinished: _step("finished", _MEASURING),
        PeriodClosed: _step("closed", _APPLIED, _REVERTING),
        DriftSeen: _step("drift", _MEASURING),
        **_trouble(_REVERTING),
    },
    _REVERTING: {
        KnobsSnapshotted: _LATE,
        KnobsVerified: _LATE,
        PeriodBegun: _LATE,
        WorkloadFinished: _LATE,
        PeriodClosed: _LATE,
        HostReverted: _step("reverted", _REVERTED, _IDLE),
        RevertFailed: _step("revert_failed", _REVERTING),
        DriftSeen: _step("drift_of_none", _REVERTING),
        **_trouble(_REVERTING, lost=_step("lost", _LOST, _REVERTING)),
    },
    _REVERTED: {
        PreflightDone: Ignored("the host was taken out of the run, or the run was ended, before it was heard of"),
        WorkloadFinished: _NO_PERIOD,
        DriftSeen: _step("drift_of_none", _REVERTED),
        **_trouble(_REVERTED, lost=Ignored("it reads as it was found: nothing is to be brought back")),
    },
    _LOST: {
        HostBack: _step("back", _REVERTING),
        WorkloadFinished: _NO_PERIOD,
        DriftSeen: _step("drift_of_none", _LOST),
        **_trouble(_LOST),
    },
}

# What else moves a host, from which state to which.
BY_RUN: tuple[tuple[str, frozenset[UnitState], frozenset[UnitState]], ...] = (
    ("a stage opens", frozenset({_SNAPSHOTTED, _APPLIED}), frozenset({_WASHING_OUT, _MEASURING})),
    ("its turn to be put back", frozenset({_SNAPSHOTTED, _APPLIED}), frozenset({_REVERTING})),
    (
        "the run is halted",
        frozenset({_IDLE, _SNAPSHOTTED, _APPLIED, _WASHING_OUT, _MEASURING}),
        frozenset({_REVERTING}),
    ),
    ("the run is halted before its claim", frozenset({_IDLE}), frozenset({_REVERTED})),
)


# ------------------------------------------------------------------ the run
_PREFLIGHT, _RUNNING, _HALTING = RunState.PREFLIGHT, RunState.RUNNING, RunState.HALTING
_ANALYSING, _PAUSED, _FAILED = RunState.ANALYSING, RunState.PAUSED, RunState.FAILED
UNDER_WAY = frozenset({_PREFLIGHT, _RUNNING, _HALTING})  # hosts are, or may be, changed
_ENDED = (RunState.COMPLETED, RunState.HALTED, RunState.RESTORE_INCOMPLETE)

RUN_EVENTS: tuple[type[Event], ...] = get_args(RunEvent)
HOST_EVENTS: tuple[type[Event], ...] = get_args(UnitEvent)

_ENDING = Ignored("every host has been seen to: only the analysis is awaited")
_NOBODY_WAITS = Ignored("no stage waits for it")
_OVER = Ignored("the run is over, and every host has been seen to")
_RESTS = Ignored("the run is paused: who goes on begins with what is stored")


def _each(events: tuple[type[Event], ...], cell: Step[RunState] | Ignored) -> Row[RunState]:
    return dict.fromkeys(events, cell)


def _host(*following: RunState) -> Step[RunState]:
    """An event of a host: the host's own table says what becomes of it, the counts what becomes of the run."""
    return _step("host", *following)


RUN: Table[RunState] = {
    RunState.PLANNED: {},
    _PREFLIGHT: {
        PreflightDone: _host(_PREFLIGHT, _RUNNING, _ANALYSING, _PAUSED, _FAILED),
        HostLost: _host(_PREFLIGHT, _RUNNING, _ANALYSING, _PAUSED, _FAILED),
        StepFailed: _host(_PREFLIGHT, _RUNNING, _ANALYSING, _PAUSED, _FAILED),
        TripwireCrossed: _host(_PREFLIGHT, _RUNNING, _ANALYSING, _PAUSED),
        DriftSeen: _host(_PREFLIGHT, _ANALYSING),
        WorkloadFinished: _host(_PREFLIGHT),
        PauseRequested: _step("pause", _PREFLIGHT, _PAUSED),
        StopRequested: _step("stop", _PREFLIGHT, _ANALYSING),
        GuardrailBreached: _step("breach", _PREFLIGHT, _ANALYSING),
        ApprovalGiven: _NOBODY_WAITS,
    },
    _RUNNING: {
        **_each(HOST_EVENTS, _host(_RUNNING)),
        PeriodClosed: _host(_RUNNING, _HALTING),
        DriftSeen: _host(_RUNNING, _HALTING),
        TripwireCrossed: _host(_RUNNING, _HALTING),
        StepFailed: _host(_RUNNING, _HALTING),
        HostLost: _host(_RUNNING, _HALTING, _ANALYSING),
        HostReverted: _host(_RUNNING, _ANALYSING),
        RevertFailed: _host(_RUNNING, _HALTING, _ANALYSING),
        PauseRequested: _step("pause", _RUNNING, _HALTING),
        StopRequested: _step("stop", _RUNNING, _HALTING),
        GuardrailBreached: _step("breach", _RUNNING, _HALTING),
        GuardrailsTested: _step("tested", _RUNNING, _HALTING),
        ApprovalGiven: _step("approve", _RUNNING),
        TimePassed: _step("time", _RUNNING),
    },
    _HALTING: {
        **_each(HOST_EVENTS, _host(_HALTING)),
        HostLost: _host(_HALTING, _ANALYSING),
        HostReverted: _host(_HALTING, _ANALYSING, _PAUSED),
        RevertFailed: _host(_HALTING, _ANALYSING),
        PauseRequested: Ignored("the run is being halted: a pause is never more than that"),
        StopRequested: _step("stop", _HALTING),
        GuardrailBreached: _step("breach", _HALTING),
        GuardrailsTested: Ignored("no stage opens any more"),
        ApprovalGiven: _NOBODY_WAITS,
        TimePassed: _step("time", _HALTING),
    },
    _ANALYSING: {
        **_each(HOST_EVENTS, _ENDING),
        DriftSeen: _host(_ANALYSING),
        TripwireCrossed: _host(_ANALYSING),
        StepFailed: _host(_ANALYSING),
        PauseRequested: _ENDING,
        StopRequested: _ENDING,
        GuardrailBreached: _step("breach", _ANALYSING),
        GuardrailsTested: _ENDING,
        ApprovalGiven: _NOBODY_WAITS,
        TimePassed: _ENDING,
        Analysed: _step("conclude", *_ENDED),
    },
    _PAUSED: _each((*RUN_EVENTS, *HOST_EVENTS), _RESTS),
    **dict.fromkeys((*_ENDED, _FAILED), _each((*RUN_EVENTS, *HOST_EVENTS), _OVER)),
}


def unlisted(event: Event, state: RunState | UnitState) -> RecordFact:
    """Say for the audit trail that an event came which can't come in this state: a defect, of which nothing follows."""
    detail = f"{type(event).__name__} while {state.value}"
    return RecordFact(kind=EventKind.UNEXPECTED_EVENT, detail=detail, host=getattr(event, "host", ""))
