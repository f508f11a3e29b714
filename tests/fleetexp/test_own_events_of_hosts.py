"""Events of the user's own on a fleet: counted, stored with what they were, apart where hosts' CPUs differ."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.simulated import MachineFiles, MetricModel, ModelParameters, Treatment
from analysis.results import Cause
from tests.agents.perf.cpu_files import DEVICES
from tests.fleetexp.simulated_runs import PATH, run_simulated, spec
from tests.fleetexp.test_two_cpu_families import AMD, HOSTS, INTEL, machine

pytestmark = pytest.mark.slow  # two whole runs
EVENT = "cpu/event=0x24,umask=0x3f,cmask=1/"
SOURCES = f"{{l2_misses: {{perf: '{EVENT}', unit: misses}}}}"
SPEC = spec(stages="[{share: 100%, hold: 3m}]").replace(
    "primary: throughput",
    "primary: throughput\n  secondary: [l2_misses, dtlb_walks_1g]\n"
    f"  better: {{l2_misses: decrease}}\n  sources: {SOURCES}",
)
RESPONSE = ModelParameters(
    metrics={"throughput": MetricModel(mean=1000.0), "l2_misses": MetricModel(mean=1e6)},
    treatments=(Treatment(when={PATH: "always"}, effects={"l2_misses": -0.3}),),
)


def test_an_event_is_counted_with_its_coverage_and_its_effect_is_found(tmp_path: Path) -> None:
    """One host's PMU has no field of that name: it goes without the metric, and its preflight says why."""
    odd = machine(INTEL)
    odd = MachineFiles(shows={path: text for path, text in odd.shows.items() if path != f"{DEVICES}/cpu/format/cmask"})
    machines = {**dict.fromkeys(HOSTS, machine(INTEL)), HOSTS[0]: odd}
    ran = run_simulated(tmp_path, SPEC, hosts=len(HOSTS), machines=machines, response_model=RESPONSE)
    with ran.store() as store:
        run_id = ran.outcome.run_id
        found, events, counted = store.findings(run_id), store.events(run_id), store.counted_events(run_id)
        measured = store.observations(run_id)
    assert found is not None
    row = {row.metric: row for row in found.estimates if row.headline}["l2_misses"]
    assert row.lift == pytest.approx(-0.3, abs=0.1)
    assert row.unit == "misses per second"
    own = {one.host: one for one in counted if one.metric == "l2_misses"}
    assert set(own) == set(HOSTS) - {HOSTS[0]}
    assert own[HOSTS[1]].encoding == "type=0x4,config=0x1003f24"
    assert (own[HOSTS[1]].scope, own[HOSTS[1]].pmu) == ("host", "cpu")
    assert own[HOSTS[1]].meaning == f"{EVENT} on {INTEL}"
    warned = [event for event in events if event.kind == "preflight_warning"]
    assert [event.host for event in warned if "l2_misses" in event.detail] == [HOSTS[0]]
    assert any("PMU cpu does not take cmask=0x1" in event.detail for event in warned)
    assert {
        event.host for event in warned if "not counted here" in event.detail and "dtlb_walks_1g" in event.detail
    } == (set(HOSTS))
    assert (measured[measured["metric"] == "l2_misses_coverage"]["mean"] == 1.0).all()
    assert (measured[measured["metric"] == "l2_misses_coverage"]["host"] != HOSTS[0]).all()


def test_one_code_on_two_kinds_of_cpu_is_two_metrics(tmp_path: Path) -> None:
    machines = {host: machine((INTEL, AMD)[number % 2]) for number, host in enumerate(HOSTS)}
    text = SPEC.replace("primary: throughput\n  secondary: [l2_misses, dtlb_walks_1g]", "primary: l2_misses")
    ran = run_simulated(tmp_path, text, hosts=len(HOSTS), machines=machines, response_model=RESPONSE)
    with ran.store() as store:
        found = store.findings(ran.outcome.run_id)
    assert found is not None
    assert found.arms[0].cause is Cause.MIXED_MEANINGS
    assert set(found.arms[0].about[1:]) == {f"{EVENT} on {INTEL}", f"{EVENT} on {AMD}"}
