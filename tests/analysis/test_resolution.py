"""A quantile that never leaves one bucket of its histogram does not tell the arms apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from analysis.findings import analyze
from analysis.plan import Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Cause, Decision, Findings, Verdict
from tests.analysis import fleet_data, switchback_data

P99 = MetricPlan(
    name="p99",
    unit="seconds",
    role=Role.PRIMARY,
    better=Direction.DECREASE,
    at_least="p99_at_least",
    at_most="p99_at_most",
)
BOUNDS = np.array([0.0, 0.1, 0.25, 0.5, 1.0, 2.5])


def with_buckets(rows: pd.DataFrame, bounds: np.ndarray = BOUNDS, *, closed: bool = True) -> pd.DataFrame:
    """Add the ends of the bucket that each value lies in; above the last bound there is no upper end."""
    own = rows[rows["metric"] == "p99"]
    place = np.searchsorted(bounds, own["mean"].to_numpy())
    parts = [own.assign(metric="p99_at_least", mean=bounds[place - 1])]
    if closed:
        parts.append(own.assign(metric="p99_at_most", mean=bounds[place]))
    return pd.concat([rows, *parts], ignore_index=True)


def of_a_fleet(values: dict[str, float], *, bounds: np.ndarray = BOUNDS, **more: object) -> Findings:
    """Sixty hosts with these means by arm, and noise of a hundredth of a second."""
    hosts = fleet_data.fleet(30, 30)
    draw = np.random.default_rng(3)
    means = np.array([values[arm] for arm in hosts.arms]) + draw.normal(0, 0.01, 60)
    closed = bool(more.pop("closed", True))
    rows = with_buckets(hosts.observations({"p99": means}), bounds, closed=closed)
    return analyze(rows, fleet_data.plan(metrics=(P99,), units=hosts.units, guardrails=(), trade=None, **more))


def of_a_switchback(bases: dict[str, float], effect: float) -> Findings:
    """Hosts of these usual values, each under both arms in turn."""
    frames = [
        switchback_data.switchback({"p99": switchback_data.shifted(effect, 0.001, base)}, hosts=(host,), seed=place)
        for place, (host, base) in enumerate(bases.items())
    ]
    rows = pd.concat([frame.assign(period_id=frame["period_id"] + 1000 * place) for place, frame in enumerate(frames)])
    return analyze(with_buckets(rows), switchback_data.plan(metrics=(P99,), guardrails=(), trade=None))


def test_a_clear_change_inside_one_bucket_is_no_decision() -> None:
    findings = of_a_fleet({"control": 0.40, "treatment": 0.35})
    (row,) = (row for row in findings.estimates if row.headline and row.metric == "p99")
    assert row.p is not None
    assert row.p < 0.001, "interpolated values differ clearly"
    assert (findings.decision, findings.arms[0].cause) == (Decision.INCONCLUSIVE, Cause.RESOLUTION)
    assert findings.arms[0].about == ("p99",)
    assert "p99 never left one bucket of its histogram" in findings.reason
    assert (
        "known to within its bucket, on average 250 ms wide; under both arms it never left one bucket" in row.warnings
    )


def test_a_change_from_bucket_to_bucket_is_decided_with_its_error_beside_it() -> None:
    findings = of_a_fleet({"control": 0.40, "treatment": 0.20})
    assert findings.arms[0].cause is Cause.BETTER
    (row,) = (row for row in findings.estimates if row.headline and row.metric == "p99")
    assert "known to within its bucket, on average 200 ms wide" in row.warnings


def test_the_same_change_in_finer_buckets_is_decided() -> None:
    fine = np.linspace(0, 1, 101)
    assert of_a_fleet({"control": 0.40, "treatment": 0.35}, bounds=fine).arms[0].cause is Cause.BETTER


def test_values_above_the_last_bound_are_in_one_bucket_without_end() -> None:
    findings = of_a_fleet({"control": 0.40, "treatment": 0.35}, closed=False)
    assert findings.arms[0].cause is Cause.RESOLUTION
    (row,) = (row for row in findings.estimates if row.headline and row.metric == "p99")
    assert row.warnings[-1].startswith("in some periods known only to lie in a bucket without an end")


@pytest.mark.parametrize(
    ("bases", "cause"),
    [
        ({"a": 0.20, "b": 0.60, "c": 2.0}, Cause.RESOLUTION),  # each host in a bucket of its own, under both arms
        ({"a": 0.20, "b": 0.51, "c": 2.0}, Cause.BETTER),  # b crosses 0.5
    ],
)
def test_in_a_switchback_each_host_has_its_own_bucket(bases: dict[str, float], cause: Cause) -> None:
    assert of_a_switchback(bases, -0.03).arms[0].cause is cause


@pytest.mark.parametrize("ends", ["", "p99_at"], ids=["no histogram", "made-up hosts, which have no buckets"])
def test_what_has_no_buckets_is_decided_as_before(ends: str) -> None:
    hosts = fleet_data.fleet(30, 30)
    means = np.where(hosts.is_treated(), 0.35, 0.40) + np.random.default_rng(3).normal(0, 0.01, 60)
    metric = replace(P99, at_least=ends and f"{ends}_least", at_most=ends and f"{ends}_most")
    plan = fleet_data.plan(metrics=(metric,), units=hosts.units, guardrails=(), trade=None)
    findings = analyze(hosts.observations({"p99": means}), plan)
    assert findings.arms[0].cause is Cause.BETTER


@pytest.mark.parametrize(("margin", "verdict"), [(0.05, Verdict.INCONCLUSIVE), (1.0, Verdict.PASS)])
def test_a_guardrail_passes_inside_one_bucket_only_with_a_margin_wider_than_it(margin: float, verdict: Verdict) -> None:
    rail = GuardrailPlan(metric="p99", worse=Direction.INCREASE, margin=margin)
    hosts = fleet_data.fleet(30, 30)
    draw = np.random.default_rng(3)
    rows = hosts.observations({"p99": 0.4 + draw.normal(0, 0.01, 60), "y": draw.normal(100, 1, 60)})
    metrics = (
        MetricPlan(name="y", unit="", role=Role.PRIMARY, better=Direction.INCREASE),
        replace(P99, role=Role.GUARDRAIL),
    )
    plan = fleet_data.plan(metrics=metrics, units=hosts.units, guardrails=(rail,), trade=None)
    (found,) = (one for one in analyze(with_buckets(rows), plan).guardrails if one.plan == rail)
    assert found.verdict is verdict
    if verdict is Verdict.INCONCLUSIVE:
        assert "wider than the margin" in found.reason
