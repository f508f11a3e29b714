"""SIGKILL in the middle of a treated period: the host is back within lease + 5 s, and the run can be finished."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.real_knobs, pytest.mark.slow, pytest.mark.timeout(300)]

LEASE_SECONDS = 5.0
Launch = Callable[..., Any]


def kill(pids: list[int]) -> None:
    assert pids, "there is nothing to kill: the test would prove nothing"
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def test_the_driver_is_killed(launch: Launch) -> None:
    run = launch()
    found = run.knob()
    run.until(run.in_treated_period, 90, "a treated period")
    kill([run.process.pid])
    took = run.until(lambda: run.knob() == found, LEASE_SECONDS + 5, "the guardian puts the knob back")
    assert took > 0.5, "it was put back before the lease could run out: by whom?"
    code, answer = run.resume()
    assert (code, answer["state"]) == (0, "completed")
    assert run.knob() == found
    assert run.broken_periods()
    assert run.complete_periods_by_block() == [(0, 2), (1, 2)]
    undone = run.rows("SELECT count(*) FROM knob_change WHERE reason = 'guardian' AND error IS NULL")
    assert undone[0][0], "the guardian's write belongs in the audit"


@pytest.mark.parametrize(
    "victims", [("ray::HostActor",), ("raylet/raylet",), ()], ids=["actor", "raylet", "all of Ray"]
)
def test_a_part_of_ray_is_killed_and_the_run_mends_itself(launch: Launch, victims: tuple[str, ...]) -> None:
    run = launch(measure="8s")
    found = run.knob()
    run.until(run.in_treated_period, 90, "a treated period")
    kill(run.ray_processes(*victims))
    run.until(lambda: run.knob() == found, LEASE_SECONDS + 5, "the knob is put back")
    code, answer = run.finish()
    if answer["state"] == "paused":
        code, answer = run.resume()
    assert (code, answer["state"]) == (0, "completed")
    assert run.knob() == found
    assert any("lost" in str(reason) for _, _, reason in run.broken_periods())
    assert run.complete_periods_by_block() == [(0, 2), (1, 2)]


def test_driver_and_ray_are_killed_at_once(launch: Launch) -> None:
    run = launch()
    found = run.knob()
    run.until(run.in_treated_period, 90, "a treated period")
    kill([*run.ray_processes(), run.process.pid])
    run.until(lambda: run.knob() == found, LEASE_SECONDS + 5, "the guardian puts the knob back")
    code, answer = run.resume()
    assert (code, answer["state"]) == (0, "completed")
    assert run.complete_periods_by_block() == [(0, 2), (1, 2)]
