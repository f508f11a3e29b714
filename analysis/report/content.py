"""What a report is made of: plain values, filled by the caller from its store; instants are aware UTC.

Unknown is None (or '' for text) and is shown as unknown or unavailable, never as 0. Texts may hold anything, markup
and control characters too: they are escaped where they are written out, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from analysis.plan import Direction
from analysis.results import Findings, Interval, Units


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmRow:
    """One arm: the knobs it sets ({}: as found) and, in words, the workload that ran under it."""

    name: str
    knobs: Mapping[str, str]
    workload: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodRow:
    """One slot of time on a host under one arm, as it really went."""

    period_id: int
    host: str
    arm: str
    kind: str  # 'baseline', 'washout', 'measure'
    block: int  # -1 outside any block
    attempt: int
    position: int  # in the host's schedule, from 0
    state: str  # 'planned', 'running', 'complete', 'invalid'
    reason: str  # why it is invalid
    started_at: datetime | None
    ended_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobRow:
    """One write to a knob: what was there, what was asked for, what read back."""

    host: str
    knob: str
    before: str
    wanted: str
    after: str
    reason: str  # 'apply', 'revert', 'reapply', 'guardian', 'restore'
    changed_at: datetime
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened on a host, or ('' as host) to the run."""

    host: str
    at: datetime
    kind: str
    detail: str
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposureRow:
    """What one arm asked for in one page size, and what the kernel gave; sums over the periods that were used."""

    arm: str
    page_size_kib: int
    assigned: str  # the value the arm gave the size: 'always', 'never', or 'as found (madvise)'
    faulted_pages: float | None  # big pages handed out at a fault
    fallbacks: float | None  # faults that wanted a big page and got smaller ones
    splits: float | None  # big pages taken apart again
    backed_bytes: float | None  # memory backed by this size: mean over the periods


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyRow:
    """How long something took under one arm: quantiles within each period, then over the periods. `unit` is of time."""

    metric: str
    arm: str
    unit: str
    readings: int  # single measurements behind it
    p50: float  # mean over the periods of each period's median
    p99: float  # mean over the periods of each period's p99
    maximum: float  # the worst single one


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSplits:
    """Mappings of big pages that were split under one arm, the pages themselves staying whole; summed over periods."""

    arm: str
    metric: str  # the kernel's counter of them
    splits: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitCauseRow:
    """Splits of big pages by one cause in the name of one program; sums over the periods that were used."""

    arm: str
    metric: str  # the kernel's counter of the same
    cause: str
    program: str  # '' for the programs that were left off
    splits: float
    timed: float  # of them
    seconds_lost: float | None  # how long the timed ones took together; None: none was timed


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitsCounted:
    """What was traced under one arm against what the kernel's own counter rose by in the same periods."""

    arm: str
    metric: str
    traced: float
    counted: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StallRow:
    """How long one function of the kernel kept one program waiting; sums over the periods that were used."""

    arm: str
    function: str
    program: str  # '' for the programs that were left off
    calls: float
    seconds_lost: float | None
    longest_seconds: float | None  # none took longer


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplyRow:
    """What the workload of one arm asked for, was given and waited for; None where it was not measured."""

    arm: str
    page_size_kib: int  # asked for; 0: the largest that was enabled
    asked: float  # big pages, over all periods
    given: float
    p50: float | None  # seconds of the first touch of a big page: as in LatencyRow
    p99: float | None
    maximum: float | None
    region_seconds: float | None  # to fault the whole region in: mean over the periods
    memory_used_bytes: float | None  # of the host: mean over the periods


@dataclass(frozen=True, slots=True, kw_only=True)
class SuccessRow:
    """How many of the big pages asked for were given, where a circumstance lay in one range."""

    page_size_kib: int
    circumstance: str  # 'free memory', 'uptime at the start'
    least: float  # of the range, in `unit`
    most: float
    unit: str
    periods: int
    asked: float  # faults that wanted a big page
    given: float
    clustered_by: Units  # pages of one host, where there is one of one period, go alike
    clusters: int
    interval: Interval | None  # of given / asked; None with too few clusters for one


@dataclass(frozen=True, slots=True, kw_only=True)
class DoseRow:
    """One host: what it received of the treatment, and what the primary metric came to there."""

    host: str
    arm: str
    dose: float
    outcome: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Doses:
    """Every host's dose and outcome, for the dose-response picture."""

    dose_metric: str
    dose_unit: str
    outcome_metric: str
    outcome_unit: str
    hosts: tuple[DoseRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesRow:
    """One metric of one arm over time: means over its hosts in each stretch of time; seconds since the start."""

    metric: str
    unit: str
    arm: str
    seconds: tuple[float, ...]
    means: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """A step of the ramp: when it opened (seconds since the start; None: it never did) and how it was planned."""

    index: int
    hosts: int  # that have joined by its end
    hold_seconds: float
    approve: str
    opened_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignedRow:
    """How many hosts of a stratum each arm was given, and how many of them were measured."""

    stage: int
    stratum: str
    arm: str
    hosts: int
    measured: int


@dataclass(frozen=True, slots=True, kw_only=True)
class UnavailableMetric:
    """A metric that was asked for and could not be measured here, with the reason."""

    metric: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralRow:
    """One request to a metrics' server: for which instants, and the SHA-256 of its answer, '' where none came.

    `said` is how it was not answered, and what the server itself says of its answer.
    """

    metric: str
    server: str
    promql: str
    start_at: datetime
    end_at: datetime
    step_seconds: float
    outcome: str
    said: str
    series: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralGapRow:
    """How many periods have no value of a metric of a metrics' server, for one reason ('': how many have one)."""

    metric: str
    gap: str
    periods: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketRow:
    """How finely a histogram's buckets told one metric under one arm, in the metric's unit.

    `low` and `high` are the ends of all buckets that held its values together, `width` their mean width over the
    periods; None where a bucket has no end there. `without_end`: in how many of `periods` that was so.
    """

    metric: str
    unit: str
    arm: str
    periods: int
    without_end: int
    low: float | None
    high: float | None
    width: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricNote:
    """What a metric means, in a few words, and which way is better (None: neither)."""

    metric: str
    meaning: str
    better: Direction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlSuggestion:
    """A question to ask the store next."""

    title: str
    sql: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRow:
    """A file or query that measurements were imported from; `question` is the SQL, '' for a file."""

    name: str
    sha256: str
    rows: int
    question: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """Everything a report says. The report adds words, units and pictures, no facts; it reads no clock."""

    run_id: str
    experiment: str
    hypothesis: str
    design: str  # 'switchback' or 'parallel'
    state: str  # fleetexp.domain.RunState as text
    launched_by: str
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    seed: int
    spec: str  # the YAML, as it was read
    versions: Mapping[str, str]
    command: str  # reproduces the run
    environment: tuple[tuple[str, str], ...]  # label, value: in the order shown
    arms: tuple[ArmRow, ...]
    control: str
    findings: Findings
    periods: tuple[PeriodRow, ...] = ()
    knob_changes: tuple[KnobRow, ...] = ()
    events: tuple[EventRow, ...] = ()
    exposure: tuple[ExposureRow, ...] = ()
    unavailable: tuple[UnavailableMetric, ...] = ()
    notes: tuple[MetricNote, ...] = ()
    suggestions: tuple[SqlSuggestion, ...] = ()
    latencies: tuple[LatencyRow, ...] = ()
    supplies: tuple[SupplyRow, ...] = ()
    successes: tuple[SuccessRow, ...] = ()
    doses: Doses | None = None
    series: tuple[SeriesRow, ...] = ()
    stages: tuple[StageRow, ...] = ()
    assigned: tuple[AssignedRow, ...] = ()
    host_seconds: Mapping[str, float] = field(default_factory=dict)  # arm -> time measured and used, over its hosts
    central: tuple[CentralRow, ...] = ()
    central_gaps: tuple[CentralGapRow, ...] = ()
    buckets: tuple[BucketRow, ...] = ()
    split_causes: str = ""  # why the causes of splits are not known, '' where nothing is known about that either
    mapping_splits: tuple[MappingSplits, ...] = ()
    caused_splits: tuple[SplitCauseRow, ...] = ()
    splits_counted: tuple[SplitsCounted, ...] = ()
    stalls: tuple[StallRow, ...] = ()
    # Key of a table -> the SELECT that gives its numbers; printed in the appendix.
    queries: Mapping[str, str] = field(default_factory=dict)
    simulated: bool = False  # the hosts were simulated: nothing here was measured on a kernel
    read_from: tuple[SourceRow, ...] = ()  # of an import, what somebody brought; () for a run of hosts
