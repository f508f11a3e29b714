"""The tables of the store, as typed mappings. Every column says its unit; migrations/ creates what is written here.

experiment   what is asked: a name and a spec; of an import its mapping
run          one execution of it, or one import: plan, state, findings
import_source  what an imported run was read from
host         a unit, by name; host_facts is what it was at the time of a run, counted_event what its CPU counted
assignment   (run, host) -> stratum, arm
period       one slot of time on a host under one arm; the schedule of a run
sample       one reading of the collectors: wide, a column per common metric, the rest in `extra`
measurement  one value that a workload reported
observation  one summary per (period, metric): where the analysis starts
knob_change  every write to a kernel setting
event        what happened on a host, and who did what with a run
estimate, guardrail_check, finding   what the analysis found
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from sqlalchemy import ForeignKey, Index, MetaData, Table, UniqueConstraint, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from agents.catalogue import CATALOGUE
from fleetexp.domain import Origin, RunCause
from fleetexp.store.column_types import Extra, Flag, Instant, JsonDocument, Real, Whole, Words

# The newest revision in migrations/versions; older and newer databases are refused.
SCHEMA_VERSION = "0014"

Json = Annotated[Any, mapped_column(JsonDocument())]


class Base(DeclarativeBase):
    """Base of every table: names of constraints are said, not made up by the database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {int: Whole, float: Real, str: Words(), datetime: Instant(), bool: Flag}


STRICT = {"sqlite_strict": True}
NUMBERED = {"sqlite_strict": True, "sqlite_autoincrement": True}  # a number is never given twice


class StoredExperiment(Base):
    __tablename__ = "experiment"
    __table_args__ = (UniqueConstraint("name", "spec_hash"), {**NUMBERED, "comment": "What is asked: one spec."})

    experiment_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the experiment")
    name: Mapped[str] = mapped_column(comment="name in the spec")
    hypothesis: Mapped[str] = mapped_column(comment="what the experimenter expects, in words")
    spec_hash: Mapped[str] = mapped_column(comment="SHA-256 of spec_text, hexadecimal")
    spec_text: Mapped[str] = mapped_column(comment="the YAML as it was written")
    spec: Mapped[Json] = mapped_column(comment="the spec as parsed, JSON")
    created_at: Mapped[datetime] = mapped_column(comment="when it was first launched, UTC")


class Run(Base):
    __tablename__ = "run"
    __table_args__ = ({**NUMBERED, "comment": "One execution of an experiment."},)

    run_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the run")
    experiment_id: Mapped[int] = mapped_column(
        ForeignKey("experiment.experiment_id"), index=True, comment="the experiment that is run"
    )
    state: Mapped[str] = mapped_column(comment="where the run is: planned, running, completed, halted, ...")
    cause: Mapped[str | None] = mapped_column(
        comment=f"what its state is owed to: {', '.join(filter(None, RunCause))}; NULL: the ordinary course"
    )
    reason: Mapped[str] = mapped_column(comment="why it is in this state, in words; empty where that needs none")
    origin: Mapped[str] = mapped_column(
        comment="fleet: hosts that fleetexp put under the arms; import: data that somebody brought",
        server_default=Origin.FLEET.value,
    )
    design: Mapped[str] = mapped_column(
        comment="switchback or parallel; retrospective: the hosts were chosen, not drawn, and are looked back on"
    )
    control_arm: Mapped[str] = mapped_column(comment="the arm that the others are compared with")
    seed: Mapped[int] = mapped_column(comment="seed of the randomisation")
    plan: Mapped[Json] = mapped_column(comment="everything that was planned, JSON")
    launched_by: Mapped[str] = mapped_column(comment="user@host pid of the orchestrator")
    fleet: Mapped[str] = mapped_column(comment="kind of fleet: local, inline, ray, simulated; of an import empty")
    versions: Mapped[Json] = mapped_column(comment="package -> version, JSON")
    created_at: Mapped[datetime] = mapped_column(comment="when the run was entered, UTC")
    started_at: Mapped[datetime | None] = mapped_column(comment="when it first ran, UTC")
    ended_at: Mapped[datetime | None] = mapped_column(comment="when it reached its last state, UTC")
    request: Mapped[str | None] = mapped_column(comment="what was asked of the orchestrator: pause, abort or approve")
    requested_by: Mapped[str | None] = mapped_column(comment="who asked")
    decision: Mapped[str | None] = mapped_column(
        comment="ship, ship_in_strata, better_here, inconclusive or do_not_ship; NULL before the analysis"
    )
    decision_reason: Mapped[str | None] = mapped_column(comment="the decision's reason in one sentence")
    findings: Mapped[Json | None] = mapped_column(comment="everything the analysis found, JSON")


class Host(Base):
    __tablename__ = "host"
    __table_args__ = ({**NUMBERED, "comment": "A unit of randomisation."},)

    host_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the host")
    name: Mapped[str] = mapped_column(unique=True, comment="name of the host in the fleet")
    first_seen_at: Mapped[datetime] = mapped_column(comment="when a plan first named it, UTC")


class HostFactsRow(Base):
    __tablename__ = "host_facts"
    __table_args__ = (
        UniqueConstraint("run_id", "host_id", "taken_at"),
        {**NUMBERED, "comment": "What a host was when a run surveyed it."},
    )

    host_facts_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the survey")
    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), comment="the run that asked")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), index=True, comment="the host")
    taken_at: Mapped[datetime] = mapped_column(comment="when it was surveyed, UTC")
    boot_id: Mapped[str] = mapped_column(comment="changes with every boot")
    kernel: Mapped[str] = mapped_column(comment="release of the kernel")
    architecture: Mapped[str] = mapped_column(comment="machine, as uname says it")
    cpu_model: Mapped[str] = mapped_column(comment="model name of the first CPU")
    cpus: Mapped[int] = mapped_column(comment="online CPUs")
    numa_nodes: Mapped[int] = mapped_column(comment="NUMA nodes with memory or CPUs")
    memory_total_bytes: Mapped[int] = mapped_column(comment="memory that the kernel manages, bytes")
    virtualisation: Mapped[str] = mapped_column(comment="hypervisor or container; empty for bare metal")
    facts: Mapped[Json] = mapped_column(comment="all facts, JSON")


class CountedEventRow(Base):
    __tablename__ = "counted_event"
    __table_args__ = (
        {**STRICT, "comment": "What a metric of perf events really counted on a host: CPUs differ under one name."},
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), primary_key=True, comment="the run")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), primary_key=True, index=True, comment="the host")
    metric: Mapped[str] = mapped_column(
        primary_key=True, comment="the metric, cgroup_ where it is of the workload's cgroup"
    )
    event: Mapped[str] = mapped_column(primary_key=True, comment="the event by its maker's name, or perf's")
    encoding: Mapped[str] = mapped_column(primary_key=True, comment="what perf_event_open was given, hexadecimal")
    pmu: Mapped[str] = mapped_column(comment="the kernel's name of the PMU; empty for a generic event")
    scope: Mapped[str] = mapped_column(comment="host (all tasks) or cgroup; user and kernel on all CPUs")
    meaning: Mapped[str] = mapped_column(comment="what is counted, in words that are the same where it is the same")


class StoredAssignment(Base):
    __tablename__ = "assignment"
    __table_args__ = ({**STRICT, "comment": "Which host is in which run, stratum and arm."},)

    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), primary_key=True, comment="the run")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), primary_key=True, index=True, comment="the host")
    stratum: Mapped[str] = mapped_column(comment="what the randomisation kept together, such as pool and SKU")
    arm: Mapped[str | None] = mapped_column(comment="arm of the host; NULL in a switchback, where it has every arm")
    stage: Mapped[int] = mapped_column(comment="stage at which the host joins, from 0")
    changed_at: Mapped[datetime | None] = mapped_column(
        comment="of an import: since when the host is changed, UTC, as somebody said; NULL: never, or not said"
    )


class ImportSource(Base):
    __tablename__ = "import_source"
    __table_args__ = ({**STRICT, "comment": "What an imported run was read from. Of its values the sums are kept."},)

    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), primary_key=True, comment="the run")
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="order of reading, from 0")
    name: Mapped[str] = mapped_column(comment="path of the file, address of the database, or 'the frame'")
    sha256: Mapped[str] = mapped_column(comment="SHA-256 of the file, of a query or frame of its rows; hexadecimal")
    size_bytes: Mapped[int | None] = mapped_column(comment="size of the file, bytes; NULL where it is none")
    question: Mapped[str] = mapped_column(comment="the SQL whose rows were read; empty for a file")
    rows: Mapped[int] = mapped_column(comment="rows that were read, count")


class StoredPeriod(Base):
    __tablename__ = "period"
    __table_args__ = (
        UniqueConstraint("run_id", "host_id", "position", "attempt"),
        {**NUMBERED, "comment": "One slot of time on a host under one arm."},
    )

    period_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the period")
    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), comment="the run")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), index=True, comment="the host")
    position: Mapped[int] = mapped_column(comment="place in the host's schedule, from 0")
    attempt: Mapped[int] = mapped_column(comment="how often the block had been tried before, from 0")
    kind: Mapped[str] = mapped_column(comment="baseline, washout or measure")
    arm: Mapped[str] = mapped_column(comment="the arm whose knobs hold")
    block: Mapped[int] = mapped_column(comment="pair or set of arms that it belongs to; -1 outside any")
    stage: Mapped[int] = mapped_column(comment="stage of the ramp, from 0")
    planned_seconds: Mapped[float] = mapped_column(comment="planned length, seconds")
    state: Mapped[str] = mapped_column(comment="planned, running, complete or invalid")
    reason: Mapped[str] = mapped_column(comment="why it is invalid; empty otherwise")
    broken_by: Mapped[str] = mapped_column(
        comment="what made it invalid: host (something under its arm), run (it was stopped), block (another of its "
        "periods broke); empty: nothing did, or not known"
    )
    started_at: Mapped[datetime | None] = mapped_column(comment="when sampling began, UTC")
    ended_at: Mapped[datetime | None] = mapped_column(comment="when sampling ended, UTC")
    boot_id: Mapped[str | None] = mapped_column(comment="boot in which it began: counters don't go on over a boot")


class SampleRow(Base):
    __tablename__ = "sample"
    __table_args__ = ({**STRICT, "comment": "One reading of the collectors. NULL: unavailable there, never zero."},)

    period_id: Mapped[int] = mapped_column(
        ForeignKey("period.period_id"), primary_key=True, autoincrement=False, comment="the period"
    )
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="order within the period")
    taken_at: Mapped[datetime] = mapped_column(comment="when it was read, UTC")
    boottime_seconds: Mapped[float] = mapped_column(comment="CLOCK_BOOTTIME when it was read, seconds")
    extra: Mapped[str | None] = mapped_column(Extra, comment="metric -> value as read, of those without a column; JSON")


METRIC_COLUMNS = tuple(name for name, metric in CATALOGUE.items() if metric.column)


def column_of(metric: str) -> str:
    """Return the column of a metric: in lower case, so that SQL finds it without quotes however it is typed."""
    return metric.lower()


for _name in METRIC_COLUMNS:
    _metric = CATALOGUE[_name]
    _comment = f"{_metric.meaning}; {_metric.unit}, {_metric.kind.value}, {_metric.source}"
    setattr(SampleRow, column_of(_name), mapped_column(column_of(_name), Real, nullable=True, comment=_comment))


class MeasurementRow(Base):
    __tablename__ = "measurement"
    __table_args__ = ({**STRICT, "comment": "One value that a workload reported."},)

    period_id: Mapped[int] = mapped_column(
        ForeignKey("period.period_id"), primary_key=True, autoincrement=False, comment="the period"
    )
    sequence: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, comment="order within the period")
    taken_at: Mapped[datetime] = mapped_column(comment="when it was reported, UTC")
    metric: Mapped[str] = mapped_column(comment="name of the metric")
    value: Mapped[float] = mapped_column(comment="the value, in the metric's unit")


class Observation(Base):
    __tablename__ = "observation"
    __table_args__ = (
        {**STRICT, "comment": "One metric over one period. Of a counter, every figure is a rate per second."},
    )

    period_id: Mapped[int] = mapped_column(
        ForeignKey("period.period_id"), primary_key=True, autoincrement=False, comment="the period"
    )
    metric: Mapped[str] = mapped_column(primary_key=True, comment="name of the metric")
    n: Mapped[int] = mapped_column(comment="readings (of a counter: differences) summarised")
    mean: Mapped[float] = mapped_column(comment="mean, in the metric's unit (of a counter: per second)")
    variance: Mapped[float] = mapped_column(comment="variance of the readings, unit squared")
    minimum: Mapped[float] = mapped_column(comment="smallest reading, unit as the mean")
    maximum: Mapped[float] = mapped_column(comment="largest reading, unit as the mean")
    p50: Mapped[float] = mapped_column(comment="median, unit as the mean")
    p99: Mapped[float] = mapped_column(comment="99th percentile, unit as the mean")
    rise: Mapped[float | None] = mapped_column(comment="of a counter: last reading minus first; NULL for a gauge")


class KnobChangeRow(Base):
    __tablename__ = "knob_change"
    __table_args__ = (
        UniqueConstraint("run_id", "host_id", "knob", "changed_at"),
        {**NUMBERED, "comment": "One write to a kernel setting, also where nothing had to change."},
    )

    knob_change_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the write")
    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), comment="the run")
    host_id: Mapped[int] = mapped_column(ForeignKey("host.host_id"), index=True, comment="the host")
    knob: Mapped[str] = mapped_column(comment="name of the setting")
    before: Mapped[str] = mapped_column(comment="what was read before the write")
    wanted: Mapped[str] = mapped_column(comment="what was written")
    after: Mapped[str] = mapped_column(comment="what was read back")
    reason: Mapped[str] = mapped_column(comment="apply, revert, reapply, guardian or restore")
    error: Mapped[str | None] = mapped_column(comment="why the write failed; NULL where it did not")
    changed_at: Mapped[datetime] = mapped_column(comment="when it was written, UTC")


class Event(Base):
    __tablename__ = "event"
    __table_args__ = (
        Index(None, "run_id", "at"),
        # What a host sent again after a broken connection is there once: told apart as samples are within a period,
        # by its own clock outside any.
        Index(
            "uq_event_period_id_sequence",
            "period_id",
            "sequence",
            unique=True,
            sqlite_where=text("period_id IS NOT NULL"),
            postgresql_where=text("period_id IS NOT NULL"),
        ),
        Index(
            "uq_event_host_id_sequence_at_kind",
            "host_id",
            "sequence",
            "at",
            "kind",
            unique=True,
            sqlite_where=text("period_id IS NULL AND sequence IS NOT NULL"),
            postgresql_where=text("period_id IS NULL AND sequence IS NOT NULL"),
        ),
        {**NUMBERED, "comment": "What happened on a host, and who did what with a run."},
    )

    event_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the event")
    run_id: Mapped[int | None] = mapped_column(ForeignKey("run.run_id"), comment="the run; NULL outside any")
    host_id: Mapped[int | None] = mapped_column(ForeignKey("host.host_id"), comment="the host; NULL: the whole run")
    period_id: Mapped[int | None] = mapped_column(
        ForeignKey("period.period_id"), comment="the period; NULL outside any"
    )
    sequence: Mapped[int | None] = mapped_column(comment="order in the host's readings; NULL: the orchestrator's own")
    at: Mapped[datetime] = mapped_column(comment="when it happened, UTC")
    kind: Mapped[str] = mapped_column(comment="what happened: drift, kernel_oops, launched, paused, ...")
    detail: Mapped[str] = mapped_column(comment="the particulars, in words")
    state: Mapped[str | None] = mapped_column(
        comment="the state that the run entered, or that a halt is heading to; else NULL"
    )
    cause: Mapped[str | None] = mapped_column(comment="what that state is owed to, as in run; else NULL")
    stage: Mapped[int | None] = mapped_column(comment="the stage that has opened, from 0; else NULL")
    metric: Mapped[str | None] = mapped_column(comment="the metric that it is about; NULL: none")


class EstimateRow(Base):
    __tablename__ = "estimate"
    __table_args__ = ({**NUMBERED, "comment": "One effect of one arm against the control on one metric."},)

    estimate_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the estimate")
    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), index=True, comment="the run")
    metric: Mapped[str] = mapped_column(comment="name of the metric, of a ratio both parts")
    unit: Mapped[str] = mapped_column(comment="unit of the means and the difference")
    role: Mapped[str] = mapped_column(comment="primary, secondary, guardrail, exploratory, exposure or observer")
    treatment: Mapped[str] = mapped_column(comment="the arm")
    control: Mapped[str] = mapped_column(comment="the arm that it is compared with")
    estimand: Mapped[str] = mapped_column(comment="what is estimated: mean over hosts, fleet ratio, mean over blocks")
    method: Mapped[str] = mapped_column(comment="how")
    stratum: Mapped[str] = mapped_column(comment="stratum; empty for all")
    stage: Mapped[int | None] = mapped_column(comment="stage of the ramp; NULL for all")
    kind: Mapped[str] = mapped_column(comment="what the row is: headline, pairwise, randomisation, stratum, ...")
    headline: Mapped[bool] = mapped_column(comment="whether kind is headline: the result, no sensitivity or subgroup")
    n_control: Mapped[int] = mapped_column(comment="units (hosts, in a switchback blocks) under control")
    n_treatment: Mapped[int] = mapped_column(comment="units (hosts, in a switchback blocks) under the arm")
    control_mean: Mapped[float | None] = mapped_column(comment="mean under control, in `unit`")
    treatment_mean: Mapped[float | None] = mapped_column(comment="mean under the arm, in `unit`")
    difference: Mapped[float | None] = mapped_column(comment="arm minus control, in `unit`")
    difference_low: Mapped[float | None] = mapped_column(comment="lower end of its interval; NULL: none, or unbounded")
    difference_high: Mapped[float | None] = mapped_column(comment="upper end of its interval; NULL: none, or unbounded")
    lift: Mapped[float | None] = mapped_column(comment="difference over the control mean, ratio (0.05 is +5 %)")
    lift_low: Mapped[float | None] = mapped_column(comment="lower end of its interval, ratio; NULL: none, or unbounded")
    lift_high: Mapped[float | None] = mapped_column(
        comment="upper end of its interval, ratio; NULL: none, or unbounded"
    )
    lift_excludes: Mapped[bool] = mapped_column(comment="true: the set is what lies outside of lift_low to lift_high")
    level: Mapped[float | None] = mapped_column(comment="confidence level of the intervals, ratio")
    standard_error: Mapped[float | None] = mapped_column(comment="standard error of the difference, in `unit`")
    df: Mapped[float | None] = mapped_column(comment="degrees of freedom")
    p_value: Mapped[float | None] = mapped_column(comment="p-value, two-sided")
    p_adjusted: Mapped[float | None] = mapped_column(comment="p-value adjusted for the number of metrics of its role")


class GuardrailCheck(Base):
    __tablename__ = "guardrail_check"
    __table_args__ = (
        {
            **NUMBERED,
            "comment": "One guardrail's answer: at the end, after a stage, or on a host. No data never passes.",
        },
    )

    guardrail_check_id: Mapped[int] = mapped_column(primary_key=True, comment="number of the check")
    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), index=True, comment="the run")
    metric: Mapped[str] = mapped_column(comment="name of the metric")
    treatment: Mapped[str] = mapped_column(comment="the arm; of a host, the one it had, which may be the control")
    worse: Mapped[str] = mapped_column(comment="the direction that hurts: increase or decrease")
    margin: Mapped[float | None] = mapped_column(comment="largest tolerable change, ratio to control")
    tripwire: Mapped[float | None] = mapped_column(comment="absolute limit, in the metric's unit")
    verdict: Mapped[str] = mapped_column(comment="pass, fail or inconclusive")
    reason: Mapped[str] = mapped_column(comment="why, in one sentence")
    stage: Mapped[int | None] = mapped_column(
        comment="the stage at whose end, or in which; NULL: at the end of the run"
    )
    look: Mapped[int | None] = mapped_column(comment="which planned look it was, from 0; NULL: at no planned moment")
    checked_at: Mapped[datetime | None] = mapped_column(comment="when, UTC; NULL before schema 0002")
    host_id: Mapped[int | None] = mapped_column(
        ForeignKey("host.host_id"), comment="the host that crossed its tripwire; NULL: over all hosts"
    )
    built_in: Mapped[bool] = mapped_column(comment="true: watched in every run, whatever the experiment asks for")


class FindingRow(Base):
    __tablename__ = "finding"
    __table_args__ = ({**STRICT, "comment": "What was decided for one treatment, in its parts."},)

    run_id: Mapped[int] = mapped_column(ForeignKey("run.run_id"), primary_key=True, comment="the run")
    arm: Mapped[str] = mapped_column(primary_key=True, comment="the treatment")
    decision: Mapped[str] = mapped_column(
        comment="ship, ship_in_strata, better_here, inconclusive or do_not_ship, for this arm"
    )
    cause: Mapped[str] = mapped_column(comment="the fact that it rests on: better, guardrail_failed, not_clear, ...")
    about: Mapped[Json] = mapped_column(comment="what the cause names: guardrails, checks, strata; JSON list")
    hosts: Mapped[int] = mapped_column(comment="hosts that were compared, count")
    periods: Mapped[int] = mapped_column(comment="periods measured on them, count")
    seconds: Mapped[float] = mapped_column(comment="how long they were measured, all together, seconds")
    host_names: Mapped[Json] = mapped_column(comment="the hosts, where so few do not speak for others; JSON list")
    strata: Mapped[Json] = mapped_column(comment="where the arm may be taken; JSON list, empty: everywhere")
    without: Mapped[Json] = mapped_column(comment="strata that it must not be concluded for; JSON list")
    harmed: Mapped[Json] = mapped_column(comment="those of them where harm was shown; JSON list")
    missing: Mapped[Json] = mapped_column(
        comment="values that should be there: metric, arm, units, lost, due, stratum; JSON list"
    )
    overturn: Mapped[Json] = mapped_column(comment="what could overturn the decision: doubt, about; JSON list")
    preferred: Mapped[bool | None] = mapped_column(
        comment="whether the evidence prefers it to the other treatments; NULL: not told apart, or no other"
    )
    sentence: Mapped[str] = mapped_column(comment="the decision in one sentence")


def table(model: type[Base]) -> Table:
    """Return the Core table of a mapping."""
    found = model.__table__
    assert isinstance(found, Table)  # noqa: S101 - narrows SQLAlchemy's FromClause
    return found
