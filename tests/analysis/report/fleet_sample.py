"""A report on a parallel design, made by the real analysis from a planted truth: 120 hosts, two pools, three stages."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np

from analysis import analyze
from analysis.plan import AnalysisPlan, Direction, GuardrailPlan, MetricPlan, Role, TradePlan
from analysis.report import (
    ArmRow,
    AssignedRow,
    DoseRow,
    Doses,
    EventRow,
    ExposureRow,
    LatencyRow,
    ReportInput,
    SeriesRow,
    StageRow,
    SuccessRow,
    SupplyRow,
)
from analysis.results import Interval, Units
from tests.analysis.fleet_data import fleet
from tests.analysis.report.sample import START, sample

CONTROL, TREATMENT = "control", "treatment"
BACKED = "thp_1048576kB_backed_bytes"
GIB = 2.0**30
METRICS = (
    MetricPlan(name="throughput", unit="operations per second", role=Role.PRIMARY, better=Direction.INCREASE),
    MetricPlan(
        name="dtlb_load_misses_per_kilo_instruction",
        unit="misses per 1000 instructions",
        role=Role.SECONDARY,
        better=Direction.DECREASE,
    ),
    MetricPlan(name="memory_used_bytes", unit="bytes", role=Role.GUARDRAIL, better=Direction.DECREASE),
    MetricPlan(name="page_table_bytes", unit="bytes", role=Role.EXPLORATORY, better=Direction.DECREASE),
    MetricPlan(name=BACKED, unit="bytes", role=Role.EXPOSURE),
    MetricPlan(name="agent_cpu_seconds", unit="seconds per second", role=Role.OBSERVER, counter=True),
)


def fleet_sample() -> ReportInput:
    """Build the report; the effects planted are those of the published 512 MB rollout."""
    hosts = fleet(60, 60, strata=2)
    draw = np.random.default_rng(5)
    size = len(hosts.arms)
    treated = hosts.is_treated()
    backed = np.where(treated, np.clip(draw.normal(68, 14, size), 5, None), 0.0) * GIB
    load = 1000 * np.exp(draw.normal(0, 0.1, size))
    before = {"throughput": load, "memory_used_bytes": draw.normal(217, 6, size) * GIB}
    after = {
        "throughput": load * (1 + 0.059 * backed / (68 * GIB)) * np.exp(draw.normal(0, 0.015, size)),
        "dtlb_load_misses_per_kilo_instruction": np.where(treated, 0.74, 1.0) * draw.normal(4.2, 0.5, size),
        "memory_used_bytes": before["memory_used_bytes"] + (np.where(treated, 16, 0) + draw.normal(0, 2, size)) * GIB,
        "page_table_bytes": draw.normal(0.9, 0.1, size) * GIB * np.where(treated, 0.6, 1.0),
        BACKED: backed,
        "agent_cpu_seconds": draw.normal(0.0009, 0.0001, size),
    }
    plan = AnalysisPlan(
        design="parallel",
        control=CONTROL,
        arms=(CONTROL, TREATMENT),
        metrics=METRICS,
        guardrails=(GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),),
        units=hosts.units,
        seed=5,
        trade=TradePlan(throughput="throughput", memory="memory_used_bytes"),
    )
    findings = analyze(hosts.observations(after, before), plan)
    seconds = tuple(float(minute * 60) for minute in range(0, 180, 3))
    base = sample()
    knob = "thp/1048576kB/enabled"
    return replace(
        base,
        run_id="12",
        experiment="thp-1g-web",
        hypothesis="1 GB pages cut dTLB misses and raise the throughput of the web tier.",
        design="parallel",
        arms=(ArmRow(name=CONTROL, knobs={}), ArmRow(name=TREATMENT, knobs={knob: "always"})),
        control=CONTROL,
        findings=findings,
        periods=(),
        knob_changes=(),
        events=(EventRow(host="", at=START, kind="stage_opened", detail="0"),),
        notes=(),
        ended_at=START + timedelta(hours=3),
        exposure=tuple(
            ExposureRow(
                arm=arm,
                page_size_kib=1048576,
                assigned="always" if arm == TREATMENT else "as found (never)",
                faulted_pages=4080.0 if arm == TREATMENT else 0.0,
                fallbacks=512.0 if arm == TREATMENT else 0.0,
                splits=37.0 if arm == TREATMENT else 0.0,
                backed_bytes=68 * GIB if arm == TREATMENT else 0.0,
            )
            for arm in (CONTROL, TREATMENT)
        ),
        latencies=(
            LatencyRow(
                metric="fault_latency_seconds",
                arm=TREATMENT,
                unit="seconds",
                readings=4080,
                p50=0.224,
                p99=0.610,
                maximum=2.3,
            ),
        ),
        supplies=tuple(
            SupplyRow(
                arm=arm,
                page_size_kib=size,
                asked=asked,
                given=given,
                p50=p50,
                p99=2 * p50,
                maximum=9 * p50,
                region_seconds=seconds,
                memory_used_bytes=used,
            )
            for arm, size, asked, given, p50, seconds, used in (
                (CONTROL, 2048, 40960.0, 40960.0, 0.0004, 0.331, 217 * GIB),
                (TREATMENT, 1048576, 4592.0, 4080.0, 0.224, 0.898, None),
            )
        ),
        successes=tuple(
            SuccessRow(
                page_size_kib=1048576,
                circumstance=what,
                least=least,
                most=most,
                unit=unit,
                periods=20,
                asked=1531.0,
                given=given,
                clustered_by=Units.HOSTS,
                clusters=20,
                interval=Interval(low=given / 1531 - 0.08, high=min(1.0, given / 1531 + 0.04), level=0.95),
            )
            for what, unit, least, most, given in (
                ("free memory", "bytes", 4 * GIB, 12 * GIB, 1201.0),
                ("free memory", "bytes", 12 * GIB, 31 * GIB, 1420.0),
                ("free memory", "bytes", 31 * GIB, 77 * GIB, 1459.0),
                ("uptime", "seconds", 86_400.0, 864_000.0, 1500.0),
            )
        ),
        doses=Doses(
            dose_metric=BACKED,
            dose_unit="bytes",
            outcome_metric="throughput",
            outcome_unit="operations per second",
            hosts=tuple(
                DoseRow(host=unit.host, arm=str(unit.arm), dose=float(backed[place]), outcome=float(value))
                for place, (unit, value) in enumerate(zip(hosts.units, after["throughput"], strict=True))
            ),
        ),
        series=tuple(
            SeriesRow(
                metric="throughput",
                unit="operations per second",
                arm=arm,
                seconds=seconds,
                means=tuple(
                    1000 + 40 * float(np.sin(second / 2500)) + (59 * min(1, second / 6000) if arm == TREATMENT else 0)
                    for second in seconds
                ),
            )
            for arm in (CONTROL, TREATMENT)
        ),
        stages=(
            StageRow(index=0, hosts=2, hold_seconds=600, approve="auto", opened_seconds=0.0),
            StageRow(index=1, hosts=12, hold_seconds=3600, approve="manual", opened_seconds=1800.0),
            StageRow(index=2, hosts=120, hold_seconds=7200, approve="auto", opened_seconds=5600.0),
        ),
        assigned=tuple(
            AssignedRow(stage=2, stratum=f"pool-{place}", arm=arm, hosts=30, measured=30)
            for place in range(2)
            for arm in (CONTROL, TREATMENT)
        ),
        host_seconds={CONTROL: 60 * 7200.0, TREATMENT: 60 * 7200.0},
        queries={"effects": "SELECT metric, control_mean FROM effects WHERE run_id = 12"},
    )
