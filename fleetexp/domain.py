"""The nouns of an experiment: arms, units, periods, plans, states. No I/O, no clock, no imports but the agents' words.

What a run and its hosts go through is the table in `fleetexp.control.transitions`, drawn in docs/STATES.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from agents.messages import Arm, MetricSource, WorkloadSpec
from agents.traced_calls import Traced
from analysis.plan import AssignmentPlan


class Design(StrEnum):
    """How arms meet units: alternating in time on one host, or on different hosts at one time."""

    SWITCHBACK = "switchback"
    PARALLEL = "parallel"
    RETROSPECTIVE = "retrospective"  # hosts that somebody chose were changed at some time: looked back on, never drawn


class Origin(StrEnum):
    """Where the measurements of a run come from."""

    FLEET = "fleet"  # hosts that fleetexp put under the arms
    IMPORT = "import"  # data that somebody brought: nothing was changed or read by fleetexp


class PeriodKind(StrEnum):
    BASELINE = "baseline"
    WASHOUT = "washout"
    MEASURE = "measure"


class RunState(StrEnum):
    PLANNED = "planned"
    PREFLIGHT = "preflight"
    RUNNING = "running"
    PAUSED = "paused"
    ANALYSING = "analysing"
    COMPLETED = "completed"
    HALTING = "halting"
    HALTED = "halted"
    FAILED = "failed"
    RESTORE_INCOMPLETE = "restore_incomplete"

    @property
    def is_terminal(self) -> bool:
        return self in {RunState.COMPLETED, RunState.HALTED, RunState.FAILED, RunState.RESTORE_INCOMPLETE}


class RunRequest(StrEnum):
    """What may be asked of the process that drives a run."""

    PAUSE = "pause"
    ABORT = "abort"
    APPROVE = "approve"  # let the next stage open


class DriftPolicy(StrEnum):
    """What happens where somebody else writes a knob of the run."""

    HALT = "halt"
    REAPPLY = "reapply"
    INVALIDATE = "invalidate"  # that block is measured again


class ShortPoolPolicy(StrEnum):
    """What a hugetlb pool that the kernel grants in part means for its arm."""

    FAIL = "fail"
    ACCEPT = "accept"  # it holds with what there is


class Approval(StrEnum):
    """Who lets the next stage open."""

    AUTO = "auto"
    MANUAL = "manual"  # waits for `fleetexp resume`


class RunCause(StrEnum):
    """What the state of a run is owed to: the fact behind its reason."""

    NONE = ""  # the ordinary course
    APPROVAL = "approval"  # a stage has held, and somebody must approve the next one
    REQUEST = "request"  # somebody asked for it
    GUARDRAIL = "guardrail"  # a limit was reached, or a kernel is sick
    DRIFT = "drift"  # a knob was changed from outside
    HOSTS = "hosts"  # more hosts than allowed failed or were lost, or none is left
    STORE = "store"  # the database refuses writes
    RESTORE = "restore"  # some host was not seen to read as it was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """Where a run is heading that takes up nothing new."""

    state: RunState
    cause: RunCause = RunCause.NONE
    reason: str = ""


class EventKind(StrEnum):
    """What the audit trail tells of a run; what agents tell of their hosts is a HostEventKind."""

    LAUNCHED = "launched"
    IMPORTED = "imported"  # data that somebody brought were entered
    RESUMED = "resumed"
    STATE = "state"  # the run has entered a state
    HOSTS_LEFT_OUT = "hosts_left_out"
    PREFLIGHT_ERROR = "preflight_error"
    PREFLIGHT_WARNING = "preflight_warning"
    STAGE_OPENED = "stage_opened"
    AWAITING_APPROVAL = "awaiting_approval"
    GUARDRAIL_UNREAD = "guardrail_unread"  # not judged at a stage's end: its server gave no answer, or most hosts none
    APPROVED = "approved"
    PAUSE_REQUESTED = "pause_requested"
    ABORT_REQUESTED = "abort_requested"
    APPROVE_REQUESTED = "approve_requested"
    RESTORE_REQUESTED = "restore_requested"
    UNEXPECTED_EVENT = "unexpected_event"  # what can't come in this state, by the table of transitions
    HALTING_TO = "halting_to"  # the run is being halted, and this is where it is heading
    GUARDRAIL_BREACHED = "guardrail_breached"
    GUARDRAIL_TEST_FAILED = "guardrail_test_failed"
    ANALYSIS_FAILED = "analysis_failed"
    DRIFT = "drift"
    TRIPWIRE = "tripwire"
    HOST_FAILED = "host_failed"
    HOST_LOST = "host_lost"
    HOST_BACK = "host_back"
    RESTORE_FAILED = "restore_failed"
    NOT_RESTORED = "not_restored"  # this host does not read as it was found, or nobody knows
    RESTORED = "restored"  # seen to read as it was found, after all
    CENTRAL_AWAY = "central_away"  # the metrics' server gives no answer; told once an outage
    CENTRAL_BACK = "central_back"
    CENTRAL_MISSING = "central_missing"  # periods have no value of a metric that the server was asked for
    CENTRAL_WARNING = "central_warning"  # what the server itself says of an answer
    CENTRAL_CLOCK = "central_clock"  # how far the server's clock is from the orchestrator's


class CentralOutcome(StrEnum):
    """What became of a request to the metrics' server."""

    ANSWERED = "answered"
    AWAY = "away"  # nobody answers at its address
    SLOW = "slow"  # no whole answer in time
    UNTRUSTED = "untrusted"  # TLS: its certificate, or ours
    UNAUTHORISED = "unauthorised"  # 401, 403: who asks, or for which tenant
    LIMITED = "limited"  # 422, 429: a limit of the server
    REFUSED = "refused"  # 4xx: it does not take this query
    BROKEN = "broken"  # 5xx
    TOO_LARGE = "too_large"  # more than we take
    NOT_UNDERSTOOD = "not_understood"  # an answer, but not of Prometheus' HTTP API
    NO_SECRET = "no_secret"  # noqa: S105 - what we are to show it can't be read here


class CentralGap(StrEnum):
    """Why a period has no value of a metric that the metrics' server was asked for."""

    NONE = ""  # it has one
    NO_SERIES = "no_series"  # no series of the answer is the host's
    SEVERAL_SERIES = "several_series"  # more than one is, at one instant
    TOO_FEW = "too_few"  # fewer instants have a value than a mean may rest on
    TOO_SHORT = "too_short"  # no instant of the period is late enough for the query to see nothing of before
    NO_ANSWER = "no_answer"  # the server gave none in time: its requests say why


class UnitState(StrEnum):
    IDLE = "idle"
    SNAPSHOTTED = "snapshotted"
    APPLIED = "applied"
    WASHING_OUT = "washing_out"
    MEASURING = "measuring"
    REVERTING = "reverting"
    REVERTED = "reverted"
    LOST = "lost"


class PeriodState(StrEnum):
    PLANNED = "planned"
    RUNNING = "running"
    COMPLETE = "complete"
    INVALID = "invalid"  # `reason` says why; kept, shown, never used in an estimate


class BrokenBy(StrEnum):
    """What broke an invalid period: whether its data were lost under its arm, or the arm had no part in it."""

    NOTHING = ""  # not broken, or not known
    HOST = "host"  # something happened on the host under its arm: its workload died, a knob drifted, it was lost
    RUN = "run"  # the run was stopped: a pause, an abort, a breach elsewhere; or the orchestrator was lost
    BLOCK = "block"  # whole itself, or not begun: another period of its block broke


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodPlan:
    """One slot of time on a unit under one arm.

    `block` numbers the pair (or set of arms) that the period belongs to, -1 outside any block. A broken period
    invalidates its block, and the whole block is repeated as `attempt` + 1: a contrast across hours is not a contrast.
    """

    index: int  # position in the unit's schedule, from 0
    kind: PeriodKind
    arm: str
    block: int
    stage: int
    seconds: float  # planned length; a measure period ends earlier when its workload finishes
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitPlan:
    """What one host goes through. `arm` is set in a parallel design, None in a switchback."""

    host: str
    stratum: str
    arm: str | None
    stage: int  # the stage at which the host joins
    periods: tuple[PeriodPlan, ...]
    pair: str = ""  # the set of matched hosts whose arms one coin decided
    balance: tuple[float, ...] = ()  # what the draw was balanced on


@dataclass(frozen=True, slots=True, kw_only=True)
class StagePlan:
    """A step of the ramp: the hosts off control at most, how long to hold, who approves the next step."""

    index: int
    hosts: int  # cumulative number of units that have joined by the end of this stage
    hold_seconds: float
    approve: Approval = Approval.AUTO


@dataclass(frozen=True, slots=True, kw_only=True)
class Safety:
    max_failed_hosts: int
    lease_seconds: float
    on_drift: DriftPolicy
    max_attempts: int = 3  # how often a broken block is tried
    max_changing: int | None = None  # most hosts that are claimed, written to or put back at once; None: no limit
    max_per: Mapping[str, int] = field(default_factory=dict)  # label -> most hosts off control per value of it
    on_short_pool: ShortPoolPolicy = ShortPoolPolicy.FAIL


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything that will happen, decided before anything is touched. Equal seeds and hosts give equal plans."""

    design: Design
    seed: int
    arms: tuple[Arm, ...]  # the control arm first
    control: str
    units: tuple[UnitPlan, ...]
    stages: tuple[StagePlan, ...]
    sample_every_seconds: float
    safety: Safety
    workloads: Mapping[str, WorkloadSpec] = field(default_factory=dict)  # arm -> workload; missing: watch only
    sources: tuple[MetricSource, ...] = ()  # where metrics of the user's own are read, on every host
    events: tuple[str, ...] = ()  # metrics of perf events that its metrics need
    needed_events: tuple[str, ...] = ()  # of these, what the primary metric and the guardrails need
    trace: tuple[Traced, ...] = ()  # what of the kernel is traced in every period
    assignment: AssignmentPlan = field(default_factory=AssignmentPlan)
    pressure: WorkloadSpec | None = None  # what holds memory on every host as long as it is claimed

    @property
    def knobs(self) -> tuple[str, ...]:
        """Every knob that any arm names, sorted."""
        return tuple(sorted({knob for arm in self.arms for knob in arm.knobs}))

    @property
    def seconds(self) -> float:
        """Planned length of the longest unit's schedule."""
        return max((sum(period.seconds for period in unit.periods) for unit in self.units), default=0.0)

    def arm(self, name: str) -> Arm:
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise KeyError(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRecord:
    """A period as the store knows it."""

    period_id: int
    host: str
    plan: PeriodPlan
    state: PeriodState
    reason: str
    started_at: datetime | None
    ended_at: datetime | None
    broken_by: BrokenBy = BrokenBy.NOTHING
