"""What happens to a run (events) and what must be done about it (instructions): the machine's whole vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from analysis.plan import Direction, GuardrailPlan
from fleetexp.domain import BrokenBy, EventKind, PeriodPlan, RunCause, RunState


# ------------------------------------------------------------------ events: what has happened
@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightDone:
    """The host has said whether the plan can run on it; `problems` are the errors only."""

    host: str
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobsSnapshotted:
    """The host is claimed: journal written, guardian watching."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobsVerified:
    """The arm was written and reads back."""

    host: str
    arm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodBegun:
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadFinished:
    """The workload has ended by itself: the period may close early."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodClosed:
    """The period has ended and all it read is stored. `invalid`: what broke it, on the host; '' where it is whole."""

    host: str
    invalid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostReverted:
    """Every knob of the host reads as it was found, and the claim is over."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertFailed:
    """The host answered, and some knob could not be put back."""

    host: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """The host answered an instruction with an error: a refused value, a workload that can't start."""

    host: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLost:
    """The host did not answer in time, or its agent is gone."""

    host: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostBack:
    """A new agent answers on a host that was lost."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSeen:
    """Somebody else wrote a knob of ours."""

    host: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailBreached:
    """Something for which the whole run must stop: a sick kernel (`host` '' for the whole fleet)."""

    metric: str
    detail: str
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TripwireCrossed:
    """A metric of one host has reached the absolute limit that the spec sets for it."""

    host: str
    guardrail: GuardrailPlan
    value: float
    arm: str = ""  # the arm that the value was read under; '': the host's present one

    @property
    def metric(self) -> str:
        return self.guardrail.metric

    @property
    def limit(self) -> float:
        return self.guardrail.tripwire if self.guardrail.tripwire is not None else float("nan")

    @property
    def detail(self) -> str:
        return f"{self.value:g} reached the tripwire {self.limit:g}"

    @staticmethod
    def of(host: str, guardrail: GuardrailPlan, value: float) -> TripwireCrossed | None:
        """Compare a value with the guardrail's tripwire; None where it is not reached, or there is none."""
        limit = guardrail.tripwire
        if limit is None:
            return None
        crossed = value >= limit if guardrail.worse is Direction.INCREASE else value <= limit
        return TripwireCrossed(host=host, guardrail=guardrail, value=value) if crossed else None


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailsTested:
    """The guardrails were tested on the data up to the end of a stage; `breaches` says which failed and why.

    `unread`: the metrics of those that are open because their server did not give what was measured up to then;
    `silent`: of those that are open and were read on less than half of an arm's hosts.
    """

    stage: int
    breaches: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalGiven:
    """Somebody lets the next stage open."""

    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested:
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRequested:
    who: str
    cause: RunCause = RunCause.REQUEST


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """Nothing happened but time: deadlines are looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysed:
    """The findings are stored."""


UnitEvent: TypeAlias = (
    PreflightDone
    | KnobsSnapshotted
    | KnobsVerified
    | PeriodBegun
    | WorkloadFinished
    | PeriodClosed
    | DriftSeen
    | TripwireCrossed
    | StepFailed
    | HostLost
    | HostBack
    | HostReverted
    | RevertFailed
)
RunEvent: TypeAlias = (
    PauseRequested | StopRequested | GuardrailBreached | GuardrailsTested | ApprovalGiven | TimePassed | Analysed
)
Event: TypeAlias = RunEvent | UnitEvent


# ------------------------------------------------------------------ instructions: what must be done
@dataclass(frozen=True, slots=True, kw_only=True)
class CheckHost:
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyArm:
    host: str
    arm: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPeriod:
    host: str
    period: PeriodPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Collect:
    """End the period on the host and store the rest of what it read. `invalid` as in PeriodClosed."""

    host: str
    period: PeriodPlan
    invalid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abandon:
    """Mark a period that can't be ended on the host (it is lost) as invalid in the store."""

    host: str
    period: PeriodPlan
    reason: str
    broken_by: BrokenBy


@dataclass(frozen=True, slots=True, kw_only=True)
class InvalidateBlock:
    """Mark every period of this attempt at a block as invalid: its contrast is broken.

    `broken_by` broke the period that was under way, if one was; the others broke with their block.
    """

    host: str
    block: int
    attempt: int
    reason: str
    broken_by: BrokenBy


@dataclass(frozen=True, slots=True, kw_only=True)
class AddPeriods:
    """Enter a repeated block into the store."""

    host: str
    periods: tuple[PeriodPlan, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RevertHost:
    """Put the host back and end the claim."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """Put a new agent on a lost host."""

    host: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterState:
    state: RunState
    cause: RunCause = RunCause.NONE
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFact:
    """Write to the audit trail. `goal` and `cause` say where a halt is heading, `stage` which one has opened.

    `metric` is what it is about.
    """

    kind: EventKind
    detail: str = ""
    host: str = ""
    goal: RunState | None = None
    cause: RunCause = RunCause.NONE
    stage: int | None = None
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class NoteCrossing:
    """Enter into the store that a tripwire was reached, under which arm and in which stage."""

    crossing: TripwireCrossed
    arm: str
    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TestGuardrails:
    """Test the guardrails on what has been measured up to the end of a stage; answered by GuardrailsTested."""

    __test__ = False  # no test of pytest's

    stage: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Analyse:
    """Estimate effects from what is stored. `stage`: the planned look at its end; None: at a moment nobody planned."""

    stage: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeAt:
    """Come back with TimePassed at this instant of the machine's clock, in seconds."""

    at: float


Instruction: TypeAlias = (
    CheckHost
    | Snapshot
    | ApplyArm
    | StartPeriod
    | Collect
    | Abandon
    | InvalidateBlock
    | AddPeriods
    | RevertHost
    | Reconnect
    | EnterState
    | RecordFact
    | NoteCrossing
    | TestGuardrails
    | Analyse
    | WakeAt
)
