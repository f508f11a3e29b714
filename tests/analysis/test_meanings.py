"""Metrics that hosts measured differently under one name are never averaged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.findings import analyze
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Cause, Decision, Findings, Verdict
from tests.analysis import fleet_data, switchback_data

NAMES = ("loads that walked", "loads and stores that walked")
METRICS = (
    MetricPlan(name="misses", unit="misses per second", role=Role.PRIMARY, better=Direction.DECREASE),
    MetricPlan(name="throughput", unit="requests per second", role=Role.SECONDARY, better=Direction.INCREASE),
)


def two_families() -> tuple[pd.DataFrame, fleet_data.Fleet, dict[str, str]]:
    """Sixty hosts, two CPU families crossed with the arms; one counts ten times what the other does."""
    hosts = fleet_data.fleet(30, 30)
    draw, treated = np.random.default_rng(2), hosts.is_treated()
    second = np.arange(60) % 2 == 1
    misses = np.where(second, 1000.0, 100.0) * (1 - 0.26 * treated) * draw.normal(1, 0.02, 60)
    rows = hosts.observations({"misses": misses, "throughput": 100 + 5 * treated + draw.normal(0, 1, 60)})
    return rows, hosts, {unit.host: NAMES[place % 2] for place, unit in enumerate(hosts.units)}


def found(meanings: dict[str, dict[str, str]] | None, **more: object) -> Findings:
    rows, hosts, _ = two_families()
    plan = fleet_data.plan(metrics=METRICS, units=hosts.units, **more)
    return analyze(rows, plan, meanings=meanings, calibration_runs=200)


def test_mixed_meanings_are_never_averaged() -> None:
    _, _, of_host = two_families()
    findings = found({"misses": of_host})
    assert "misses" not in {row.metric for row in findings.estimates}
    assert not any("misses" in check.name for check in findings.checks), "nor in any check"
    assert (findings.decision, findings.arms[0].cause) == (Decision.INCONCLUSIVE, Cause.MIXED_MEANINGS)
    assert findings.arms[0].about == ("misses", *sorted(NAMES))
    assert (
        "hosts counted different things as misses: loads and stores that walked; loads that walked" in findings.reason
    )
    assert any(said.startswith("misses: not estimated, hosts counted different things") for said in findings.warnings)


def test_each_meaning_is_estimated_on_its_own_hosts() -> None:
    _, _, of_host = two_families()
    rows = {row.metric: row for row in found({"misses": of_host}).estimates}
    for name, mean in zip(NAMES, (100, 1000), strict=True):
        row = rows[f"misses ({name})"]
        assert (row.n_control, row.n_treatment, row.role) == (15, 15, Role.EXPLORATORY)
        assert row.control_mean == pytest.approx(mean, rel=0.02)
        assert row.lift == pytest.approx(-0.26, abs=0.02)
    assert rows["throughput"].n_control == 30, "what all hosts measure alike is one metric"


def test_one_meaning_for_all_changes_nothing() -> None:
    same = dict.fromkeys(two_families()[2], NAMES[0])
    assert found({"misses": same}) == found(None)
    assert found(None).arms[0].cause is not Cause.MIXED_MEANINGS


def test_a_host_of_which_nothing_is_known_is_not_taken_for_the_others() -> None:
    same = dict.fromkeys(two_families()[2], NAMES[0])
    del same["h0007"]
    assert found({"misses": same}).arms[0].about == ("misses", NAMES[0], "not known")


def test_a_guardrail_on_a_mixed_metric_does_not_pass_by_its_margin() -> None:
    rail = GuardrailPlan(metric="misses", worse=Direction.INCREASE, margin=0.5)
    primary = (replace(METRICS[1], role=Role.PRIMARY), replace(METRICS[0], role=Role.GUARDRAIL))
    rows, hosts, of_host = two_families()
    plan = fleet_data.plan(metrics=primary, units=hosts.units, guardrails=(rail,))
    (before, _), (judged, _) = (
        analyze(rows, plan).guardrails,
        analyze(rows, plan, meanings={"misses": of_host}).guardrails,
    )
    assert (before.verdict, judged.verdict) == (Verdict.PASS, Verdict.INCONCLUSIVE)
    assert "hosts counted different things" in judged.reason


def test_a_tripwire_on_a_mixed_metric_still_halts_each_host() -> None:
    rail = GuardrailPlan(metric="misses", worse=Direction.INCREASE, tripwire=500.0)
    _, _, of_host = two_families()
    judged = found({"misses": of_host}, guardrails=(rail,)).guardrails[0]
    assert judged.verdict is Verdict.FAIL


def test_the_parts_of_a_ratio_are_looked_at_both() -> None:
    rows, hosts, of_host = two_families()
    ratio = replace(METRICS[0], denominator="throughput")
    plan = fleet_data.plan(metrics=(ratio, METRICS[1]), units=hosts.units)
    known = {"misses": of_host, "throughput": dict.fromkeys(of_host, "requests")}
    findings = analyze(rows, plan, meanings=known)
    assert findings.arms[0].about == ("misses", *(f"{name}, per requests" for name in sorted(NAMES)))


def test_a_switchback_over_two_families_is_not_averaged_and_one_host_is_never_mixed() -> None:
    def misses(arm: str, block: int, position: int, draw: np.random.Generator) -> float:
        return 100.0 - 26.0 * (arm == "always") + float(draw.normal(0, 1))

    hosts = [f"host-{number}" for number in range(6)]
    rows = switchback_data.switchback({"latency": misses}, hosts=hosts)
    meanings = {"latency": {host: NAMES[number % 2] for number, host in enumerate(hosts)}}
    findings = analyze(rows, switchback_data.PLAN, meanings=meanings)
    assert findings.arms[0].cause is Cause.MIXED_MEANINGS
    assert {row.metric for row in findings.estimates} == {f"latency ({name})" for name in NAMES}
    alone = analyze(rows[rows["host"] == "host-1"], switchback_data.PLAN, meanings=meanings)
    assert {row.metric for row in alone.estimates} == {"latency"}
