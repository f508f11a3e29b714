"""What a report is made of: plain values, filled by the caller from its store; instants are aware UTC.

Unknown is None (or '' for text) and is shown as unknown or unavailable, never as 0. Texts may hold anything, markup
and control characters too: they are escaped where they are written out, not here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from analysis.plan import Direction
from analysis.results import Findings


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
class UnavailableMetric:
    """A metric that was asked for and could not be measured here, with the reason."""

    metric: str
    reason: str


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
