"""`retrospective_findings`: from a frame of a rollout already made to what each metric shows, and the verdict."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from analysis.errors import BadPlan
from analysis.guardrails import margin_verdict
from analysis.multiplicity import adjusted
from analysis.plan import GuardrailPlan, Role
from analysis.results import Verdict
from analysis.retrospective.judgement import judged
from analysis.retrospective.metric_effect import MetricEffect, metric_effect
from analysis.retrospective.panel_frame import Panels
from analysis.retrospective.plan import RetrospectivePlan
from analysis.retrospective.verdicts import (
    Ground,
    GuardrailStanding,
    MarginStanding,
    MetricFindings,
    RetrospectiveFindings,
    RetrospectiveVerdict,
)
from analysis.retrospective.wording import verdict_sentence

_STANDINGS = {
    Verdict.PASS: MarginStanding.WITHIN,
    Verdict.FAIL: MarginStanding.BEYOND,
    Verdict.INCONCLUSIVE: MarginStanding.OPEN,
}

_UNFAIR = {Ground.PRE_TREND, Ground.PLACEBO_DATE, Ground.RATIOS, Ground.UNLIKE_HOSTS}  # what speaks against comparing


def retrospective_findings(panels: Panels, plan: RetrospectivePlan) -> RetrospectiveFindings:
    """Answer the plan from panels, which `panels_of` reads from a frame.

    Equal input gives equal output: what is drawn comes from `plan.seed`. Raises BadPlan where a metric of the plan
    has no panel.
    """
    if strangers := [metric.name for metric in plan.metrics if metric.name not in panels.by_metric]:
        raise BadPlan(
            f"no row has the metric {strangers[0]!r}",
            "retrospective plan",
            f"name of {', '.join(panels.by_metric)}",
        )
    found = {metric.name: metric_effect(panels, metric, plan) for metric in plan.metrics}
    rows = adjusted({name: one.test for name, one in found.items() if one.test is not None}, plan.alpha)
    found = {name: replace(one, shown=replace(one.shown, headline=rows.get(name))) for name, one in found.items()}
    metrics = tuple(_of_metric(one, plan) for one in found.values())
    standings = tuple(_standings(found, {one.plan.name: one for one in metrics}, plan))
    primary = next(one for one in metrics if one.plan.role is Role.PRIMARY)
    verdict, ground = primary.verdict or RetrospectiveVerdict.NOT_DISTINGUISHABLE, primary.ground
    beyond = any(one.standing is MarginStanding.BEYOND for one in standings)
    if beyond and verdict is not RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED:
        verdict, ground = RetrospectiveVerdict.CONSISTENT_WITH_HARM, Ground.GUARDRAIL
    any_panel = panels.by_metric[plan.primary.name]
    findings = RetrospectiveFindings(
        verdict=verdict,
        ground=ground,
        reason="",
        changed=plan.changed,
        primary=plan.primary.name,
        metrics=metrics,
        guardrails=standings,
        hosts_changed=int(any_panel.changed.sum()),
        hosts_not_changed=int((~any_panel.changed).sum()),
        periods=any_panel.periods,
        starts=tuple(panels.periods[start] for start in any_panel.starts),
        alpha=plan.alpha,
        warnings=panels.warnings,
    )
    return replace(findings, reason=verdict_sentence(findings))


def _of_metric(found: MetricEffect, plan: RetrospectivePlan) -> MetricFindings:
    verdict, ground = judged(found, plan.alpha)
    return replace(found.shown, verdict=verdict, ground=ground)


def _standings(
    found: Mapping[str, MetricEffect], metrics: Mapping[str, MetricFindings], plan: RetrospectivePlan
) -> Iterator[GuardrailStanding]:
    for guardrail in plan.guardrails:
        one = found[guardrail.metric]
        ground = metrics[guardrail.metric].ground
        standing = MarginStanding.OPEN if ground in _UNFAIR else _standing(guardrail, one, plan.alpha)
        yield GuardrailStanding(plan=guardrail, standing=standing, estimate=one.shown.headline)


def _standing(guardrail: GuardrailPlan, found: MetricEffect, alpha: float) -> MarginStanding:
    """Where the interval of the lift stands to the margin, one-sided at alpha."""
    if found.test is None or found.test.inference is None or found.few:
        return MarginStanding.OPEN
    interval = found.test.inference.lift_interval(1 - 2 * alpha)
    verdict, _ = margin_verdict(guardrail, found.shown.headline, interval)
    return _STANDINGS[verdict]
