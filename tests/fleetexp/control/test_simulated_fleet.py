"""A simulated fleet: time passes while the runner waits, lost hosts are said to be lost, and it is told in words."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner

from agents import messages as a
from agents.simulated import Fault, Lie, Vanish
from agents.simulated.files import THP
from fleetexp.cli.main import cli
from fleetexp.errors import RunError
from fleetexp.experiment import parse_experiment
from fleetexp.fleets.base import HostReply
from fleetexp.fleets.by_name import FleetChoice, open_inventory
from fleetexp.fleets.simulated.hosts import HostPool, Simulation, make_room
from fleetexp.fleets.simulated.simulation_spec import SimulationChoice, parse_effect
from fleetexp.fleets.simulated_fleet import TURN_SECONDS, SimulatedFleet
from fleetexp.simulated import WORDS
from tests.fleetexp.simulated_runs import KNOB, PATH, spec

EPOCH = datetime(2026, 2, 2, tzinfo=UTC)
CLAIM = a.Claim(run="1-x", owner="me", knobs=(KNOB,), lease_seconds=20.0)
Build = Callable[..., SimulatedFleet]


@pytest.fixture
def fleet_of() -> Iterator[Build]:
    """Return `fleet_of(2, **{"sim-0001": (faults)})`."""
    made: list[SimulatedFleet] = []

    def build(hosts: int, faults: dict[str, tuple[Fault, ...]] | None = None) -> SimulatedFleet:
        simulation = Simulation.of(hosts, faults=faults or {}, epoch=EPOCH)
        pool = HostPool(simulation, simulation.hosts, "1-x")
        made.append(SimulatedFleet(pool, simulation.hosts, epoch=EPOCH))
        return made[-1]

    yield build
    for fleet in made:
        fleet.close()


def heard(fleet: SimulatedFleet, within: float = 100.0) -> list[HostReply]:
    until = fleet.clock.monotonic() + within
    while fleet.clock.monotonic() < until:
        if answers := fleet.receive(1.0):
            return answers
    return []


def test_time_passes_only_while_somebody_waits(fleet_of: Build) -> None:
    fleet = fleet_of(1)
    fleet.send("sim-0001", a.Survey(), 10.0)
    assert fleet.clock.monotonic() == 0.0
    assert len(fleet.receive(5.0)) == 1
    assert fleet.clock.monotonic() == TURN_SECONDS
    assert fleet.receive(5.0) == []
    assert fleet.clock.monotonic() == TURN_SECONDS + 5.0
    assert (fleet.clock.now() - EPOCH).total_seconds() == pytest.approx(TURN_SECONDS + 5.0)


def test_the_answers_of_a_turn_are_heard_together(fleet_of: Build) -> None:
    fleet = fleet_of(30)
    for host in fleet.hosts():
        fleet.send(host, CLAIM, 10.0)
    assert {answer.host for answer in fleet.receive(1.0)} == set(fleet.hosts())


def test_a_host_out_of_reach_is_lost_when_its_time_is_up(fleet_of: Build) -> None:
    fleet = fleet_of(1, {"sim-0001": (Vanish(at_seconds=0.0, until_seconds=50.0),)})
    fleet.receive(1.0)
    fleet.send("sim-0001", a.Survey(), 10.0)
    (answer,) = heard(fleet)
    assert answer.lost
    assert fleet.clock.monotonic() == pytest.approx(11.0, abs=0.1)
    fleet.receive(50.0)
    fleet.reconnect("sim-0001", 10.0)
    (answer,) = heard(fleet)
    assert isinstance(answer.reply, a.HostFacts)


def test_an_answer_that_comes_too_late_is_a_loss(fleet_of: Build) -> None:
    fleet = fleet_of(1, {"sim-0001": (Lie(knob=KNOB, at_seconds=1.0, until_seconds=1e9),)})
    fleet.send("sim-0001", CLAIM, 10.0)
    heard(fleet)
    fleet.send("sim-0001", a.Apply(arm=a.Arm(name="big", knobs={KNOB: "always"})), 10.0)
    heard(fleet)
    fleet.receive(2.0)
    fleet.send("sim-0001", a.Revert(), 0.5)  # its knob does not come back, and it tries for longer than that
    (answer,) = heard(fleet)
    assert answer.lost
    assert fleet.changed() == ["sim-0001"]


def test_what_was_forgotten_is_never_heard_and_happens_all_the_same(fleet_of: Build) -> None:
    fleet = fleet_of(2)
    for host in fleet.hosts():
        fleet.send(host, CLAIM, 10.0)
    fleet.forget("sim-0001")
    assert [answer.host for answer in heard(fleet)] == ["sim-0002"]
    fleet.send("sim-0001", a.Apply(arm=a.Arm(name="big", knobs={KNOB: "always"})), 10.0)
    assert heard(fleet)[0].error is None
    assert fleet.changed() == ["sim-0001"]


def test_closing_puts_every_host_back(fleet_of: Build) -> None:
    simulation = Simulation.of(1, epoch=EPOCH)
    pool = HostPool(simulation, simulation.hosts, "1-x")
    apply = a.Apply(arm=a.Arm(name="big", knobs={KNOB: "always"}))
    pool.turn(0.0, [("sim-0001", CLAIM), ("sim-0001", apply)])
    assert pool.changed(1.0) == ["sim-0001"]
    pool.close()
    assert pool.hosts["sim-0001"].root.values[PATH] == "never"


def test_more_hosts_than_files_may_be_open_are_refused_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 2048))
    with pytest.raises(RunError, match="more actors"):
        make_room(1000)


# ------------------------------------------------------------------ in words
def test_a_simulation_in_words_is_read_back_as_it_was() -> None:
    chosen = SimulationChoice.of(
        parse_experiment(spec()), hosts=50, seed=7, effects=["throughput=+5.9%", "memory_used_bytes=-3%"], actors=2
    )
    assert SimulationChoice.parse(str(chosen)) == chosen
    assert [(one.metric, one.relative) for one in chosen.planted] == [
        ("throughput", pytest.approx(0.059)),
        ("memory_used_bytes", pytest.approx(-0.03)),
    ]
    assert chosen.metrics == ("throughput",)
    (treatment,) = chosen.simulation().response_model.treatments
    assert treatment.when == {PATH: "always"}


def test_page_sizes_that_the_experiment_names_are_there() -> None:
    text = spec().replace("thp/1048576kB/enabled: always", "thp/512kB/enabled: always")
    chosen = SimulationChoice.of(parse_experiment(text), hosts=2, seed=1)
    machine = SimulationChoice.parse(str(chosen)).simulation().machine
    assert f"{THP}/hugepages-512kB/enabled" in machine.knobs


@pytest.mark.parametrize("metric", ["thruput", "thp_split_page", "dtlb_misses_per_kilo_instruction"])
def test_an_effect_that_would_be_looked_for_in_vain_is_refused(metric: str) -> None:
    """A slip of the pen, or what the model derives itself: the rehearsal would find nothing, and seem to show that."""
    with pytest.raises(RunError, match=f"shows {metric}, so that no effect.*throughput.*memory_used_bytes") as caught:
        SimulationChoice.of(parse_experiment(spec()), hosts=2, seed=1, effects=[f"{metric}=+50%"])
    assert caught.value.where == "--effect"


@pytest.mark.parametrize("text", ["throughput", "throughput=5.9", "=5%", "throughput=big%"])
def test_an_effect_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="is not an effect"):
        parse_effect(text)


@pytest.mark.parametrize("address", ["hosts=0", "hosts=many", "colour=red", "metric:"])
def test_words_that_say_nothing_of_a_simulation_are_refused(address: str) -> None:
    with pytest.raises(RunError):
        open_inventory(FleetChoice(name="simulated", address=address))


def test_the_same_words_find_the_same_hosts() -> None:
    inventory = open_inventory(FleetChoice.parse("simulated hosts=3 seed=5"))
    found = inventory.survey()
    assert [one.host for one in found] == ["sim-0001", "sim-0002", "sim-0003"]
    assert all(one.facts is not None and "simulated" in one.facts.kernel for one in found)


def test_a_simulated_run_says_so_everywhere(tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    file = tmp_path / "spec.yaml"
    file.write_text(spec(stages="[{share: 100%, hold: 1m}]"))
    store = f"sqlite:///{tmp_path / 'x.db'}"
    words = ["run", str(file), "--fleet", "simulated", "--hosts", "6", "--effect", "throughput=+30%"]
    result = CliRunner().invoke(cli, [*words, "--store", store, "--reports", str(tmp_path / "reports")])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(WORDS)
    assert WORDS in result.output.partition("decision: ")[2]
    (html,) = (tmp_path / "reports").glob("*.html")
    assert "SIMULATED" in html.read_text()
    listed = CliRunner().invoke(cli, ["report", "1", "--store", store])
    assert "SIMULATED" in listed.output
    sql = CliRunner().invoke(cli, ["sql", "select fleet from run", "--store", store])
    assert "simulated hosts=6" in sql.output


def test_options_of_a_simulation_are_refused_where_the_fleet_is_real(tmp_path) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    file = tmp_path / "spec.yaml"
    file.write_text(spec())
    result = CliRunner().invoke(
        cli, ["run", str(file), "--fleet", "inline", "--effect", "throughput=+5%", "--hosts", "9"]
    )
    assert result.exit_code == 2
    assert "--hosts, --effect: only for --fleet simulated" in result.output


def test_a_rehearsal_runs_on_models_of_the_hosts_and_leaves_them_as_they_are(tmp_path, host_tree) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    root = host_tree(gigantic=True)
    before = {path: path.read_bytes() for path in sorted(root.root.rglob("*")) if path.is_file()}
    file = tmp_path / "spec.yaml"
    file.write_text(spec(design="switchback", stages="", baseline="", blocks="measure: 20s, blocks: 3, "))
    store = f"sqlite:///{tmp_path / 'x.db'}"
    words = ["rehearse", str(file), "--fleet", "inline", "--root", str(root.root), "--store", store]
    result = CliRunner().invoke(cli, [*words, "--reports", str(tmp_path / "reports"), "--effect", "throughput=+30%"])
    assert result.exit_code == 0, result.output
    assert result.output.startswith(WORDS)
    assert {path: path.read_bytes() for path in sorted(root.root.rglob("*")) if path.is_file()} == before
    sql = CliRunner().invoke(cli, ["sql", "select name from host", "--store", store])
    assert "sim-" in sql.output
