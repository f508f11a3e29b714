"""A run whose orchestrator was lost under an earlier release goes on under this one, to its end and its report."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from fleetexp.control.launch import resume
from fleetexp.control.progress import RunOutcome
from fleetexp.domain import BrokenBy, PeriodKind, PeriodState, RunState
from fleetexp.fleets.simulated.hosts import Simulation
from fleetexp.reporting import report_content
from fleetexp.store.store import open_store, schema_version, upgrade
from fleetexp.store.tables import SCHEMA_VERSION
from fleetexp.store.url import parse_url
from tests.fleetexp.simulated_runs import EPOCH, RESPONSE, Watched

RAMP, SWITCHBACK = 1, 2  # the runs of a frozen store; see freeze.py
FROZEN = sorted(Path(__file__).parent.glob("interrupted-*.db.gz"))
Resume = Callable[[int], tuple[RunOutcome, Watched]]


@pytest.fixture(params=FROZEN, ids=lambda path: path.name.removesuffix(".db.gz"))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    path = tmp_path / "interrupted.db"
    path.write_bytes(gzip.decompress(request.param.read_bytes()))
    upgrade(f"sqlite:///{path}")
    assert schema_version(f"sqlite:///{path}") == SCHEMA_VERSION
    return f"sqlite:///{path}"


@pytest.fixture
def resumed(url: str) -> Resume:
    """Go on with a run over hosts that its guardians have put back since."""

    def go_on(run_id: int) -> tuple[RunOutcome, Watched]:
        hosts = 4 if run_id == RAMP else 1
        inventory = Watched(Simulation.of(hosts, response_model=RESPONSE, epoch=EPOCH + timedelta(hours=1)))
        return resume(run_id, store_url=parse_url(url), observer=lambda _: None, inventory=inventory), inventory

    return go_on


def test_there_is_one_of_each_schema_since_such_were_frozen() -> None:
    assert [path.name for path in FROZEN] == [f"interrupted-{schema}.db.gz" for schema in ("0008", "0009", "0014")]


@pytest.mark.slow
def test_a_ramp_goes_on_in_its_stage_and_measures_anew_what_was_cut_short(url: str, resumed: Resume) -> None:
    with contextlib.closing(open_store(url)) as store:
        before = store.periods(RAMP)
    cut_short = {one.period_id for one in before if one.state is PeriodState.RUNNING}
    assert len(cut_short) == 3, "the fourth host had refused its arm"
    outcome, inventory = resumed(RAMP)
    assert (outcome.state, inventory.changed_at_end) == (RunState.COMPLETED, ())
    with contextlib.closing(open_store(url)) as store:
        after, found, content = store.periods(RAMP), store.findings(RAMP), report_content(store, RAMP)
        opened = [one.detail for one in store.events(RAMP) if one.kind == "stage_opened"]
    assert opened == ["0", "1", "1"]
    assert {one.broken_by for one in after if one.period_id in cut_short} == {BrokenBy.RUN}
    baselines = [one for one in before if one.plan.kind is PeriodKind.BASELINE]
    assert len(baselines) == 4
    assert [one for one in after if one.plan.kind is PeriodKind.BASELINE] == baselines
    measured = [one for one in after if one.plan.kind is PeriodKind.MEASURE and one.state is PeriodState.COMPLETE]
    assert sorted(one.host for one in measured) == [f"sim-000{number}" for number in (1, 2, 3, 4)]
    assert found is not None
    assert content.findings.arms == found.arms
    assert [one.scope.hosts for one in found.arms] == [4]


@pytest.mark.slow
def test_an_abort_that_was_under_way_is_finished(url: str, resumed: Resume) -> None:
    outcome, inventory = resumed(SWITCHBACK)
    assert (outcome.state, inventory.changed_at_end) == (RunState.HALTED, ())
    assert "aborted by ops@head pid 1" in outcome.reason
    with contextlib.closing(open_store(url)) as store:
        found, content = store.findings(SWITCHBACK), report_content(store, SWITCHBACK)
        assert not [one for one in store.periods(SWITCHBACK) if one.state is PeriodState.RUNNING]
    assert found is not None
    assert content.findings.arms == found.arms
