"""Guardrails that may halt a run pay for every look; a host that was taken out for a tripwire is not forgotten."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.contrast import Contrast
from analysis.guardrails import Evidence, judge, tripwire_verdict, worst_value
from analysis.inference import Inference
from analysis.look import guardrail_look
from analysis.plan import AnalysisPlan, Crossing, Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Verdict
from analysis.welch import welch
from tests.analysis.test_methods import row_of

LOOKS = (0.25, 0.5, 1.0)
PLAN = AnalysisPlan(
    design="parallel",
    control="control",
    arms=("control", "treatment"),
    metrics=(MetricPlan(name="memory", unit="bytes", role=Role.GUARDRAIL),),
    information_fractions=LOOKS,
)
RAIL = GuardrailPlan(metric="memory", worse=Direction.INCREASE, margin=0.1)


def seen(contrast: Contrast) -> Evidence:
    units = contrast.n_control + contrast.n_treatment
    return Evidence(estimate=row_of(contrast), inference=Inference(contrast=contrast), units=units)


def verdict(control: np.ndarray, treated: np.ndarray, look: int, fractions: tuple[float, ...] = LOOKS) -> Verdict:
    contrast = welch(control, treated)
    plan = replace(PLAN, information_fractions=fractions, look=look)
    found = judge(RAIL, "treatment", seen(contrast), plan)
    return found.verdict


def test_an_arm_just_at_its_margin_is_halted_at_any_of_three_looks_no_more_often_than_alpha() -> None:
    random, runs, paid, unpaid = np.random.default_rng(3), 1000, 0, 0
    for _ in range(runs):
        control, treated = random.normal(100, 10, 160), random.normal(110, 10, 160)
        sizes = [round(fraction * 160) for fraction in LOOKS]
        seen = [(control[:n], treated[:n]) for n in sizes]
        paid += any(verdict(*data, look) is Verdict.FAIL for look, data in enumerate(seen))
        unpaid += any(verdict(*data, 0, (1.0,)) is Verdict.FAIL for data in seen)
    assert paid / runs < 0.05 + 2.5 * (0.05 * 0.95 / runs) ** 0.5
    assert unpaid > paid  # as looking for nothing would have been


def test_each_look_asks_for_less_confidence_than_the_one_before_and_a_lone_look_for_alpha() -> None:
    levels = [guardrail_look(replace(PLAN, look=look), 100).level for look in range(3)]
    assert levels == sorted(levels, reverse=True)
    assert guardrail_look(replace(PLAN, information_fractions=(1.0,)), 100).level == pytest.approx(0.9)


def test_at_a_moment_that_nobody_planned_few_units_bear_no_verdict() -> None:
    random = np.random.default_rng(1)
    control, treated = random.normal(100, 1, 8), random.normal(150, 1, 8)
    contrast = welch(control, treated)
    plan = replace(PLAN, information_fractions=(1.0,), unplanned_look=True)
    found = judge(RAIL, "treatment", seen(contrast), plan)
    assert found.verdict is Verdict.INCONCLUSIVE


def test_one_kill_is_one_kill_however_long_the_period_was_said_to_be() -> None:
    rows = pd.DataFrame(
        {
            "host": ["h"],
            "kind": ["measure"],
            "arm": ["big"],
            "metric": ["oom_kills"],
            "mean": [1 / 30.02],
            "seconds": [30.0],
        }
    )
    kills = MetricPlan(name="oom_kills", unit="processes", role=Role.GUARDRAIL, counter=True)
    assert worst_value(rows.assign(rise=1.0), kills, "big", Direction.INCREASE) == 1.0  # a tripwire of 1 is reached
    stored_before = worst_value(rows.assign(rise=float("nan")), kills, "big", Direction.INCREASE)
    assert stored_before == pytest.approx(1.0, rel=1e-2)


def test_a_tripwire_that_took_a_host_out_fails_whatever_the_others_measured() -> None:
    rail = GuardrailPlan(metric="oom_kills", worse=Direction.INCREASE, tripwire=2.0)
    own = Crossing(metric="oom_kills", arm="treatment", host="web-017", detail="3 reached the tripwire 2")
    verdict_, reason = tripwire_verdict(rail, 0.0, True, [own, own])
    assert (verdict_, reason) == (
        Verdict.FAIL,
        "The tripwire was crossed on web-017: 3 reached the tripwire 2, and on 1 more.",
    )
    found = judge(rail, "treatment", Evidence(estimate=None, inference=None, worst=0.0), PLAN, [own])
    assert found.verdict is Verdict.FAIL
    elsewhere = [replace(own, arm="control"), replace(own, metric="latency")]
    found = judge(rail, "treatment", Evidence(estimate=None, inference=None, worst=0.0), PLAN, elsewhere)
    assert found.verdict is Verdict.INCONCLUSIVE
