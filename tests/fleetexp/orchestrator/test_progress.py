"""How far a run is."""

from __future__ import annotations

import pytest

from fleetexp.domain import RunState
from fleetexp.orchestrator.progress import Progress


def at(elapsed: float, *, planned: float = 100.0, state: RunState = RunState.RUNNING) -> Progress:
    return Progress(run_id=1, state=state, planned_seconds=planned, elapsed_seconds=elapsed)


@pytest.mark.parametrize(("elapsed", "share", "left"), [(0, 0.0, 100), (25, 0.25, 75), (100, 0.99, 0), (500, 0.99, 0)])
def test_a_run_is_not_done_before_it_has_ended(elapsed: float, share: float, left: float) -> None:
    assert at(elapsed).share == share
    assert at(elapsed).remaining_seconds == left


@pytest.mark.parametrize("state", [state for state in RunState if state.is_terminal])
def test_a_run_that_has_ended_is_done(state: RunState) -> None:
    assert at(10, state=state).share == 1.0
    assert at(10, state=state).remaining_seconds == 0.0


def test_a_plan_without_length_has_made_no_way() -> None:
    assert at(10, planned=0.0).share == 0.0
