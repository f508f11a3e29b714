"""Plans, readings, facts and findings for the tests of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agents.messages import (
    Arm,
    EventSupport,
    HostEvent,
    HostEventKind,
    HostFacts,
    HugetlbPool,
    KnobChange,
    KnobReason,
    Measurement,
    Sample,
    ThpSize,
    WorkloadSpec,
)
from analysis.plan import Direction, GuardrailPlan, Role
from analysis.results import (
    ArmDecision,
    BlockContrast,
    Cause,
    Check,
    Decision,
    Doubt,
    Estimate,
    EstimateKind,
    Excluded,
    Findings,
    GuardrailResult,
    Interval,
    Missing,
    Overturn,
    Preference,
    Scope,
    Units,
    Verdict,
)
from fleetexp.domain import Approval, Design, DriftPolicy, PeriodKind, PeriodPlan, Plan, Safety, StagePlan, UnitPlan
from fleetexp.store.store import Store

NOW = datetime(2026, 2, 2, 10, 0, 0, 123456, tzinfo=UTC)
KNOB = "thp/2048kB/enabled"


def schedule(blocks: int = 1) -> tuple[PeriodPlan, ...]:
    arms = ("never", "always")
    return tuple(
        PeriodPlan(index=index, kind=PeriodKind.MEASURE, arm=arms[index % 2], block=index // 2, stage=0, seconds=30.0)
        for index in range(2 * blocks)
    )


def make_plan(hosts: Sequence[str] = ("h1",), blocks: int = 1) -> Plan:
    return Plan(
        design=Design.SWITCHBACK,
        seed=20260202,
        arms=(Arm(name="never", knobs={KNOB: "never"}), Arm(name="always", knobs={KNOB: "always", "defrag": "defer"})),
        control="never",
        units=tuple(
            UnitPlan(host=host, stratum="web|sku1", arm=None, stage=0, periods=schedule(blocks)) for host in hosts
        ),
        stages=(StagePlan(index=0, hosts=len(hosts), hold_seconds=0.5, approve=Approval.MANUAL),),
        sample_every_seconds=1.0,
        safety=Safety(max_failed_hosts=1, lease_seconds=60.0, on_drift=DriftPolicy.INVALIDATE),
        workloads={
            "always": WorkloadSpec(
                kind="pointer_chase",
                options={"bytes": 1 << 30, "ratio": 1.0, "yes": True, "none": None, "text": "1", "argv": ("a", 1, 2.5)},
            )
        },
    )


def new_run(store: Store, plan: Plan | None = None, name: str = "thp-2m") -> int:
    return store.create_run(
        experiment_name=name,
        hypothesis="2 MB pages make the chase faster",
        spec_text=f"name: {name}\n",
        spec_json={"name": name, "arms": {"always": {}}},
        plan=plan or make_plan(),
        launched_by="tester@here pid 1",
        versions={"fleetexp": "0.1.0"},
        fleet="local",
    )


def sample(period_id: int, sequence: int, **values: float) -> Sample:
    return Sample(
        position=sequence,
        period_id=period_id,
        sequence=sequence,
        taken_at=NOW + timedelta(seconds=sequence),
        boottime_seconds=1000.0 + sequence,
        values=values or {"pgfault": 10.0 * sequence, "thp_64kB_split": float(sequence), "anon_bytes": 4096.0},
    )


def measurement(period_id: int, sequence: int, value: float = 1.5, metric: str = "access_seconds") -> Measurement:
    return Measurement(
        position=sequence,
        period_id=period_id,
        sequence=sequence,
        taken_at=NOW + timedelta(seconds=sequence),
        metric=metric,
        value=value,
    )


def host_event(period_id: int, sequence: int, detail: str = "somebody wrote it") -> HostEvent:
    return HostEvent(
        position=sequence,
        period_id=period_id,
        sequence=sequence,
        taken_at=NOW + timedelta(seconds=sequence),
        kind=HostEventKind.DRIFT,
        detail=detail,
    )


def knob_change(before: str, wanted: str, after: str | None = None, *, at: int = 0, knob: str = KNOB) -> KnobChange:
    return KnobChange(
        knob=knob,
        before=before,
        wanted=wanted,
        after=wanted if after is None else after,
        reason=KnobReason.APPLY,
        changed_at=NOW + timedelta(seconds=at),
    )


def facts(host: str = "h1", at: int = 0) -> HostFacts:
    return HostFacts(
        host=host,
        taken_at=NOW + timedelta(seconds=at),
        boot_id="boot-1",
        kernel="6.18.0",
        architecture="x86_64",
        cpu_model="a CPU",
        cpus=2,
        numa_nodes=1,
        numa_balancing=None,
        memory_total_bytes=24 << 30,
        memory_available_bytes=20 << 30,
        swap_total_bytes=0,
        base_page_bytes=4096,
        uptime_seconds=1.5,
        thp_sizes=(ThpSize(size_kib=2048, enabled="inherit", effective="madvise", shmem_enabled=None, writable=True),),
        thp_top_level="madvise",
        thp_defrag="madvise",
        hugetlb_pools=(HugetlbPool(size_kib=2048, total_pages=0, free_pages=0, surplus_pages=0, writable=True),),
        knobs={KNOB: "inherit"},
        writable_knobs=(KNOB,),
        not_writable_because="",
        perf_events=(EventSupport(event="dTLB-load-misses", available=False, reason="ENOENT"),),
        cgroup_version=2,
        pressure_available=True,
        virtualisation="kvm",
        kernel_taint=0,
        other_managers=(),
        page_splitting_readers=(),
        labels={"pool": "web"},
    )


def estimate(metric: str = "access_seconds", kind: EstimateKind = EstimateKind.HEADLINE) -> Estimate:
    return Estimate(
        metric=metric,
        unit="seconds",
        role=Role.PRIMARY,
        treatment="always",
        control="never",
        estimand="mean over blocks",
        method="paired t on block contrasts",
        n_control=6,
        n_treatment=6,
        control_mean=1.0,
        treatment_mean=0.66,
        difference=-0.34,
        difference_interval=Interval(low=-0.4, high=-0.28, level=0.95),
        lift=-0.34,
        lift_interval=Interval(low=-0.4, high=None, level=0.95),
        standard_error=0.02,
        df=5.0,
        p_value=0.0001,
        kind=kind,
        warnings=("one host",),
    )


def findings(decision: Decision = Decision.SHIP) -> Findings:
    return Findings(
        decision=decision,
        reason="the primary metric moved",
        estimates=(estimate(), estimate("fault_seconds", EstimateKind.UNADJUSTED)),
        guardrails=(
            GuardrailResult(
                plan=GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
                treatment="always",
                verdict=Verdict.PASS,
                estimate=None,
                reason="within the margin",
            ),
        ),
        checks=(Check(name="observer effect", passed=None, p_value=None, detail="too few blocks"),),
        contrasts=(
            BlockContrast(
                metric="access_seconds", treatment="always", host="h1", block=0, control_value=1.0, treatment_value=0.7
            ),
        ),
        excluded=(Excluded(host="h1", period_id=1, arm="never", block=0, reason="drift"),),
        alpha=0.05,
        warnings=("one host",),
    )


def arm_decision(arm: str = "always", decision: Decision = Decision.BETTER_HERE) -> ArmDecision:
    """A decision with something in each of its parts."""
    return ArmDecision(
        arm=arm,
        decision=decision,
        cause=Cause.BETTER,
        about=("memory_used_bytes",),
        scope=Scope(
            hosts=2,
            periods=24,
            seconds=720.0,
            host_names=("h1", "h2"),
            strata=("web|sku1",),
            without=("db|sku1", "db|sku2"),
            harmed=("db|sku2",),
        ),
        missing=(Missing(metric="access_seconds", arm=arm, units=Units.PERIODS, lost=1.5, due=12, stratum="web|sku1"),),
        overturn=(Overturn(doubt=Doubt.FEW_HOSTS), Overturn(doubt=Doubt.STRATUM_NOT_RULED_OUT, about="db|sku1")),
        sentence=f"{arm} is better on these hosts.",
    )


def decided() -> Findings:
    """Findings on two arms, of which one is preferred, with a guardrail that nobody asked for."""
    before = findings(Decision.BETTER_HERE)
    lost = replace(before.guardrails[0], plan=GuardrailPlan(metric="hosts_lost", worse=Direction.INCREASE, margin=0.01))
    return replace(
        before,
        guardrails=(*before.guardrails, replace(lost, built_in=True)),
        arms=(arm_decision(), arm_decision("madvise", Decision.INCONCLUSIVE)),
        preference=Preference(arm="always", over=("madvise",), sentence="always is better than madvise."),
    )
