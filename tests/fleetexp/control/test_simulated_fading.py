"""A fleet of simulated hosts whose effect fades in the one long period in which each is measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agents.simulated import MetricLaw
from analysis.results import HALVES, Cause, Decision
from fleetexp.reporting.report import Report, render_report
from tests.fleetexp.simulated_runs import LAW, run_simulated, spec

LONG = spec(stages="[{share: 100%, hold: 10m}]", baseline="3m")
ALIKE = replace(LAW, metrics={"throughput": MetricLaw(mean=1000.0, host_spread=0.02)})
FADING = replace(ALIKE, treatments=tuple(replace(one, fades_seconds=90.0) for one in LAW.treatments))


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
