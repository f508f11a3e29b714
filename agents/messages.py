"""What orchestrator and agent say to each other: frozen dataclasses, one request type per thing an agent can do.

    request       reply            effect on the host
    Survey        HostFacts        none
    SurveyPages   PageSurvey       none
    Preflight     PreflightReport  none
    Claim         Claimed          the host lock, the journal and the guardian exist
    Apply         Applied          knobs hold the arm, read back
    Begin         Begun            sampling, and the workload where the period has one
    Poll          Polled           renews the lease
    End           Ended            sampling and workload stopped; everything read is in the stream
    Revert        Reverted         knobs as they were found, read back
    Release       Released         the claim is over

Readings (samples, measurements, host events) travel as one ordered stream per claim. `position` numbers the stream;
the orchestrator acknowledges the last position it has stored, and the agent keeps on disk what is not acknowledged.
The store tells doubles apart by (period_id, sequence).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from agents.histograms.buckets import HistogramQuestion
from agents.survey.figures import PageSurvey, SurveyPages
from agents.traced_calls import Traced, TracedCalls

Scalar: TypeAlias = str | int | float | bool | None


# ---------------------------------------------------------------------------- settings and workloads
@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """A named set of knob values. A knob that the arm does not name holds the value it was found with."""

    name: str
    knobs: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """A workload by its kind ('pointer_chase', 'service', ...) and the options of that kind, already in base units."""

    kind: str
    options: Mapping[str, Scalar | tuple[Scalar, ...]] = field(default_factory=dict)


class SourceForm(StrEnum):
    """How what a source says is understood."""

    NUMBER = "number"  # it is one number and nothing else
    JSON = "json"
    PROMETHEUS = "prometheus"  # a page in the Prometheus text or OpenMetrics format
    HISTOGRAM = "histogram"  # the same, of which all buckets of a histogram are read

    @property
    def exposition(self) -> bool:
        """Whether it is a page in the Prometheus text or OpenMetrics format."""
        return self in {SourceForm.PROMETHEUS, SourceForm.HISTOGRAM}


AT_LEAST, AT_MOST = "_at_least", "_at_most"  # behind a metric's name: the ends of the bucket that its value lies in


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSource:
    """Where a metric of the user's own is read (a URL, a command, a perf event or a registered place), and how."""

    metric: str
    url: str = ""  # {host} in it stands for the name of the host
    argv: tuple[str, ...] = ()  # never a shell
    place: str = ""  # a key of `agents.metric_sources.place_kind`, and
    at: str = ""  # what stands there
    perf: str = ""  # an event as perf writes it: always a counter, read with the samples
    in_cgroup: bool = False  # it counts the tasks in the workload's cgroup, not all of the host
    user: str | None = None  # who runs the command; None: who the agent is
    form: SourceForm = SourceForm.NUMBER
    pick: str = ""  # name of the series or of the histogram, or path in the JSON document
    labels: Mapping[str, str] = field(default_factory=dict)  # of the series: each exactly so
    sum_series: bool = False  # several series may match, and are added up
    counter: bool = False
    kind_said: bool = False  # counter or gauge is the user's own word, which stands against the page's
    every_seconds: float = 0.0  # least time between two readings; 0: as often as samples are taken
    timeout_seconds: float = 5.0
    needed: bool = False  # the run must not start on a host where this can't be read
    quantile: float | None = None  # of what a histogram rose by in the period, between 0 and 1; or else
    share_below: float | None = None  # the share of its observations up to this bound

    @property
    def question(self) -> HistogramQuestion:
        """What is asked of the histogram."""
        return HistogramQuestion(quantile=self.quantile, share_below=self.share_below)

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that is the source's.

        Of an event also how long it was wanted and counted, and the share; of a histogram the ends of the bucket.
        """
        own: tuple[str, ...] = ()
        if self.perf:
            own = ("_time_enabled_seconds", "_time_running_seconds", "_coverage")
        elif self.form is SourceForm.HISTOGRAM:
            own = (AT_LEAST, AT_MOST)
        return tuple(self.metric + ending for ending in ("", *own))


class KnobReason(StrEnum):
    """Why a knob was written."""

    APPLY = "apply"
    REVERT = "revert"
    REAPPLY = "reapply"
    GUARDIAN = "guardian"  # undone by the guardian: the lease ran out
    RESTORE = "restore"  # undone by hand, with `fleetexp restore`


@dataclass(frozen=True, slots=True, kw_only=True)
class KnobChange:
    """One write to a knob: what was there, what was asked for, what reads back. A no-op is recorded too."""

    knob: str
    before: str
    wanted: str
    after: str
    reason: KnobReason
    changed_at: datetime
    error: str | None = None

    @property
    def ok(self) -> bool:
        return self.error is None


# ---------------------------------------------------------------------------- the stream
@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One reading of the collectors: metric name -> value as read (counters raw, gauges in the metric's unit)."""

    position: int
    period_id: int
    sequence: int
    taken_at: datetime
    boottime_seconds: float  # CLOCK_BOOTTIME: differences are durations, also across a change of the wall clock
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One value that the workload or a source reported: in the metric's unit, a counter raw."""

    position: int
    period_id: int
    sequence: int
    taken_at: datetime
    metric: str
    value: float


class HostEventKind(StrEnum):
    """What can happen on a host that is not a number."""

    DRIFT = "drift"  # a knob reads differently from what the arm wants: somebody else wrote it
    KERNEL_OOPS = "kernel_oops"
    BAD_PAGE = "bad_page"
    TAINT = "taint"  # the kernel is in trouble: an oops, a warning, a bad page, a machine check, a soft lockup
    KERNEL_CHANGED = "kernel_changed"  # a module or a live patch was loaded: told, and no reason to halt
    OOM_KILL = "oom_kill"
    REBOOT = "reboot"
    WORKLOAD_FAILED = "workload_failed"
    GUARDIAN_RESTARTED = "guardian_restarted"
    LEASE_EXPIRED = "lease_expired"
    LEFTOVER_RESTORED = "leftover_restored"  # an earlier claim's knobs were still set and have been put back
    FOREIGN_METRIC = "foreign_metric"  # the workload, or a source, reported a value under another's name: not kept
    SOURCE_LOST = "source_lost"  # a file that the collectors read has gone away, or a source gives no value any more
    TRACE_INCOMPLETE = "trace_incomplete"  # something that the experiment asks to be traced was not, or not all of it


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEvent:
    """Something that happened on the host; `period_id` is 0 outside any period, `metric` what a source lost."""

    position: int
    period_id: int
    sequence: int
    taken_at: datetime
    kind: HostEventKind
    detail: str
    metric: str = ""


Reading: TypeAlias = Sample | Measurement | HostEvent


# ---------------------------------------------------------------------------- what a host is
@dataclass(frozen=True, slots=True, kw_only=True)
class ThpSize:
    """One transparent-huge-page size and what it does now. `effective` resolves `inherit` through the top level."""

    size_kib: int
    enabled: str
    effective: str
    shmem_enabled: str | None
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class HugetlbPool:
    """One hugetlb pool, counts in pages of `size_kib`."""

    size_kib: int
    total_pages: int
    free_pages: int
    surplus_pages: int
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedEvent:
    """What a metric of perf events counts on a host: perf's or the CPU maker's name, and how the kernel is asked."""

    event: str
    encoding: str  # type=0x4,config=0x80e
    pmu: str  # '' for the kernel's generic events
    counts: str = ""  # where the metric's meaning, or the event's name, does not say it
    in_cgroup: bool = False  # of the tasks in the workload's cgroup, not all of the host

    @property
    def meaning(self) -> str:
        """What is counted, in words that are the same where it is."""
        return self.counts or self.event


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSupport:
    """Whether a metric of perf events can be counted here, and if not, why; `counted` is what it would be.

    `brief` is the reason without where that was seen.
    """

    event: str
    available: bool
    reason: str = ""
    brief: str = ""
    counted: CountedEvent | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The map of a host as `doctor` shows it and the store keeps it. Unknown is None, '' or 0, never a guess."""

    host: str
    taken_at: datetime
    boot_id: str
    kernel: str
    architecture: str
    cpu_model: str
    cpus: int
    numa_nodes: int
    numa_balancing: bool | None
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int
    base_page_bytes: int
    uptime_seconds: float
    thp_sizes: tuple[ThpSize, ...]
    thp_top_level: str
    thp_defrag: str
    hugetlb_pools: tuple[HugetlbPool, ...]
    knobs: Mapping[str, str]  # every knob fleetexp knows that exists here -> value as read
    writable_knobs: tuple[str, ...]
    not_writable_because: str
    perf_events: tuple[EventSupport, ...]
    cgroup_version: int | None
    pressure_available: bool
    virtualisation: str  # '' for bare metal, 'unknown', else the hypervisor's or container's name
    kernel_taint: int
    other_managers: tuple[str, ...]  # TuneD, ktune, ...: what may write the same knobs
    page_splitting_readers: tuple[str, ...]  # running programs known to read smaps or pagemap
    labels: Mapping[str, str] = field(default_factory=dict)
    thp_pmd_kib: int = 0  # the huge page that one PMD maps
    pressure_missing_because: str = ""
    splits_traceable: bool = False
    splits_not_traceable_because: str = ""
    hugetlb_cma: str = ""  # the area kept at boot that gigantic hugetlb pages are taken from, as the kernel was told it
    cma_total_bytes: int = 0  # of all such areas, whoever they are for

    def counted(self, metric: str) -> CountedEvent | None:
        """Return what a metric of perf events, of host or cgroup, counts here; None where that is not known."""
        name = metric.removeprefix("cgroup_")
        found = next((one.counted for one in self.perf_events if one.event == name and one.available), None)
        return found and replace(found, in_cgroup=name != metric)

    def uncounted(self, metrics: Iterable[str]) -> dict[str, list[str]]:
        """Return those of these metrics of perf events that can't be counted here, by the reason."""
        missing: dict[str, list[str]] = {}
        of_host = {one.event: one for one in self.perf_events}
        for metric in metrics:
            support = of_host.get(metric.removeprefix("cgroup_"))
            if support is not None and not support.available:
                missing.setdefault(support.reason, []).append(metric)
        return missing

    def thp_switch(self, size_kib: int) -> str:
        """Return the knob that switches a size of `thp_sizes`: its own, or the top level where none has its own."""
        own = any(f"thp/{size.size_kib}kB/enabled" in self.knobs for size in self.thp_sizes)
        return f"thp/{size_kib}kB/enabled" if own else "thp/enabled"


class Severity(StrEnum):
    ERROR = "error"  # the run must not start
    WARNING = "warning"  # it may, and the report will say so


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing preflight found: what, where, and the remedy."""

    severity: Severity
    what: str
    where: str
    remedy: str


# ---------------------------------------------------------------------------- requests
@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """Ask for the host's facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """Ask whether these arms and this workload could run here, and read each source once. Changes nothing."""

    arms: tuple[Arm, ...]
    workloads: tuple[WorkloadSpec, ...]
    sources: tuple[MetricSource, ...] = ()
    events: tuple[str, ...] = ()  # metrics of perf events that the experiment's metrics need
    needed_events: tuple[str, ...] = ()  # of these, what it would say nothing without
    trace: tuple[Traced, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Take the host for a run: snapshot and journal the knobs named, start the guardian with this lease."""

    run: str  # shown to whoever finds the host taken
    owner: str  # user@host pid of the orchestrator
    knobs: tuple[str, ...]
    lease_seconds: float
    pressure: WorkloadSpec | None = None  # what holds memory, from before the first arm until the host is put back


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    """Make the knobs hold the arm; what the arm does not name goes back to the journaled original."""

    arm: Arm
    reason: KnobReason = KnobReason.APPLY
    restart: WorkloadSpec | None = None  # a service to restart after the write, so that its memory sees the arm
    short_pools: bool = False  # a pool that the kernel grants in part counts as applied


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Start a period: sample every `sample_every_seconds`; start the workload where one is given."""

    period_id: int
    sample_every_seconds: float
    workload: WorkloadSpec | None
    time_limit_seconds: float
    sources: tuple[MetricSource, ...] = ()
    events: tuple[str, ...] = ()  # metrics of perf events that are wanted, beside those that are always counted
    trace: tuple[Traced, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """Renew the lease, acknowledge the stream up to `acknowledged`, ask for what follows."""

    acknowledged: int
    at_most: int = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """End the period: stop the workload, take the boundary sample."""

    period_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Revert:
    """Put every knob back and read it back."""

    reason: KnobReason = KnobReason.REVERT


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """End the claim: close the journal, stop the guardian, free the host lock."""


Request: TypeAlias = Survey | SurveyPages | Preflight | Claim | Apply | Begin | Poll | End | Revert | Release


# ---------------------------------------------------------------------------- replies
@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightReport:
    problems: tuple[Problem, ...]
    own_events: tuple[EventSupport, ...] = ()  # of the sources that are perf events

    @property
    def ok(self) -> bool:
        return all(problem.severity is not Severity.ERROR for problem in self.problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claimed:
    """The host is ours: `found` is what is journaled; `leftovers` are writes that undid an earlier, dead claim."""

    found: Mapping[str, str]
    leftovers: tuple[KnobChange, ...]
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    arm: str
    changes: tuple[KnobChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    period_id: int
    begun_at: datetime
    boot_id: str


class WorkloadState(StrEnum):
    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    readings: tuple[Reading, ...]
    more: bool
    lease_remaining_seconds: float
    period_id: int  # 0 between periods
    workload: WorkloadState
    workload_detail: str
    drift: tuple[str, ...]  # knobs that do not hold the arm now


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    period_id: int
    ended_at: datetime
    last_position: int  # the period is complete in the store once this position is acknowledged
    workload: WorkloadState
    workload_detail: str
    invalid: str  # '' or why the period must not be used (reboot, drift, lease ran out, workload failed)
    calls: tuple[TracedCalls, ...] = ()  # of what was traced


@dataclass(frozen=True, slots=True, kw_only=True)
class Reverted:
    """What was put back; `earlier` are writes of arms that could not be applied, and how those were taken back."""

    changes: tuple[KnobChange, ...]
    earlier: tuple[KnobChange, ...] = ()

    @property
    def ok(self) -> bool:
        return all(change.ok for change in self.changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    pass


Reply: TypeAlias = (
    HostFacts | PageSurvey | PreflightReport | Claimed | Applied | Begun | Polled | Ended | Reverted | Released
)
