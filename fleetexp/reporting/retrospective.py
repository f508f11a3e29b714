"""What an import bears whose hosts nobody drew: the verdict, from its panel, instead of the decision of a run."""

from __future__ import annotations

from analysis.errors import BadPlan
from analysis.retrospective.findings import retrospective_findings
from analysis.retrospective.panel_frame import panels_of
from analysis.retrospective.plan import RetrospectivePlan
from analysis.retrospective.verdicts import RetrospectiveFindings
from fleetexp.domain import Design
from fleetexp.experiment.recall import recall_plan
from fleetexp.imports.importer import panel
from fleetexp.store.store import Store


def retrospective_report(store: Store, run_id: int) -> RetrospectiveFindings | None:
    """Judge a retrospective import; None for a run of another design, and where hosts were changed in several ways.

    BadPlan and BadObservations say what the import lacks for a verdict: the instant of the change, say.
    """
    record = store.run(run_id)
    changed = [arm.name for arm in record.plan.arms if arm.name != record.plan.control]
    if record.plan.design is not Design.RETROSPECTIVE or len(changed) != 1:
        return None
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
