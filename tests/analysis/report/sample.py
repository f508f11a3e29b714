"""A realistic report to render: a switchback of two arms over eight blocks on one host, with one block repeated."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

from analysis.plan import Direction, GuardrailPlan, Role
from analysis.report import (
    ArmRow,
    EventRow,
    ExposureRow,
    KnobRow,
    MetricNote,
    PeriodRow,
    ReportInput,
    SqlSuggestion,
    UnavailableMetric,
)
from analysis.results import (
    BlockContrast,
    Check,
    Estimate,
    Excluded,
    Findings,
    GuardrailResult,
    Interval,
    Verdict,
)

HOST = "bench-01"
CONTROL, TREATMENT = "never", "always"
KNOB = "thp/2048kB/enabled"
START = datetime(2026, 2, 2, 10, 0, tzinfo=UTC)
BLOCKS = 8
BROKEN_BLOCK = 4  # its first attempt is thrown away

SPEC = """\
name: thp-2m-chase
hypothesis: 2 MiB pages make random access to 1 GiB faster
design: switchback
arms:
  never: {thp/2048kB/enabled: never}     # control
  always: {thp/2048kB/enabled: always}
workload: {pointer_chase: {region: 1GiB, accesses: 4000000}}
periods: {washout: 2s, sample_every: 1s}
metrics:
  primary: chase_access_seconds
  secondary: [chase_fault_seconds, chase_page_tables_bytes]
"""


def interval(low: float | None, high: float | None, *, excludes: bool = False) -> Interval:
    return Interval(low=low, high=high, level=0.95, excludes=excludes)


def estimate(
    metric: str, unit: str, role: Role, control: float, treatment: float, *, half: float, **more: object
) -> Estimate:
    """An estimate whose lift interval is `half` wide on each side, with everything else filled to match."""
    lift = treatment / control - 1
    fields: dict[str, object] = {
        "metric": metric,
        "unit": unit,
        "role": role,
        "treatment": TREATMENT,
        "control": CONTROL,
        "estimand": "mean over blocks",
        "method": "paired t on block contrasts",
        "n_control": BLOCKS,
        "n_treatment": BLOCKS,
        "control_mean": control,
        "treatment_mean": treatment,
        "difference": treatment - control,
        "difference_interval": interval((lift - half) * control, (lift + half) * control),
        "lift": lift,
        "lift_interval": interval(lift - half, lift + half),
        "standard_error": half * control / 2.365,
        "df": BLOCKS - 1.0,
        "p_value": 0.00002 if abs(lift) > half else 0.41,
    }
    return Estimate(**(fields | more))  # type: ignore[arg-type]


def findings() -> Findings:
    draw = random.Random(7)
    contrasts = []
    for metric, control, treatment, spread in (
        ("chase_access_seconds", 0.134, 0.088, 0.02),
        ("chase_fault_seconds", 0.331, 0.142, 0.05),
        ("chase_page_tables_bytes", 2_121_728.0, 49_152.0, 0.004),
    ):
        for block in range(BLOCKS):
            drift = 1 + 0.008 * block
            contrasts.append(
                BlockContrast(
                    metric=metric,
                    treatment=TREATMENT,
                    host=HOST,
                    block=block,
                    control_value=control * drift * draw.gauss(1, spread),
                    treatment_value=treatment * drift * draw.gauss(1, spread),
                )
            )
    memory = estimate("memory_used_bytes", "bytes", Role.GUARDRAIL, 3.412e9, 3.431e9, half=0.011)
    return Findings(
        decision="ship",
        reason="chase_access_seconds fell by 34 % [33 % to 36 %] against the control, and no guardrail failed.",
        estimates=(
            estimate("chase_access_seconds", "seconds", Role.PRIMARY, 0.134, 0.088, half=0.013),
            estimate("chase_fault_seconds", "seconds", Role.SECONDARY, 0.331, 0.142, half=0.031, p_adjusted=0.0004),
            estimate(
                "chase_page_tables_bytes", "bytes", Role.SECONDARY, 2_121_728.0, 49_152.0, half=0.004, p_adjusted=0.0001
            ),
            estimate("context_switches", "count", Role.EXPLORATORY, 1204.0, 1239.0, half=0.088, p_adjusted=0.62),
            memory,
            estimate(
                "thp_2048kB_backed_bytes",
                "bytes",
                Role.EXPOSURE,
                1.0,
                1.0737e9,
                half=0.001,
                control_mean=0.0,
                difference=1.0737e9,
                difference_interval=interval(1.0717e9, 1.0757e9),
                lift=None,
                lift_interval=None,
            ),
            estimate("agent_cpu_seconds", "seconds", Role.OBSERVER, 0.0121, 0.0122, half=0.05),
            estimate(
                "chase_access_seconds",
                "seconds",
                Role.PRIMARY,
                0.134,
                0.088,
                half=0.02,
                method="sign-flip test on block contrasts",
                headline=False,
                p_value=0.0078,
                warnings=("8 blocks can't get below p = 0.0078",),
            ),
        ),
        guardrails=(
            GuardrailResult(
                plan=GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
                treatment=TREATMENT,
                verdict=Verdict.PASS,
                estimate=memory,
                reason="The increase is below the margin of 10 % with 95 % confidence.",
            ),
            GuardrailResult(
                plan=GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=1),
                treatment=TREATMENT,
                verdict=Verdict.INCONCLUSIVE,
                estimate=None,
                reason="No data: the counter was not there.",
            ),
        ),
        checks=(
            Check(
                name="carry-over", passed=True, p_value=0.38, detail="First and second places in a block do not differ."
            ),
            Check(
                name="observer effect",
                passed=True,
                p_value=0.71,
                detail="The agent used 12 ms of CPU a period in both arms.",
            ),
            Check(
                name="sample-ratio mismatch",
                passed=None,
                p_value=None,
                detail="A switchback gives every arm to every host.",
            ),
        ),
        contrasts=tuple(contrasts),
        excluded=(
            Excluded(
                host=HOST,
                period_id=19,
                arm=TREATMENT,
                block=BROKEN_BLOCK,
                reason="drift: thp/2048kB/enabled read 'madvise', wanted 'always'; the block was repeated",
            ),
            Excluded(
                host=HOST,
                period_id=17,
                arm=CONTROL,
                block=BROKEN_BLOCK,
                reason="its block was repeated",
            ),
        ),
        alpha=0.05,
        warnings=("The block order was drawn in pairs; 8 blocks bear no claim beyond this workload.",),
    )


def periods() -> tuple[PeriodRow, ...]:
    draw = random.Random(11)
    rows: list[PeriodRow] = []
    at = START + timedelta(seconds=8)
    schedule = [(block, 0) for block in range(BROKEN_BLOCK + 1)] + [(BROKEN_BLOCK, 1)]
    schedule += [(block, 0) for block in range(BROKEN_BLOCK + 1, BLOCKS)]
    for block, attempt in schedule:
        order = [CONTROL, TREATMENT]
        draw.shuffle(order)
        if (block, attempt) == (BROKEN_BLOCK, 0):
            order = [CONTROL, TREATMENT]
        for arm in order:
            for kind, seconds in (("washout", 2.0), ("measure", draw.uniform(7, 9))):
                spoilt = kind == "measure" and (block, attempt) == (BROKEN_BLOCK, 0)
                rows.append(
                    PeriodRow(
                        period_id=len(rows),
                        host=HOST,
                        arm=arm,
                        kind=kind,
                        block=block,
                        attempt=attempt,
                        position=len(rows),
                        state="invalid" if spoilt else "complete",
                        reason=f"drift on {KNOB}" if spoilt else "",
                        started_at=at,
                        ended_at=at + timedelta(seconds=seconds),
                    )
                )
                at += timedelta(seconds=seconds)
    return tuple(rows)


def knob_changes(rows: tuple[PeriodRow, ...]) -> tuple[KnobRow, ...]:
    value, changes = "madvise", []
    for row in rows:
        if row.kind == "washout" and row.started_at is not None:
            changes.append(_change(value, row.arm, "apply", row.started_at))
            value = row.arm
        if row.state == "invalid" and row.arm == TREATMENT:
            value = "madvise"  # somebody else wrote it
    end = rows[-1].ended_at
    assert end is not None
    return (*changes, _change(value, "madvise", "revert", end + timedelta(milliseconds=40)))


def _change(before: str, wanted: str, reason: str, at: datetime) -> KnobRow:
    return KnobRow(host=HOST, knob=KNOB, before=before, wanted=wanted, after=wanted, reason=reason, changed_at=at)


def sample() -> ReportInput:
    """Build the sample report."""
    rows = periods()
    spoilt = next(row for row in rows if row.state == "invalid" and row.arm == TREATMENT)
    assert spoilt.started_at is not None and rows[-1].ended_at is not None
    return ReportInput(
        run_id="r-20260202-100000-7f3a",
        experiment="thp-2m-chase",
        hypothesis="2 MiB pages make random access to 1 GiB of memory faster.",
        design="switchback",
        state="completed",
        launched_by="asha@bench-01",
        created_at=START,
        started_at=START + timedelta(seconds=2),
        ended_at=rows[-1].ended_at + timedelta(seconds=1),
        seed=20260202,
        spec=SPEC,
        versions={"fleetexp": "0.1.0", "Python": "3.11.9", "numba": "0.61.2", "kernel": "6.18.0"},
        command="fleetexp run configs/thp-2m-chase.yaml --seed 20260202",
        environment=(
            ("kernel", "6.18.0 x86_64"),
            ("processor", "2 Intel Xeon (virtualised: kvm)"),
            ("memory", "23.4 GiB, 21.0 GiB available at start"),
            ("THP sizes", "16 KiB … 2 MiB; 1 GiB is not there"),
            ("THP at start", "enabled madvise, defrag madvise, 2 MiB inherit"),
            ("NUMA", "1 node, balancing off"),
            ("hardware counters", "not available: ENOENT (virtual machine)"),
        ),
        arms=(
            ArmRow(name=CONTROL, knobs={KNOB: "never"}, workload="pointer_chase, 1 GiB, 4,000,000 accesses"),
            ArmRow(name=TREATMENT, knobs={KNOB: "always"}, workload="pointer_chase, 1 GiB, 4,000,000 accesses"),
        ),
        control=CONTROL,
        findings=findings(),
        periods=rows,
        knob_changes=knob_changes(rows),
        events=(
            EventRow(host="", at=START, kind="launched", detail="by asha@bench-01"),
            EventRow(
                host=HOST,
                at=spoilt.started_at + timedelta(seconds=3),
                kind="drift",
                detail=f"{KNOB} reads 'madvise', wanted 'always'",
            ),
        ),
        exposure=(
            ExposureRow(
                arm=CONTROL,
                page_size_kib=2048,
                assigned="never",
                faulted_pages=0,
                fallbacks=0,
                splits=0,
                backed_bytes=0,
            ),
            ExposureRow(
                arm=TREATMENT,
                page_size_kib=2048,
                assigned="always",
                faulted_pages=4096,
                fallbacks=37,
                splits=3,
                backed_bytes=1.0737e9,
            ),
        ),
        unavailable=(
            UnavailableMetric(
                metric="dtlb_load_misses_per_kilo_instruction",
                reason="this virtual machine has no hardware counters (perf_event_open: ENOENT)",
            ),
        ),
        notes=(
            MetricNote(metric="chase_access_seconds", meaning="time for all accesses", better=Direction.DECREASE),
            MetricNote(
                metric="chase_fault_seconds", meaning="time to touch the region first", better=Direction.DECREASE
            ),
            MetricNote(
                metric="chase_page_tables_bytes", meaning="page tables, above the start", better=Direction.DECREASE
            ),
            MetricNote(metric="memory_used_bytes", meaning="total less available", better=Direction.DECREASE),
        ),
        suggestions=(
            SqlSuggestion(title="The effects", sql="SELECT * FROM effects WHERE run_id = 'r-20260202-100000-7f3a';"),
            SqlSuggestion(title="Who changed what", sql="SELECT * FROM knob_audit ORDER BY changed_at;"),
        ),
    )
