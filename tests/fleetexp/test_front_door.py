"""`import fleetexp`: seven names that load when they are used, and do what the command line does."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest

import fleetexp
from fleetexp.domain import RunState
from fleetexp.errors import ConfigError, NoSuchRun, RunError, StoreError
from fleetexp.fleets.inventory import FoundHost
from fleetexp.store.store import open_store
from tests.fleetexp.simulated_runs import spec

NAMES = ("analyze", "import_data", "load_experiment", "open_store", "prepare", "render_report", "resume", "run")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "spec.yaml"
    file.write_text(spec())
    return file


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'fleetexp.db'}"


def test_the_door_has_these_names_and_no_others() -> None:
    assert tuple(fleetexp.__all__) == NAMES
    assert set(NAMES) < set(dir(fleetexp))
    for name in NAMES:
        assert callable(getattr(fleetexp, name))
        assert f"`{name}(" in (fleetexp.__doc__ or "")
    with pytest.raises(AttributeError, match="no attribute 'launch'"):
        _ = fleetexp.launch


def test_importing_it_imports_nothing_else() -> None:
    code = "import sys; before = set(sys.modules); import fleetexp; print(*sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"__future__", "fleetexp"}


def test_what_was_prepared_is_what_is_launched(path: Path, url: str) -> None:
    prepared = fleetexp.prepare(path, fleet="simulated", hosts=8, seed=2, effects=["throughput=+20%"], store=url)
    assert prepared.refusals == ()
    assert repr(prepared) == f"<PreparedRun simulated: parallel, 8 hosts, {prepared.plan.seconds:.0f} s>"
    seen: list[RunState] = []
    outcome = fleetexp.run(prepared, watch=lambda progress: seen.append(progress.state))
    assert outcome.state is RunState.COMPLETED and seen[-1] is RunState.COMPLETED
    with contextlib.closing(fleetexp.open_store(url)) as store:
        record = store.run(outcome.run_id)
        assert record.plan == prepared.plan
        assert record.spec_text == path.read_text()
        report = fleetexp.render_report(store, outcome.run_id)
        assert report.findings.decision == outcome.decision
        assert "SIMULATED, NO REAL HOST WAS MEASURED" in report.html
        assert "SIMULATED, NO REAL HOST WAS MEASURED" in report.markdown
        assert repr(report).startswith("<Report of run 1: SIMULATED")
        with pytest.raises(NoSuchRun):
            fleetexp.render_report(store, 7)
        with pytest.raises(StoreError):  # it is open to be read
            store.set_run_state(outcome.run_id, RunState.RUNNING)


def test_an_experiment_will_do_for_its_file(path: Path, url: str) -> None:
    experiment = fleetexp.load_experiment(str(path))
    of_file = fleetexp.prepare(str(path), fleet="simulated", hosts=8, store=url)
    of_object = fleetexp.prepare(experiment, fleet="simulated", hosts=8, store=url)
    assert (of_object.plan, of_object.experiment) == (of_file.plan, of_file.experiment)


def test_refusals_are_seen_before_and_raised_by_a_run(path: Path, url: str) -> None:
    path.write_text(spec().replace("primary: throughput", "primary: throughput\n  expected: 0.1%"))
    prepared = fleetexp.prepare(path, fleet="simulated", hosts=8, store=url)
    (refusal,) = prepared.refusals
    assert "CANNOT BE SEEN" in refusal.what or "TOO SMALL" in refusal.what
    assert "REFUSED: an effect" in repr(prepared) or "REFUSED: no effect" in repr(prepared)
    with pytest.raises(RunError, match=r"0\.1 % is expected"):
        fleetexp.run(prepared)
    with pytest.raises(StoreError):
        fleetexp.open_store(url)  # nothing has been written
    known = fleetexp.prepare(path, fleet="simulated", hosts=8, store=url, acknowledge_power=True)
    assert known.refusals == ()


@pytest.mark.parametrize("wrong", [{"hosts": 3}, {"seed": 3}, {"effects": ["throughput=+1%"]}, {"actors": 1}])
def test_nobody_makes_up_a_part_of_a_real_fleet(path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(RunError, match="make up a simulated fleet"):
        fleetexp.prepare(path, fleet="inline", **wrong)


def test_what_can_not_be_prepared_says_why(path: Path, url: str) -> None:
    with pytest.raises(ConfigError, match="there is no such file"):
        fleetexp.prepare("nowhere.yaml")
    with pytest.raises(RunError, match="no fleet is called 'cloud'"):
        fleetexp.prepare(path, fleet="cloud")
    with pytest.raises(RunError, match="0 simulated hosts"):
        fleetexp.prepare(path, fleet="simulated", hosts=0, store=url)


def test_a_host_that_another_run_has_taken_since_is_not_taken_again(
    path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan was shown over hosts that were free: what is launched is that plan or nothing."""
    prepared = fleetexp.prepare(path, fleet="simulated", hosts=8, store=url)
    taken = prepared.plan.units[3].host
    with contextlib.closing(open_store(url)) as store:
        other = store.create_run(
            experiment_name="other", hypothesis="", spec_text="", spec_json={}, plan=prepared.plan, launched_by="ann",
            versions={}, fleet="ray",
        )  # fmt: skip
        store.set_run_state(other, RunState.RUNNING)
    monkeypatch.setattr(prepared.inventory, "name", "ray", raising=False)  # simulated hosts are nobody else's
    with pytest.raises(RunError, match=rf"is in run {other}, which took it after this run was prepared"):
        fleetexp.run(prepared)
    assert isinstance(taken, str)
    with contextlib.closing(fleetexp.open_store(url)) as store:
        assert len(store.runs()) == 1


def test_an_inventory_is_let_go_of_where_nothing_comes_of_it(path: Path, url: str) -> None:
    class Empty:
        name, one_machine, address, closed = "inline", False, "", 0

        def survey(self) -> list[FoundHost]:
            return []

        def close(self) -> None:
            self.closed += 1

    empty = Empty()
    with pytest.raises(ConfigError):
        fleetexp.prepare(path, fleet=empty, store=url)
    assert empty.closed == 1
