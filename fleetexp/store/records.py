"""What the store hands out: runs, readings of a period, as frozen records with the domain's own types."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from agents.conformance.verdict import PageVerdict
from agents.messages import HostEventKind
from analysis.results import Decision
from fleetexp.domain import (
    BrokenBy,
    CentralGap,
    CentralOutcome,
    EventKind,
    Origin,
    PeriodState,
    Plan,
    RunCause,
    RunState,
)

AnyKind: TypeAlias = EventKind | HostEventKind
Floats = NDArray[np.float64]

# A run in one of these states holds its hosts; paused and ended runs have given them back.
LIVE = (RunState.PREFLIGHT, RunState.RUNNING, RunState.ANALYSING, RunState.HALTING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run as the store knows it. Instants are aware UTC; `decision` is None before the analysis."""

    run_id: int
    experiment: str
    hypothesis: str
    state: RunState
    cause: RunCause
    reason: str
    origin: Origin
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    spec_text: str
    plan: Plan
    launched_by: str
    fleet: str
    versions: Mapping[str, str]
    decision: Decision | None
    decision_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One metric over one period: instants in seconds, rising, and the values read at them."""

    seconds: Floats
    values: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodReadings:
    """Everything read in one period. A metric that was not available in a sample has no value there, never zero.

    `samples`: metric -> raw readings by CLOCK_BOOTTIME; `measured`: metric -> what the workload reported, by Unix time.
    `began`: when the first sample was taken, and CLOCK_BOOTTIME then; None where there is none.
    """

    period_id: int
    samples: Mapping[str, Series]
    measured: Mapping[str, Series]
    began: tuple[datetime, float] | None = None

    def between(self, since: datetime | None = None, until: datetime | None = None) -> PeriodReadings:
        """Return what was read after `since` and not after `until`; a metric without a reading then is left out."""

        def since_boot(moment: datetime) -> float:
            # A wall clock may be set while a period runs: samples are cut by the time since the host's boot.
            return 0.0 if self.began is None else self.began[1] + (moment - self.began[0]).total_seconds()

        def cut(read: Mapping[str, Series], seconds_at: Callable[[datetime], float]) -> dict[str, Series]:
            low = -np.inf if since is None else seconds_at(since)
            high = np.inf if until is None else seconds_at(until)
            parts = {name: (one, (one.seconds > low) & (one.seconds <= high)) for name, one in read.items()}
            return {
                name: Series(seconds=one.seconds[kept], values=one.values[kept])
                for name, (one, kept) in parts.items()
                if kept.any()
            }

        return replace(self, samples=cut(self.samples, since_boot), measured=cut(self.measured, datetime.timestamp))


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodStart:
    """The start of a period: when sampling began, and in which boot of the host."""

    period_id: int
    started_at: datetime
    boot_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PeriodEnd:
    """The end of a period, and whether it may be used; `reason` says why not, `broken_by` what broke it."""

    period_id: int
    ended_at: datetime
    state: PeriodState
    reason: str = ""
    broken_by: BrokenBy = BrokenBy.NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedRecord:
    """What a metric of perf events really counted on a host; see the table counted_event."""

    host: str
    metric: str
    event: str
    encoding: str
    pmu: str
    scope: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSizeRecord:
    """How a page size behaved on a host under one kernel: the newest verdict on each scenario, over all trials.

    `open_trial`: the newest has not ended; `given_up`: why it was given up, or ''.
    """

    host: str
    kernel: str
    open_trial: bool
    given_up: str
    verdicts: Mapping[str, PageVerdict]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened in a run; `host` is '' and `period_id` 0 where it concerns the whole run.

    `state` is the one that the run entered or a halt is heading to, `cause` what that is owed to; `stage` has opened;
    `metric` is what it is about. Nobody reads `detail` but people.
    """

    at: datetime
    host: str = ""
    period_id: int = 0
    kind: AnyKind
    detail: str = ""
    state: RunState | None = None
    cause: RunCause = RunCause.NONE
    stage: int | None = None
    metric: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralRequest:
    """A request to a metrics' server and what became of it; see the table central_answer. `metric` '': its clock."""

    metric: str
    server: str
    promql: str
    start_at: datetime
    end_at: datetime
    step_seconds: float
    asked_at: datetime
    took_seconds: float
    outcome: CentralOutcome
    detail: str = ""
    warnings: tuple[str, ...] = ()
    series: int = 0
    size_bytes: int = 0
    sha256: str | None = None
    ahead_seconds: float | None = None
    ahead_error_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CentralValue:
    """How a metrics' server answered for one metric of a period that has ended; see the table central_value."""

    period_id: int
    metric: str
    due: int
    read: int
    gap: CentralGap
