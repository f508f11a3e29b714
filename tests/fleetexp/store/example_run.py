"""Two runs with a story, the same to the last digit each time: what the cookbook, the dashboard and export ask about.

Run 1: six web servers, three with 1 GB pages, a clear gain; somebody wrote a knob on web-a-04, one period was repeated.
Run 2: four hosts with fragmented memory; one got no 1 GB page, one was lost and does not read as it was found.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import fmean, variance

import numpy as np
from scipy import stats
from sqlalchemy import select, update

from agents.messages import (
    Arm,
    CountedEvent,
    EventSupport,
    HostFacts,
    KnobChange,
    KnobReason,
    Measurement,
    Reading,
    Sample,
)
from agents.traced_calls import SplitCause, TracedCalls, TracedFunction
from analysis.plan import Direction, GuardrailPlan, Role
from analysis.results import (
    ArmDecision,
    Cause,
    Check,
    Decision,
    Doubt,
    Estimate,
    Findings,
    GuardrailResult,
    Interval,
    Missing,
    Overturn,
    Scope,
    Units,
    Verdict,
)
from fleetexp.control.observations import observations
from fleetexp.domain import (
    Approval,
    BrokenBy,
    CentralGap,
    CentralOutcome,
    Design,
    DriftPolicy,
    EventKind,
    PeriodKind,
    PeriodPlan,
    PeriodState,
    Plan,
    RunCause,
    RunState,
    Safety,
    StagePlan,
    UnitPlan,
)
from fleetexp.store.engine import open_engine, parse_url, writing
from fleetexp.store.records import CentralRequest, CentralValue
from fleetexp.store.store import Store, open_store
from fleetexp.store.tables import Event, GuardrailCheck, Host, Run, StoredExperiment
from tests.fleetexp.store.rows import facts
from tests.fleetexp.store.single import end_period, record_host_facts, save_observations, start_period
from tests.fleetexp.store.survey_rows import a_fleet

GIB = 1 << 30
KNOB = "thp/1048576kB/enabled"
FIRST_AT = datetime(2026, 2, 2, 10, 0, tzinfo=UTC)
SECOND_AT = datetime(2026, 2, 9, 10, 0, tzinfo=UTC)
SAMPLE_EVERY_SECONDS = 60.0
BASELINE_SECONDS, MEASURE_SECONDS = 600.0, 1800.0
PRIMARY = "dtlb_load_misses_per_kilo_instruction"
SPEC = """\
name: thp-1g-web
hypothesis: 1 GB pages cut dTLB misses and raise throughput of the web tier
design: parallel
arms:
  control: {}
  thp-1g: {thp/1048576kB/enabled: always}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Host:
    """A host of the story: where it belongs, and what its memory is like."""

    name: str
    arm: str
    stage: int
    free_share: float = 0.3
    free_huge_bytes: float = 18.0 * GIB
    uptime_seconds: float = 864_000.0
    gigabytes_given: int = 60  # 1 GB faults that succeed
    gigabytes_refused: int = 2

    @property
    def stratum(self) -> str:
        return f"{self.name[:5]}|sku1"


RUN_1 = (
    _Host(name="web-a-01", arm="control", stage=0),
    _Host(name="web-a-02", arm="thp-1g", stage=0),
    _Host(name="web-a-03", arm="control", stage=1),
    _Host(name="web-a-04", arm="thp-1g", stage=1, free_share=0.22, gigabytes_given=48, gigabytes_refused=9),
    _Host(name="web-a-05", arm="control", stage=1),
    _Host(name="web-a-06", arm="thp-1g", stage=1),
)
RUN_2 = (
    _Host(name="web-a-01", arm="control", stage=0),
    _Host(name="web-b-01", arm="control", stage=0, free_share=0.15, uptime_seconds=7_776_000.0),
    _Host(
        name="web-b-02",
        arm="thp-1g",
        stage=0,
        free_share=0.04,
        free_huge_bytes=12.0 * 2**21,
        uptime_seconds=7_776_000.0,
        gigabytes_given=0,
        gigabytes_refused=64,
    ),
    _Host(name="web-b-03", arm="thp-1g", stage=0, free_share=0.15, gigabytes_given=20, gigabytes_refused=31),
)


def fill(url: str) -> None:
    """Put both runs into a store that has the schema and no rows."""
    with contextlib.closing(open_store(url, create=False)) as store:
        first, second = _enter(store, RUN_1, seed=1), _enter(store, RUN_2, seed=2)
        _first(store, first)
        _second(store, second)
        store.record_page_surveys(a_fleet(FIRST_AT, ("web-a-01", "web-b-01", "web-b-02")))
        ask_a_metrics_server(store, first)
    _set_the_clock(url, {first: FIRST_AT, second: SECOND_AT})


def ask_a_metrics_server(store: Store, run_id: int) -> None:
    """A metrics' server was asked once, and had nothing of one period."""
    asked = CentralRequest(
        metric="errors",
        server="https://prometheus:9090",
        promql="sum by (instance) (rate(errors_total[1m]))",
        start_at=FIRST_AT,
        end_at=FIRST_AT + timedelta(minutes=5),
        step_seconds=15.0,
        asked_at=FIRST_AT + timedelta(minutes=6),
        took_seconds=0.02,
        outcome=CentralOutcome.ANSWERED,
        warnings=("store b: away",),
        series=5,
        size_bytes=900,
        sha256="0" * 64,
    )
    store.record_central_requests(run_id, [asked])
    missing = CentralValue(
        period_id=store.periods(run_id)[0].period_id, metric="errors", due=16, read=3, gap=CentralGap.TOO_FEW
    )
    store.save_central_values({missing: None})
    assert store.central_requests(run_id) == [asked]
    assert store.central_values(run_id) == [missing]


def _enter(store: Store, hosts: Sequence[_Host], seed: int) -> int:
    arms = (Arm(name="control", knobs={}), Arm(name="thp-1g", knobs={KNOB: "always"}))
    plan = Plan(
        design=Design.PARALLEL,
        seed=seed,
        arms=arms,
        control="control",
        units=tuple(
            UnitPlan(
                host=host.name,
                stratum=host.stratum,
                arm=host.arm,
                stage=host.stage,
                periods=(
                    _period(0, PeriodKind.BASELINE, "control", host.stage, BASELINE_SECONDS),
                    _period(1, PeriodKind.MEASURE, host.arm, host.stage, MEASURE_SECONDS),
                ),
            )
            for host in hosts
        ),
        stages=(
            StagePlan(index=0, hosts=2, hold_seconds=600.0, approve=Approval.MANUAL),
            StagePlan(index=1, hosts=len(hosts), hold_seconds=600.0, approve=Approval.AUTO),
        ),
        sample_every_seconds=SAMPLE_EVERY_SECONDS,
        safety=Safety(max_failed_hosts=3, lease_seconds=60.0, on_drift=DriftPolicy.INVALIDATE),
        workloads={},
    )
    return store.create_run(
        experiment_name="thp-1g-web",
        hypothesis="1 GB pages cut dTLB misses and raise throughput of the web tier",
        spec_text=SPEC,
        spec_json={"name": "thp-1g-web"},
        plan=plan,
        launched_by="ada@bastion pid 4711",
        versions={"fleetexp": "0.1.0"},
        fleet="ray",
    )


def _period(  # noqa: PLR0917 - in the order in which one says them
    index: int, kind: PeriodKind, arm: str, stage: int, seconds: float, attempt: int = 0
) -> PeriodPlan:
    return PeriodPlan(index=index, kind=kind, arm=arm, block=-1, stage=stage, seconds=seconds, attempt=attempt)


def _facts(host: str, at: datetime) -> HostFacts:
    """An Ice Lake server of 256 GiB."""
    walks = CountedEvent(event="DTLB_LOAD_MISSES.WALK_COMPLETED", encoding="type=0x4,config=0xe08", pmu="cpu")
    events = (
        EventSupport(
            event="instructions",
            available=True,
            counted=CountedEvent(event="instructions", encoding="type=0x0,config=0x1", pmu=""),
        ),
        EventSupport(event="dtlb_load_misses", available=True, counted=walks),
    )
    return replace(facts(host), taken_at=at, memory_total_bytes=256 * GIB, perf_events=events)


def _first(store: Store, run_id: int) -> None:
    store.set_run_state(run_id, RunState.RUNNING)
    for place, host in enumerate(RUN_1):
        began = FIRST_AT + timedelta(minutes=5 + 60 * host.stage)
        record_host_facts(store, run_id, _facts(host.name, FIRST_AT))
        ended = _baseline(store, run_id, host, began, place)
        _apply(store, run_id, host, ended)
        measured = ended + timedelta(minutes=1)
        if host.name == "web-a-04":
            broken = measured + timedelta(minutes=4)
            period_id = _measure(store, run_id, host, measured, 240.0, place + 50)
            store.record_event(run_id, EventKind.DRIFT, f"{KNOB} reads never, not always", host=host.name, at=broken)
            end_period(
                store, period_id, broken, PeriodState.INVALID, f"drift: {KNOB} reads never, not always", BrokenBy.HOST
            )
            again = _period(1, PeriodKind.MEASURE, host.arm, host.stage, MEASURE_SECONDS, attempt=1)
            store.add_periods(run_id, host.name, [again])
            _write(store, run_id, host, [("never", "always", KnobReason.REAPPLY, broken + timedelta(seconds=30))])
            measured = broken + timedelta(minutes=1)
        period_id = _measure(store, run_id, host, measured, MEASURE_SECONDS, place, gap_at=12 if place == 4 else None)
        over = measured + timedelta(seconds=MEASURE_SECONDS)
        _complete(store, period_id, over)
        if host.arm != "control":
            store.record_traced_calls({period_id: _traced(host)})
        _revert(store, run_id, host, over + timedelta(seconds=2 + place))
    shipped = ArmDecision(
        arm="thp-1g",
        decision=Decision.SHIP,
        cause=Cause.BETTER,
        scope=Scope(hosts=6, periods=6, seconds=6 * MEASURE_SECONDS),
        overturn=(Overturn(doubt=Doubt.FEW_HOSTS), Overturn(doubt=Doubt.CARRY_OVER_UNTESTED)),
        sentence="dTLB misses fell and no guardrail was crossed",
    )
    _decide(store, run_id, shipped)
    store.set_run_state(run_id, RunState.ANALYSING)
    store.set_run_state(run_id, RunState.COMPLETED)


def _second(store: Store, run_id: int) -> None:
    store.set_run_state(run_id, RunState.RUNNING)
    for place, host in enumerate(RUN_2):
        began = SECOND_AT + timedelta(minutes=5)
        record_host_facts(store, run_id, _facts(host.name, SECOND_AT))
        ended = _baseline(store, run_id, host, began, place + 10)
        _apply(store, run_id, host, ended)
        measured = ended + timedelta(minutes=1)
        lost = host.name == "web-b-03"
        seconds = 900.0 if lost else MEASURE_SECONDS
        period_id = _measure(store, run_id, host, measured, seconds, place + 10)
        over = measured + timedelta(seconds=seconds)
        if lost:
            store.record_event(run_id, EventKind.HOST_LOST, "no answer for 60 s", host=host.name, at=over)
            end_period(store, period_id, over, PeriodState.INVALID, "the host was lost", BrokenBy.HOST)
            continue
        _complete(store, period_id, over)
        _revert(store, run_id, host, over + timedelta(seconds=3))
    left_open = ArmDecision(
        arm="thp-1g",
        decision=Decision.INCONCLUSIVE,
        cause=Cause.TOO_FEW_UNITS,
        scope=Scope(hosts=3, periods=3, seconds=3 * MEASURE_SECONDS, host_names=("web-a-01", "web-b-01", "web-b-02")),
        missing=(Missing(metric=PRIMARY, arm="thp-1g", units=Units.HOSTS, lost=1, due=2),),
        sentence="too few hosts got 1 GB pages",
    )
    _decide(store, run_id, left_open)
    why = "not restored: web-b-03 (unreachable: no answer for 60 s)"
    store.set_run_state(run_id, RunState.RESTORE_INCOMPLETE, why, RunCause.RESTORE)


def _baseline(store: Store, run_id: int, host: _Host, began: datetime, seed: int) -> datetime:
    period_id = _number(store, run_id, host, PeriodKind.BASELINE)
    start_period(store, period_id, began, "boot-1")
    as_control = replace(host, arm="control")
    store.append(host.name, _readings(period_id, as_control, began, BASELINE_SECONDS, seed + 100, after=0.0))
    ended = began + timedelta(seconds=BASELINE_SECONDS)
    _complete(store, period_id, ended)
    return ended


def _measure(  # noqa: PLR0917 - in the order in which one says them
    store: Store, run_id: int, host: _Host, began: datetime, seconds: float, seed: int, gap_at: int | None = None
) -> int:
    period_id = _number(store, run_id, host, PeriodKind.MEASURE)
    start_period(store, period_id, began, "boot-1")
    after = 2 * BASELINE_SECONDS
    store.append(host.name, _readings(period_id, host, began, seconds, seed, after=after, gap_at=gap_at))
    return period_id


def _complete(store: Store, period_id: int, ended: datetime) -> None:
    end_period(store, period_id, ended, PeriodState.COMPLETE)
    save_observations(store, period_id, observations(store.period_readings(period_id)))


def _traced(host: _Host) -> list[TracedCalls]:
    """Each sixth page is split by a fork; each fault takes its time, given a page or not."""
    splits, faults = host.gigabytes_given // 6, host.gigabytes_given + host.gigabytes_refused
    split, fault = TracedFunction.SPLIT_PUD, TracedFunction.FAULT_PUD
    fork, lost = SplitCause.FORK, 0.0625 * splits
    return [
        TracedCalls(function=split, program="serve", cause=fork, calls=splits, timed=splits, seconds=lost),
        TracedCalls(
            function=fault,
            program="serve",
            cause=None,
            calls=faults,
            timed=faults,
            seconds=0.875 * faults,
            longest_seconds=1.048576,
        ),
    ]


def _number(store: Store, run_id: int, host: _Host, kind: PeriodKind) -> int:
    return next(
        period.period_id
        for period in store.periods(run_id)
        if period.host == host.name and period.plan.kind is kind and period.state is PeriodState.PLANNED
    )


def _readings(
    period_id: int, host: _Host, began: datetime, seconds: float, seed: int, *, after: float, gap_at: int | None = None
) -> list[Reading]:
    """What the host would have said: counters that go on from the baseline, gauges that wander a little."""
    rng = np.random.default_rng(seed)
    treated = host.arm != "control"
    backed = host.gigabytes_given if treated else 0
    misses_per_second = 5.0e6 * (1 - 0.005 * backed) * (1 + 0.01 * rng.standard_normal())
    steps = range(0, int(seconds) + 1, int(SAMPLE_EVERY_SECONDS))
    out: list[Reading] = []
    for number, elapsed in enumerate(steps):
        if gap_at is not None and gap_at <= number < gap_at + 3:
            continue
        share = elapsed / seconds
        values = {
            "instructions": 1.0e9 * (after + elapsed),
            "dtlb_load_misses": 5.0e6 * after + misses_per_second * elapsed,
            "thp_1048576kB_anon_fault_alloc": round(backed * share),
            "thp_1048576kB_anon_fault_fallback": round(host.gigabytes_refused * share) if treated else 0,
            "thp_1048576kB_anon_fault_fallback_charge": round(host.gigabytes_refused * share / 8) if treated else 0,
            "thp_1048576kB_nr_anon": backed,
            "thp_1048576kB_split": round(backed * share / 10),
            "thp_split_pud": round(backed * share / 6),
            "memory_total_bytes": 256.0 * GIB,
            "memory_free_bytes": host.free_share * 256 * GIB + 1e6 * rng.standard_normal(),
            "memory_available_bytes": 0.35 * 256 * GIB - backed * 0.05 * GIB + 1e7 * rng.standard_normal(),
            "anon_bytes": 120.0 * GIB,
            "page_table_bytes": (0.5 + 0.002 * backed) * GIB,
            "oom_kills": 0.0,
            "compact_stall": round(40 * share * (10 if host.free_huge_bytes < GIB / 4 else 1)),
            "free_huge_bytes": host.free_huge_bytes,
            "psi_memory_some_seconds": 0.002 * elapsed,
            "pgscan_direct": round(elapsed * (5 if host.free_share < 0.1 else 0)),
            "agent_cpu_seconds": 0.0008 * elapsed,
            "agent_rss_bytes": 30.0 * 1024**2,
        }
        out.append(
            Sample(
                position=number,
                period_id=period_id,
                sequence=2 * number,
                taken_at=began + timedelta(seconds=elapsed),
                boottime_seconds=host.uptime_seconds + after + elapsed,
                values={name: float(value) for name, value in values.items()},
            )
        )
        if treated and backed:
            slow = 0.9 if host.free_share > 0.2 else 2.6
            out.append(
                Measurement(
                    position=number,
                    period_id=period_id,
                    sequence=2 * number + 1,
                    taken_at=began + timedelta(seconds=elapsed, milliseconds=500),
                    metric="fault_latency_seconds",
                    value=slow * float(rng.lognormal(0.0, 0.2)),
                )
            )
    return out


def _apply(store: Store, run_id: int, host: _Host, at: datetime) -> None:
    if host.arm != "control":
        _write(store, run_id, host, [("never", "always", KnobReason.APPLY, at + timedelta(seconds=5))])


def _revert(store: Store, run_id: int, host: _Host, at: datetime) -> None:
    if host.arm != "control":
        _write(store, run_id, host, [("always", "never", KnobReason.REVERT, at)])


def _write(store: Store, run_id: int, host: _Host, writes: Sequence[tuple[str, str, KnobReason, datetime]]) -> None:
    changes = [
        KnobChange(knob=KNOB, before=before, wanted=wanted, after=wanted, reason=reason, changed_at=at)
        for before, wanted, reason, at in writes
    ]
    store.record_knob_changes(run_id, host.name, changes)


def _decide(store: Store, run_id: int, one: ArmDecision) -> None:
    roles = {PRIMARY: Role.PRIMARY, "memory_used_bytes": Role.GUARDRAIL, "page_table_bytes": Role.EXPLORATORY}
    units = {PRIMARY: "misses per 1000 instructions"}
    estimates = tuple(
        found
        for metric, role in roles.items()
        if (found := _welch(store, run_id, metric, units.get(metric, "bytes"), role)) is not None
    )
    guardrails = [
        GuardrailResult(
            plan=GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
            treatment="thp-1g",
            verdict=Verdict.PASS if one.decision is Decision.SHIP else Verdict.INCONCLUSIVE,
            estimate=None,
            reason="the interval lies within the margin"
            if one.decision is Decision.SHIP
            else "the interval is wider than the margin",
        ),
        GuardrailResult(
            plan=GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1.0),
            treatment="thp-1g",
            verdict=Verdict.PASS,
            estimate=None,
            reason="never above its limit",
        ),
    ]
    checks = (Check(name="observer effect", passed=True, p_value=0.8, detail="the same under both arms"),)
    store.save_findings(
        run_id,
        Findings(
            decision=one.decision,
            reason=one.sentence,
            estimates=estimates,
            guardrails=tuple(guardrails),
            checks=checks,
            contrasts=(),
            excluded=(),
            alpha=0.05,
            warnings=(),
            arms=(one,),
        ),
    )


def _welch(store: Store, run_id: int, metric: str, unit: str, role: Role) -> Estimate | None:
    """A plain comparison of hosts: enough of an estimate to have something to ask about."""
    frame = store.observations(run_id, [metric])
    of: Mapping[str, list[float]] = {
        arm: frame[(frame["kind"] == "measure") & (frame["arm"] == arm)]["mean"].tolist()
        for arm in ("control", "thp-1g")
    }
    control, treated = of["control"], of["thp-1g"]
    base, difference = fmean(control), fmean(treated) - fmean(control)
    interval = lift_interval = error = df = p_value = None
    if min(len(control), len(treated)) > 1:
        parts = [variance(values) / len(values) for values in (control, treated)]
        error = math.sqrt(sum(parts))
        df = float(min(len(control), len(treated)) - 1)
        reach = float(stats.t.ppf(0.975, df)) * error
        interval = Interval(low=difference - reach, high=difference + reach, level=0.95)
        lift_interval = Interval(low=interval.low / base, high=interval.high / base, level=0.95)
        p_value = float(2 * stats.t.sf(abs(difference) / error, df))
    return Estimate(
        metric=metric,
        unit=unit,
        role=role,
        treatment="thp-1g",
        control="control",
        estimand="mean over hosts",
        method="Welch t",
        n_control=len(control),
        n_treatment=len(treated),
        control_mean=base,
        treatment_mean=fmean(treated),
        difference=difference,
        difference_interval=interval,
        lift=difference / base,
        lift_interval=lift_interval,
        standard_error=error,
        df=df,
        p_value=p_value,
    )


def _set_the_clock(url: str, began: Mapping[int, datetime]) -> None:
    """Let what the store stamped with the present have happened at the time of the story."""
    engine = open_engine(parse_url(url))
    try:
        with writing(engine, url) as connection:
            connection.execute(update(StoredExperiment).values(created_at=FIRST_AT))
            connection.execute(update(Host).values(first_seen_at=FIRST_AT))
            for run_id, at in began.items():
                ended = at + timedelta(hours=2)
                connection.execute(
                    update(Run)
                    .where(Run.run_id == run_id)
                    .values(created_at=at, started_at=at + timedelta(minutes=1), ended_at=ended)
                )
                connection.execute(
                    update(GuardrailCheck).where(GuardrailCheck.run_id == run_id).values(checked_at=ended)
                )
                stamped = connection.execute(
                    select(Event.event_id, Event.detail)
                    .where(Event.run_id == run_id, Event.kind.in_(["launched", "state"]))
                    .order_by(Event.event_id)
                ).all()
                for place, (event_id, detail) in enumerate(stamped):
                    when = at + timedelta(minutes=place) if place < 2 else ended + timedelta(seconds=place)
                    connection.execute(update(Event).where(Event.event_id == event_id).values(at=when, detail=detail))
    finally:
        engine.dispose()
