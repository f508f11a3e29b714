"""A fleet of simulated hosts whose effect fades, or whose harm grows, in the one long period that each is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.simulated import MetricModel, Treatment
from analysis.results import HALVES, Cause, Decision, Verdict
from fleetexp.reporting.report import Report, render_report
from tests.fleetexp.simulated_runs import PATH, RESPONSE, run_simulated, spec

LONG = spec(stages="[{share: 100%, hold: 10m}]", baseline="3m")
ALIKE = replace(RESPONSE, metrics={"throughput": MetricModel(mean=1000.0, host_spread=0.02)})
FADING = replace(ALIKE, treatments=tuple(replace(one, fades_seconds=90.0) for one in RESPONSE.treatments))


@pytest.mark.parametrize("fades", [False, True])
def test_a_run_whose_effect_has_gone_by_the_end_is_not_shipped_and_one_whose_effect_stays_is(
    tmp_path: Path, fades: bool
) -> None:
    ran = run_simulated(tmp_path, LONG, hosts=20, response_model=FADING if fades else ALIKE)
    ran.assert_safe()
    with ran.store() as store:
        findings = store.findings(ran.outcome.run_id)
        report = render_report(store, ran.outcome.run_id)
    assert findings is not None and isinstance(report, Report)
    (arm,) = findings.arms
    (check,) = [one for one in findings.checks if one.name.startswith("fading")]
    main = findings.estimates[0]
    assert main.p is not None and main.p < findings.alpha  # over the whole time it is clear, either way
    earlier, later = (next(row for row in findings.estimates if row.kind is kind) for kind in HALVES)
    assert "Does it last?" in report.markdown
    if fades:
        assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.FADED)
        assert check.passed is False
        assert earlier.lift == pytest.approx(0.2 * 90 / 300, abs=0.02)
        assert later.lift == pytest.approx(0.0, abs=0.02)
        assert "it faded, and the later half of the measured time alone does not show it" in report.markdown
    else:
        assert arm.decision is Decision.SHIP
        assert check.passed is True
        assert [half.lift for half in (earlier, later)] == pytest.approx([0.2, 0.2], abs=0.02)


_ON = {PATH: "always"}
GUARDED = spec(
    stages="[{share: 100%, hold: 10m}]",
    baseline="3m",
    guardrails="[{metric: memory_used_bytes, worse: increase, margin: 10%}]",
)
CLIMBING = replace(  # memory climbs from nothing towards 15 % more: 7 % on the average, 10 % in the later half
    ALIKE,
    treatments=(
        Treatment(when=_ON, effects={"throughput": 0.2, "memory_used_bytes": 0.15}),
        Treatment(when=_ON, effects={"memory_used_bytes": 1 / 1.15 - 1}, fades_seconds=400.0),
    ),
)


@pytest.mark.parametrize("grows", [False, True])
def test_a_run_whose_harm_grows_is_not_shipped_on_the_average_and_one_whose_harm_stays_is(
    tmp_path: Path, grows: bool
) -> None:
    """Memory is 7 % up throughout, or climbs to as much on the average; the margin is 10 %."""
    ran = run_simulated(tmp_path, GUARDED, hosts=20, response_model=CLIMBING if grows else ALIKE)
    with ran.store() as store:
        findings = store.findings(ran.outcome.run_id)
        report = render_report(store, ran.outcome.run_id)
    assert findings is not None and isinstance(report, Report)
    memory = [row for row in findings.estimates if row.metric == "memory_used_bytes"]
    whole = next(row for row in memory if row.headline)
    halves = [row.lift for row in memory if row.kind in HALVES]
    (arm,) = findings.arms
    (rail,) = [one for one in findings.guardrails if not one.built_in]
    (check,) = [one for one in findings.checks if one.name.startswith("growing harm")]
    assert whole.lift_interval is not None and whole.lift_interval.high is not None
    assert whole.lift_interval.high < 0.10  # over the whole time it is within the margin, either way
    if grows:
        assert (arm.decision, arm.cause) == (Decision.INCONCLUSIVE, Cause.GUARDRAIL_GROWING)
        assert arm.about == ("memory_used_bytes",)
        assert (rail.verdict, check.passed) == (Verdict.INCONCLUSIVE, False)
        assert halves == pytest.approx([0.15 * 0.30, 0.15 * 0.67], abs=0.02)
        assert "harm to memory_used_bytes grew, and the later half" in report.markdown
    else:
        assert arm.decision is Decision.SHIP
        assert (rail.verdict, check.passed) == (Verdict.PASS, True)
        assert halves == pytest.approx([0.07, 0.07], abs=0.02)
