"""A plan in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agents.messages import Arm, HostFacts, WorkloadSpec
from fleetexp.cli.plan_screen import blast_radius, plan_lines
from fleetexp.domain import (
    Approval,
    Design,
    DriftPolicy,
    PeriodKind,
    PeriodPlan,
    Plan,
    Safety,
    ShortPoolPolicy,
    StagePlan,
    UnitPlan,
)
from fleetexp.experiment import load_experiment
from fleetexp.experiment.schedule import host_info, make_plan

DEMO = Path(__file__).parents[3] / "configs" / "thp-2m-demo.yaml"


def all_facts(plan: Plan, facts: HostFacts) -> list[HostFacts]:
    """Every host of the plan reads like this one."""
    return [replace(facts, host=unit.host) for unit in plan.units]


def screen(plan: Plan, facts: HostFacts) -> str:
    lines = plan_lines("an-experiment", "it helps", plan, all_facts(plan, facts), columns=80)
    assert max(len(line) for part in lines for line in part.splitlines()) <= 80
    return " ".join(" ".join(lines).split())


@pytest.fixture
def demo(make_facts: Callable[..., HostFacts]) -> Plan:
    return make_plan(load_experiment(DEMO), [host_info(make_facts())])


@pytest.fixture
def ramp() -> Plan:
    """Ten hosts in parallel arms, two stages."""
    measured = PeriodPlan(index=0, kind=PeriodKind.BASELINE, arm="control", block=-1, stage=0, seconds=1800)
    units = tuple(
        UnitPlan(
            host=f"web-{number}",
            stratum="all",
            arm="control" if number % 2 else "treatment",
            stage=0 if number < 2 else 1,
            periods=(measured,),
        )
        for number in range(10)
    )
    return Plan(
        design=Design.PARALLEL,
        seed=7,
        arms=(Arm(name="control", knobs={}), Arm(name="treatment", knobs={"thp/2048kB/enabled": "always"})),
        control="control",
        units=units,
        stages=(
            StagePlan(index=0, hosts=2, hold_seconds=600),
            StagePlan(index=1, hosts=10, hold_seconds=3600, approve=Approval.MANUAL),
        ),
        sample_every_seconds=10,
        safety=Safety(max_failed_hosts=3, lease_seconds=60, on_drift=DriftPolicy.HALT),
        workloads={
            "control": WorkloadSpec(kind="service", options={"unit": "web.service"}),
            "treatment": WorkloadSpec(kind="command", options={"argv": ("bench", "-q"), "timeout_seconds": 5.0}),
        },
    )


def test_the_demo_plan_says_what_is_written_where_and_for_how_long(
    demo: Plan, make_facts: Callable[..., HostFacts]
) -> None:
    text = screen(demo, make_facts())
    assert "arm 4k (control): thp/2048kB/enabled=never" in text
    assert "arm thp-2m: thp/2048kB/enabled=always" in text
    assert "thp/2048kB/enabled: reads inherit now, and will again at the end" in text
    assert "8 blocks, each with every arm once: washout 1 s, then measured for 5 s at most" in text
    assert "at most 1 of 1 host off control at once" in text
    assert "about 1 min 36 s" in text
    assert "region 1G" in text


def test_the_order_shown_is_the_order_drawn(demo: Plan, make_facts: Callable[..., HostFacts]) -> None:
    text = screen(demo, make_facts())
    blocks = range(8)
    drawn = [
        " ".join(p.arm for p in demo.units[0].periods if p.block == block and p.kind is PeriodKind.MEASURE)
        for block in blocks
    ]
    assert " | ".join(drawn) in text


def test_a_ramp_lists_its_stages_and_its_worst_blast_radius(ramp: Plan, make_facts: Callable[..., HostFacts]) -> None:
    text = screen(ramp, make_facts())
    assert blast_radius(ramp) == 5
    assert "stage 2 hosts for 10 min, next step: auto" in text
    assert "stage 10 hosts for 1 h, next step: manual" in text
    assert "web-0: arm treatment, joins at stage 1" in text
    assert "web-9: arm control, joins at stage 2" in text
    assert "by stage: 1: 1, 2: 5" in text
    assert "baseline 30 min first" in text
    assert "control: every knob as found" not in text
    assert "control (control): every knob as found" in text
    assert "control: service: unit web.service" in text
    assert "treatment: command: argv bench -q, timeout_seconds 5.0" in text


def test_a_knob_that_is_not_there_or_not_writable_is_said(demo: Plan, make_facts: Callable[..., HostFacts]) -> None:
    assert "thp/2048kB/enabled: NOT on this host" in screen(demo, make_facts(knobs={}, writable_knobs=()))
    text = screen(demo, make_facts(writable_knobs=(), not_writable_because="not root"))
    assert "reads inherit, and can NOT be written here: not root" in text


def test_before_6_8_the_plan_names_the_knob_that_there_is(demo: Plan, make_facts: Callable[..., HostFacts]) -> None:
    facts = make_facts(knobs={"thp/enabled": "always"}, thp_sizes=(make_facts().thp_sizes[-1],))
    text = " ".join(screen(demo, facts).split())
    assert "thp/2048kB/enabled: NOT on this host; sizes with knobs of their own came with Linux 6.8" in text
    assert "one size, 2048kB: write thp/enabled" in text


def test_pressure_short_pools_and_an_area_kept_for_them_stand_on_the_plan(
    demo: Plan, make_facts: Callable[..., HostFacts]
) -> None:
    pool = Arm(name="thp-2m", knobs={"hugetlb/2048kB/nr_hugepages": "4"})
    plan = replace(
        demo,
        arms=(demo.arms[0], pool),
        safety=replace(demo.safety, on_short_pool=ShortPoolPolicy.ACCEPT),
        pressure=WorkloadSpec(kind="pressure", options={"fill_percent": 60, "thin_percent": 40}),
    )
    text = screen(plan, make_facts(hugetlb_cma="4G", cma_total_bytes=4 * 2**30))
    assert "pressure pressure: fill_percent 60, thin_percent 40" in text
    assert "a hugetlb pool that is granted in part is taken as it is" in text
    assert "booted with hugetlb_cma=4G" in text
    plain = screen(demo, make_facts(hugetlb_cma="4G"))
    assert not any(word in plain for word in ("pressure", "granted in part", "hugetlb_cma"))


def test_a_plan_without_workload_watches(ramp: Plan, make_facts: Callable[..., HostFacts]) -> None:
    assert "none: whatever runs on the host is watched" in screen(replace(ramp, workloads={}), make_facts())
    assert "takes about 0 s" in screen(replace(ramp, units=(), workloads={}), make_facts())


def test_what_is_unwise_stands_on_the_plan(demo: Plan, make_facts: Callable[..., HostFacts]) -> None:
    lines = plan_lines("x", "", demo, [make_facts()], columns=80, warnings=("too few blocks",))
    assert any(line.startswith("warning") and "too few blocks" in line for line in lines)
