"""What an import bears whose hosts nobody drew: the verdict, from its panel, instead of the decision of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.errors import BadPlan
from fleetexp.domain import Design
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from analysis.retrospective.verdicts import RetrospectiveFindings


def retrospective_report(store: Store, run_id: int) -> RetrospectiveFindings | None:
    """Judge a retrospective import; None for a run of another design, and where hosts were changed in several ways.

    BadPlan and BadObservations say what the import lacks for a verdict: the instant of the change, say.
    """
    record = store.run(run_id)
    changed = [arm.name for arm in record.plan.arms if arm.name != record.plan.control]
    if record.plan.design is not Design.RETROSPECTIVE or len(changed) != 1:
        return None
    from analysis.retrospective.findings import retrospective_findings  # noqa: PLC0415 - SciPy, for the few that are one
    from analysis.retrospective.panel_frame import panels_of  # noqa: PLC0415
    from analysis.retrospective.plan import RetrospectivePlan  # noqa: PLC0415
    from fleetexp.experiment.recall import recall_plan  # noqa: PLC0415
    from fleetexp.imports.importer import panel  # noqa: PLC0415

    asked = recall_plan(record.spec_text, run_id, record.origin)
    if not store.changed_at(run_id):
        raise BadPlan(
            "nobody says when hosts were changed, and without a time before there is no verdict",
            f"run {run_id}",
            "import it again with changed_at, or changed by host",
        )
    plan = RetrospectivePlan(
        metrics=asked.metrics, guardrails=asked.guardrails, changed=changed[0], alpha=asked.alpha, seed=asked.seed
    )
    return retrospective_findings(panels_of(panel(store, run_id)), plan)
