"""How far a run is."""

from __future__ import annotations

import pytest

from fleetexp.control.progress import Progress
from fleetexp.domain import RunState


def at(
    elapsed: float, *, done: int = 0, total: int = 0, planned: float = 100.0, state: RunState = RunState.RUNNING
) -> Progress:
    return Progress(
        run_id=1, state=state, planned_seconds=planned, elapsed_seconds=elapsed, periods_done=done, periods_total=total
    )


@pytest.mark.parametrize(("elapsed", "share"), [(0, 0.0), (25, 0.25), (100, 0.99), (500, 0.99)])
def test_without_periods_a_run_is_as_far_as_its_time(elapsed: float, share: float) -> None:
    assert at(elapsed).share == share


@pytest.mark.parametrize(("done", "share"), [(0, 0.0), (8, 0.25), (32, 0.99)])
def test_a_run_is_as_far_as_its_periods_and_not_done_before_it_has_ended(done: int, share: float) -> None:
    assert at(500, done=done, total=32).share == share


def test_a_run_that_is_slower_than_planned_takes_its_own_pace() -> None:
    assert at(50, done=8, total=32).remaining_seconds == 150.0


def test_a_run_that_was_resumed_a_moment_ago_goes_by_the_plan() -> None:
    assert at(1, done=16, total=32).remaining_seconds == 50.0


@pytest.mark.parametrize("state", [state for state in RunState if state.is_terminal])
def test_a_run_that_has_ended_is_done(state: RunState) -> None:
    assert at(10, done=3, total=32, state=state).share == 1.0
    assert at(10, done=3, total=32, state=state).remaining_seconds == 0.0


def test_a_plan_without_length_has_made_no_way() -> None:
    assert at(10, planned=0.0).share == 0.0
    assert at(10, planned=0.0).remaining_seconds == 0.0
