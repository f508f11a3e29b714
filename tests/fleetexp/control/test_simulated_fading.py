"""A fleet of simulated hosts whose effect fades, or whose harm grows, in the one long period that each is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.simulated import MetricLaw, Treatment
from analysis.results import HALVES, Cause, Decision, Verdict
from fleetexp.reporting.report import Report, render_report
from tests.fleetexp.simulated_runs import LAW, PATH, run_simulated, spec

LONG = spec(
    stages="[{share: 100%, hold: 10m}]",
    baseline="3m",
    guardrails="[{metric: memory_used_bytes, worse: increase, margin: 10%}]",
)
ALIKE = replace(LAW, metrics={"throughput": MetricLaw(mean=1000.0, host_spread=0.02)})
FADING = replace(ALIKE, treatments=tuple(replace(one, fades_seconds=90.0) for one in LAW.treatments))
_ON = {PATH: "always"}
GROWING = replace(  # memory climbs from nothing to 0.15 of what it was: 7 % on the average, 10 % in the later half
    ALIKE,
    treatments=(
        Treatment(when=_ON, effects={"throughput": 0.2, "memory_used_bytes": 0.15}),
        Treatment(when=_ON, effects={"memory_used_bytes": 1 / 1.15 - 1}, fades_seconds=400.0),
    ),
)


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
    (growing,) = [one for one in findings.checks if one.name.startswith("growing harm")]
    assert growing.passed is True  # memory, by 7 % or by what is left of that, is within its margin
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


def test_a_run_whose_harm_grows_is_not_shipped_on_the_average(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, LONG, hosts=20, response_model=GROWING)
    with ran.store() as store:
        findings = store.findings(ran.outcome.run_id)
        report = render_report(store, ran.outcome.run_id)
    assert findings is not None and isinstance(report, Report)
    (arm,) = findings.arms
    whole = next(row for row in findings.estimates if row.headline and row.metric == "memory_used_bytes")
    assert whole.lift_interval is not None and whole.lift_interval.high is not None
    assert whole.lift_interval.high < 0.10  # over the whole time it is within the margin
    assert (arm.decision, arm.cause, arm.about) == (
        Decision.INCONCLUSIVE,
        Cause.GUARDRAIL_GROWING,
        ("memory_used_bytes",),
    )
    (rail,) = [one for one in findings.guardrails if not one.built_in]
    assert rail.verdict is Verdict.INCONCLUSIVE
    assert "harm to memory_used_bytes grew, and the later half of the measured time alone does not rule it out" in (
        report.markdown
    )
    rows = [row for row in findings.estimates if row.kind in HALVES and row.metric == "memory_used_bytes"]
    assert [row.lift for row in rows] == pytest.approx([0.15 * 0.30, 0.15 * 0.67], abs=0.02)
