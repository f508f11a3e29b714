"""What a stored run asked of its analysis, from the text that it was launched or imported with."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.plan import AnalysisPlan, AssignedUnit
from fleetexp.domain import Origin
from fleetexp.experiment import analysis_plan, recall_experiment
from fleetexp.experiment.mapping import recall_mapping


def recall_plan(text: str, run_id: int, origin: Origin, units: Sequence[AssignedUnit] = ()) -> AnalysisPlan:
    """Return the plan of analysis of a run that was; ConfigError where its text can't be read any more."""
    match origin:
        case Origin.FLEET:
            return analysis_plan(recall_experiment(text, run_id), units)
        case Origin.IMPORT:
            return recall_mapping(text, run_id).analysis_plan(tuple(units))
