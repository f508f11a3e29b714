"""What a run tells those who watch it while it goes on, and what it says at its end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleetexp.domain import RunState, UnitState
from fleetexp.exit_codes import ExitCode


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One moment of a run. `current` says it in words: 'block 3 of 8, thp-2m, measuring'."""

    run_id: int
    state: RunState
    planned_seconds: float
    elapsed_seconds: float
    periods_done: int = 0
    periods_total: int = 0
    units: Mapping[UnitState, int] = field(default_factory=dict)  # how many hosts are in each state
    current: str = ""
    latest: Mapping[str, float] = field(default_factory=dict)  # metric -> value, in the metric's unit
    message: str = ""  # something that happened just now and deserves a line of its own

    @property
    def share(self) -> float:
        """How far the run is, 0 to 1: by periods, by time where none is planned; below 1 until it has ended."""
        if self.state.is_terminal:
            return 1.0
        if self.periods_total:
            return min(self.periods_done / self.periods_total, 0.99)
        return min(self.elapsed_seconds / self.planned_seconds, 0.99) if self.planned_seconds > 0 else 0.0

    @property
    def remaining_seconds(self) -> float:
        """Time that is left: as planned, or at the pace so far where that is slower. A resumed run has no pace yet."""
        if self.state.is_terminal:
            return 0.0
        share = self.share
        at_this_pace = self.elapsed_seconds * (1 - share) / share if share else 0.0
        return max(self.planned_seconds * (1 - share), at_this_pace)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended. `decision` is '' where the run did not get as far as an analysis."""

    run_id: int
    state: RunState
    decision: str
    reason: str
    exit_code: ExitCode
