"""What goes wrong on some of five simulated hosts: every host that can be reached ends as found, and it is told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agents.messages import KnobReason
from agents.simulated import Lie, Oops, Reboot, Refuse, Rewrite, Vanish
from analysis.results import EstimateKind
from fleetexp.domain import PeriodState, RunState
from tests.fleetexp.simulated_runs import KNOB, LEASE, Ran, run_simulated, spec

SICK = ("sim-0001", "sim-0002", "sim-0003")
ALL = tuple(f"sim-{number:04}" for number in range(1, 6))
SWITCHBACK = spec(design="switchback", stages="", baseline="", blocks="measure: 30s, blocks: 2, ")
QUOTED = (EstimateKind.HEADLINE, EstimateKind.RANDOMISATION)


def invalid(ran: Ran, host: str) -> list[str]:
    return [reason for state, reason in ran.periods(host) if state is PeriodState.INVALID]


def test_with_nothing_wrong_the_planted_effect_is_found_and_every_host_is_as_found(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK)
    assert ran.outcome.state is RunState.COMPLETED
    with ran.store() as store:
        findings = store.findings(1)
    assert findings is not None
    lifts = [one.lift for one in findings.estimates if one.metric == "throughput" and one.kind in QUOTED]
    assert lifts
    assert lifts == pytest.approx([0.2] * len(lifts), abs=0.05)
    ran.assert_safe()


def test_a_refused_write_takes_out_that_host_alone(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (Refuse(knob=KNOB, number=errno.EINVAL),)})
    assert ran.outcome.state is RunState.COMPLETED
    assert [host for host, _ in ran.events("host_failed")] == [SICK[0]]
    ran.assert_safe()


@pytest.mark.parametrize("shows", ["", "madvise"])
def test_a_kernel_that_lies_on_read_back_takes_out_that_host_alone(tmp_path: Path, shows: str) -> None:
    lie = Lie(knob=KNOB, shows=shows, until_seconds=60.0)
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (lie,)})
    assert ran.outcome.state in {RunState.COMPLETED, RunState.RESTORE_INCOMPLETE}
    assert [host for host, _ in ran.events("host_failed")] == [SICK[0]]
    ran.assert_safe(unreachable=[SICK[0]] if shows else [])


def test_a_kernel_that_never_takes_a_knob_back_is_the_loudest_outcome(tmp_path: Path) -> None:
    lie = Lie(knob=KNOB, at_seconds=60.0, until_seconds=1e6)
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (lie,)})
    if SICK[0] in ran.inventory.changed_at_end:
        assert ran.outcome.state is RunState.RESTORE_INCOMPLETE
        assert SICK[0] in ran.outcome.reason
    assert set(ran.inventory.changed_at_end) <= {SICK[0]}


@pytest.mark.parametrize(
    ("on_drift", "ends"),
    [
        ("halt", RunState.HALTED),
        pytest.param("invalidate", RunState.COMPLETED, marks=pytest.mark.slow),
        pytest.param("reapply", RunState.COMPLETED, marks=pytest.mark.slow),
    ],
)
def test_another_program_that_writes_a_knob_is_noticed(tmp_path: Path, on_drift: str, ends: RunState) -> None:
    text = SWITCHBACK.replace("on_drift: invalidate", f"on_drift: {on_drift}")
    ran = run_simulated(tmp_path, text, faults={SICK[0]: (Rewrite(knob=KNOB, value="madvise", at_seconds=55.0),)})
    assert ran.outcome.state is ends
    assert {host for host, _ in ran.events("drift")} == {SICK[0]}
    assert invalid(ran, SICK[0])
    ran.assert_safe()


@pytest.mark.parametrize("away", [3 * LEASE, *(pytest.param(s, marks=pytest.mark.slow) for s in (5.0, LEASE + 15.0))])
def test_a_host_that_vanishes_for_a_while_is_taken_up_again(tmp_path: Path, away: float) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (Vanish(at_seconds=55.0, until_seconds=55.0 + away),)})
    assert ran.outcome.state is RunState.COMPLETED
    assert {host for host, _ in ran.events("host_back")} == {SICK[0]}
    complete = [state for state, _ in ran.periods(SICK[0]) if state is PeriodState.COMPLETE]
    assert len(complete) == 8
    assert invalid(ran, SICK[0])
    ran.assert_safe()
    if away > LEASE:
        with ran.store() as store:
            reasons = {change.reason for host, change in store.knob_changes(1) if host == SICK[0]}
        assert KnobReason.GUARDIAN in reasons or KnobReason.REVERT in reasons


def test_a_host_that_never_comes_back_is_the_loudest_outcome_and_its_guardian_undoes_it(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (Vanish(at_seconds=55.0),)})
    assert ran.outcome.state is RunState.RESTORE_INCOMPLETE
    assert SICK[0] in ran.outcome.reason
    ran.assert_safe(unreachable=SICK[:1])


def test_a_host_that_reboots_has_forgotten_the_knobs_and_goes_on(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (Reboot(at_seconds=55.0, down_seconds=40.0),)})
    assert ran.outcome.state is RunState.COMPLETED
    assert {host for host, _ in ran.events("host_back")} == {SICK[0]}
    assert invalid(ran, SICK[0])
    ran.assert_safe()


def test_an_oops_is_noticed_and_that_host_measures_nothing_more(tmp_path: Path) -> None:
    ran = run_simulated(tmp_path, SWITCHBACK, faults={SICK[0]: (Oops(at_seconds=55.0),)})
    assert ran.outcome.state.is_terminal
    assert any("paging" in detail or "page fault" in detail for _, detail in ran.events("kernel_oops"))
    ran.assert_safe()


def test_too_many_unreachable_hosts_reach_the_cap_and_all_others_are_put_back(tmp_path: Path) -> None:
    faults = {host: (Vanish(at_seconds=55.0 + number),) for number, host in enumerate(ALL[:4])}
    ran = run_simulated(tmp_path, SWITCHBACK, faults=faults)
    assert ran.outcome.state is RunState.RESTORE_INCOMPLETE
    assert {host for host, _ in ran.events("host_lost")} == set(ALL[:4])
    ran.assert_safe(unreachable=ALL[:4])


def test_unreachable_hosts_that_come_back_leave_a_run_that_can_be_resumed(tmp_path: Path) -> None:
    faults = {host: (Vanish(at_seconds=55.0, until_seconds=120.0),) for host in ALL[:4]}
    ran = run_simulated(tmp_path, SWITCHBACK, faults=faults)
    assert ran.outcome.state is RunState.PAUSED
    assert "4 hosts failed or were lost, 3 allowed" in ran.outcome.reason
    ran.assert_safe()


def test_equal_simulations_give_equal_runs(tmp_path: Path) -> None:
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        ran = run_simulated(tmp_path / name, SWITCHBACK, hosts=3)
        with ran.store() as store:
            findings = store.findings(1)
        assert findings is not None
        found.append((ran.seen[-1].elapsed_seconds, [one.lift for one in findings.estimates]))
    assert found[0] == found[1]
