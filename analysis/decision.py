"""The decision and its one sentence: nothing that the primary metric, the guardrails and the checks don't show."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.plan import AnalysisPlan, Direction, MetricPlan, Role
from analysis.results import Check, Estimate, GuardrailResult, Interval, Verdict

SHIP, DO_NOT_SHIP, INCONCLUSIVE = "ship", "do not ship", "inconclusive"
RANDOMISATION = "randomisation test"  # part of the method's name in rows that re-draw the assignment
FEW_UNITS = 20  # below it, a claim needs the randomisation test's consent too


def decide(
    plan: AnalysisPlan,
    estimates: Sequence[Estimate],
    guardrails: Sequence[GuardrailResult],
    checks: Sequence[Check],
    scope: str = "",
) -> tuple[str, str]:
    """Return the decision and why.

    Ship: the primary is clearly better, every guardrail passes and no check of the experiment itself failed. Do not
    ship: a guardrail fails, or the primary is clearly worse. Anything else is inconclusive. `scope` is said after.
    With several treatments each is judged; one that ships is enough, and is named.
    """
    answers = []
    treatments = [arm for arm in plan.arms if arm != plan.control]
    for treatment in treatments:
        answer, reason = _decide_one(plan, treatment, estimates, guardrails, checks)
        answers.append((answer, reason if len(treatments) == 1 else f"{treatment}: {reason}"))
    for wanted in (SHIP, INCONCLUSIVE, DO_NOT_SHIP):
        chosen = [reason for answer, reason in answers if answer == wanted]
        if chosen:
            return wanted, "; ".join(chosen) + scope + "."
    return INCONCLUSIVE, "the plan has no treatment" + scope + "."


def _decide_one(
    plan: AnalysisPlan,
    treatment: str,
    estimates: Sequence[Estimate],
    guardrails: Sequence[GuardrailResult],
    checks: Sequence[Check],
) -> tuple[str, str]:
    rails = [rail for rail in guardrails if rail.treatment == treatment]
    failed_checks = [check.name for check in checks if check.passed is False]
    failed = [rail for rail in rails if rail.verdict is Verdict.FAIL]
    if failed:  # harm counts also in an experiment that is in doubt
        also = f" (and {', '.join(failed_checks)} failed)" if failed_checks else ""
        return DO_NOT_SHIP, f"guardrail {failed[0].plan.metric}: {failed[0].reason.rstrip('.')}{also}"
    if failed_checks:
        return INCONCLUSIVE, f"the experiment itself is in doubt: {', '.join(failed_checks)} failed"
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    if primary is None:
        return INCONCLUSIVE, "no primary metric was named"
    if primary.better is None:
        return INCONCLUSIVE, f"the plan does not say which way {primary.name} is better"
    rows = [row for row in estimates if row.role is Role.PRIMARY and row.treatment == treatment and not row.stratum]
    headline = next((row for row in rows if row.headline), None)
    if headline is None or headline.difference is None:
        return INCONCLUSIVE, f"the primary metric {primary.name} was not measured"
    said = change_text(headline)
    if (doubt := _doubt(headline, rows, plan.alpha)) is not None:
        return INCONCLUSIVE, f"{said}: {doubt}"
    if not _is_better(headline, primary):
        return DO_NOT_SHIP, f"{said}, which is worse"
    open_rails = [rail.plan.metric for rail in rails if rail.verdict is not Verdict.PASS]
    if open_rails:
        return INCONCLUSIVE, f"{said}, but harm to {', '.join(open_rails)} is not ruled out"
    rest = "every guardrail passed" if rails else "no guardrail was set"
    return SHIP, f"{said}, and {rest}"


def _doubt(headline: Estimate, rows: Sequence[Estimate], alpha: float) -> str | None:
    """Say why the primary's change is not clear; None if it is."""
    p = headline.p_adjusted if headline.p_adjusted is not None else headline.p_value
    if p is None:
        return next(iter(headline.warnings), "no test could be made")
    if p >= alpha:
        return f"no clear change (p = {p:.2g})"
    drawn = next((row for row in rows if RANDOMISATION in row.method), None)
    if drawn is None or min(headline.n_control, headline.n_treatment) >= FEW_UNITS:
        return None
    p = drawn.p_adjusted if drawn.p_adjusted is not None else drawn.p_value
    if p is None or p >= alpha:
        shown = "" if p is None else f" (p = {p:.2g})"
        return f"with so few units the randomisation test must agree, and does not{shown}"
    return None


def _is_better(headline: Estimate, primary: MetricPlan) -> bool:
    rose = (headline.difference or 0.0) > 0
    return rose == (primary.better is Direction.INCREASE)


def change_text(row: Estimate) -> str:
    """Write one estimate as words: what rose or fell, by how much, with its interval."""
    moved = row.difference or 0.0
    word = "did not change" if moved == 0 else "rose" if moved > 0 else "fell"
    if moved == 0:
        return f"{row.metric} {word}"
    if row.lift is not None:
        return f"{row.metric} {word} by {abs(row.lift):.1%}{_set(row.lift_interval, '.1%')}"
    return f"{row.metric} {word} by {abs(moved):.4g} {row.unit}{_set(row.difference_interval, '.4g')}"


def _set(interval: Interval | None, form: str) -> str:
    if interval is None:
        return ""
    if not interval.bounded or interval.low is None or interval.high is None:
        return " [unbounded]"
    return f" [{interval.low:+{form}}, {interval.high:+{form}}]"
