"""A realistic report to render: a switchback of two arms over eight blocks on one host, with one block repeated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
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
    Trade,
    Units,
    Verdict,
)
from analysis.wording import decision_sentence, preference_sentence

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


def decided(
    arm: ArmDecision, primary: Estimate, trade: Trade | None, rails: Sequence[GuardrailResult], *strata: Estimate
) -> ArmDecision:
    """The decision with its sentence, as the analysis writes it."""
    return replace(arm, sentence=decision_sentence(arm, primary, trade, rails, 0.05, parts=strata))


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
    primary = estimate("chase_access_seconds", "seconds", Role.PRIMARY, 0.134, 0.088, half=0.013)
    rails = (
        GuardrailResult(
            plan=GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
            treatment=TREATMENT,
            verdict=Verdict.PASS,
            estimate=memory,
            reason="The increase is below the margin of 10 % with 95 % confidence.",
        ),
        GuardrailResult(
            plan=GuardrailPlan(metric="hosts_lost", worse=Direction.INCREASE, tripwire=1),
            treatment=TREATMENT,
            verdict=Verdict.PASS,
            estimate=None,
            reason="No host was lost.",
            built_in=True,
        ),
    )
    arm = decided(
        ArmDecision(
            arm=TREATMENT,
            decision=Decision.BETTER_HERE,
            cause=Cause.BETTER,
            scope=Scope(hosts=1, periods=2 * BLOCKS, seconds=128.0, host_names=(HOST,)),
            overturn=(Overturn(doubt=Doubt.FEW_HOSTS), Overturn(doubt=Doubt.CARRY_OVER_UNTESTED)),
        ),
        primary,
        None,
        rails,
    )
    return Findings(
        decision=arm.decision,
        reason=f"{arm.sentence}.",
        arms=(arm,),
        estimates=(
            primary,
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
                kind=EstimateKind.RANDOMISATION,
                p_value=0.0078,
                warnings=("8 blocks can't get below p = 0.0078",),
            ),
        ),
        guardrails=rails,
        checks=(
            Check(name="order", passed=True, p_value=0.38, detail="First and second places in a block do not differ."),
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


# ---------------------------------------------------------------------------- three arms over a fleet
FLEET_CONTROL, SMALL, LARGE = "base", "thp-2m", "hugetlb-1g"
_FAULTS = "memcg_anon_fault_fallback_charges"


def fleet_estimate(
    metric: str, unit: str, role: Role, control: float, treatment: float, *, half: float, arm: str, **more: object
) -> Estimate:
    """An estimate of one arm of the rollout over 3 x 40 hosts."""
    found = estimate(metric, unit, role, control, treatment, half=half, df=77.0, estimand="mean over hosts")
    fields: dict[str, object] = {
        "treatment": arm, "control": FLEET_CONTROL, "method": "Welch t", "n_control": 40, "n_treatment": 40,
    }  # fmt: skip
    return replace(found, **(fields | more))  # type: ignore[arg-type]


def three_arm_findings() -> Findings:
    """Findings on two treatments: one to be taken, one to be taken in some strata only."""
    served, small_rate = "operations per second", 0.00619
    primaries = {
        SMALL: fleet_estimate(
            "throughput", served, Role.PRIMARY, 1041.0, 1101.0, half=0.026, arm=SMALL, p_adjusted=0.0002
        ),
        LARGE: fleet_estimate(
            "throughput", served, Role.PRIMARY, 1041.0, 1103.5, half=0.028, arm=LARGE, p_adjusted=0.0002
        ),
    }
    pair = replace(
        fleet_estimate("throughput", served, Role.PRIMARY, 1101.0, 1103.5, half=0.017, arm=LARGE),
        control=SMALL,
        kind=EstimateKind.PAIRWISE,
    )
    rest, rails = [], []
    for arm, memory in ((SMALL, 1.004), (LARGE, 1.075)):
        used = fleet_estimate(
            "memory_used_bytes", "bytes", Role.GUARDRAIL, 2.33e11, 2.33e11 * memory, half=0.012, arm=arm
        )
        rest += [
            used,
            fleet_estimate(
                "dtlb_load_misses_per_kilo_instruction", "misses per 1000 instructions", Role.SECONDARY, 4.2,
                3.1 if arm == SMALL else 2.2, half=0.04, arm=arm, p_adjusted=0.0001,
            ),
            fleet_estimate(
                _FAULTS, "pages per second", Role.EXPLORATORY, small_rate, small_rate * 1.21, half=0.4, arm=arm,
                p_adjusted=0.7, lift=None, lift_interval=None,
            ),
        ]  # fmt: skip
        rails.append(
            GuardrailResult(
                plan=GuardrailPlan(metric="memory_used_bytes", worse=Direction.INCREASE, margin=0.1),
                treatment=arm,
                verdict=Verdict.PASS,
                estimate=used,
                reason="An increase of 0.1 or more is ruled out at 0.95 one-sided (bound +0.0868).",
            )
        )
    harmed = fleet_estimate(
        "throughput", served, Role.PRIMARY, 990.0, 842.0, half=0.06, arm=LARGE, stratum="batch|arm64", n_control=8,
        n_treatment=8, kind=EstimateKind.STRATUM,
    )  # fmt: skip
    trades = (
        Trade(
            treatment=SMALL,
            saved_per_1000=25.4,
            interval=Interval(low=7.1, high=43.2, level=0.95),
            detail="throughput +5.8%, memory +0.4%; 50% of the fleet is sized by memory, the rest by throughput",
        ),
        Trade(
            treatment=LARGE,
            saved_per_1000=-9.9,
            interval=Interval(low=-36.0, high=14.5, level=0.95),
            detail="throughput +6.0%, memory +7.5%; 50% of the fleet is sized by memory, the rest by throughput",
        ),
    )
    whole = Scope(hosts=80, periods=240, seconds=240 * 600.0)
    arms = (
        decided(
            ArmDecision(
                arm=SMALL,
                decision=Decision.SHIP,
                cause=Cause.BETTER,
                scope=whole,
                missing=(
                    Missing(metric="throughput", arm=SMALL, units=Units.HOSTS, lost=1, due=40),
                    Missing(metric="throughput", arm=FLEET_CONTROL, units=Units.HOSTS, lost=0, due=40),
                ),
            ),
            primaries[SMALL],
            trades[0],
            rails[:1],
        ),
        decided(
            ArmDecision(
                arm=LARGE,
                decision=Decision.SHIP_IN_STRATA,
                cause=Cause.BETTER_IN_STRATA,
                scope=replace(
                    whole,
                    strata=("web|x86", "web|arm64"),
                    without=("batch|arm64", "batch|x86"),
                    harmed=("batch|arm64",),
                ),
                overturn=(
                    Overturn(doubt=Doubt.STRATUM_NOT_RULED_OUT, about="batch|x86"),
                    Overturn(doubt=Doubt.COST_NOT_EXCLUDED),
                ),
            ),
            primaries[LARGE],
            trades[1],
            rails[1:],
            harmed,
        ),
    )
    told = Preference(arm=None, over=(SMALL, LARGE))
    preference = replace(told, sentence=preference_sentence(told, (pair,), 0.05))
    return Findings(
        decision=Decision.SHIP,
        reason="; ".join(f"{arm.arm}: {arm.sentence}" for arm in arms) + ".",
        estimates=(*primaries.values(), *rest, pair, harmed),
        guardrails=tuple(rails),
        checks=(Check(name="sample-ratio mismatch", passed=True, p_value=0.81, detail="40 / 40 / 40 hosts report."),),
        contrasts=(),
        excluded=(),
        alpha=0.05,
        trades=trades,
        arms=arms,
        preference=preference,
    )


def three_arm_sample() -> ReportInput:
    """Build the report of a rollout with two treatments."""
    return replace(
        sample(),
        run_id="27",
        experiment="rfc-table",
        hypothesis="1 GB pages serve more than 2 MB pages do.",
        design="parallel",
        control=FLEET_CONTROL,
        arms=(
            ArmRow(name=FLEET_CONTROL, knobs={}),
            ArmRow(name=SMALL, knobs={KNOB: "always"}),
            ArmRow(name=LARGE, knobs={"hugetlb/1048576kB/nr_hugepages": "64"}),
        ),
        findings=three_arm_findings(),
        periods=(),
        knob_changes=(),
        exposure=(),
        unavailable=(),
        notes=(
            MetricNote(metric="throughput", meaning="work done", better=Direction.INCREASE),
            MetricNote(metric="memory_used_bytes", meaning="total less available", better=Direction.DECREASE),
        ),
    )
