"""The decision in its parts: nothing that the primary metric, the guardrails, the trade and the checks don't show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from analysis.effect import Effect
from analysis.fading import Fading, Growing
from analysis.plan import AnalysisPlan, Direction, MetricPlan, Role, Rule
from analysis.results import (
    ArmDecision,
    Cause,
    Check,
    Decision,
    Doubt,
    Estimate,
    GuardrailResult,
    Missing,
    Overturn,
    Preference,
    Scope,
    Trade,
    TradeSide,
    Verdict,
)
from analysis.strata import StratumEffects, StratumStanding
from analysis.wording import decision_sentence, preference_sentence

_BEST_FIRST = (
    Decision.SHIP,
    Decision.SHIP_IN_STRATA,
    Decision.BETTER_HERE,
    Decision.INCONCLUSIVE,
    Decision.DO_NOT_SHIP,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """All that the decision on one treatment is made from. `primary` None: it was not measured."""

    treatment: str
    primary: Effect | None
    scope: Scope
    guardrails: tuple[GuardrailResult, ...]
    trade: Trade | None = None
    strata: StratumEffects | None = None
    stratum_rows: tuple[Estimate, ...] = ()
    fading: Fading | None = None  # of the primary's effect
    growing: tuple[Growing, ...] = ()  # of the harm to what guardrails watch
    missing: tuple[Missing, ...] = ()  # of the primary and of every metric that a decision reads
    local: bool = False  # the hosts do not speak for others
    doubts: tuple[Overturn, ...] = ()
    mixed: tuple[str, ...] = ()  # what hosts counted under the name of the primary, where that differs
    unresolved: float | None = None  # how wide the bucket is that the primary never left under either arm, if so


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The decisions on all treatments, the best of them, and all of it in one sentence."""

    decision: Decision
    sentence: str
    arms: tuple[ArmDecision, ...]
    preference: Preference | None


def concluded(
    plan: AnalysisPlan, cases: Sequence[Case], checks: Sequence[Check], pairs: Sequence[Estimate]
) -> Conclusion:
    """Decide on every treatment, and on which of them the evidence prefers; `pairs` are their PAIRWISE rows.

    Ship: the primary is clearly better, also had what is missing been at its worst, every guardrail passes (where its
    harm grew, by the later half too), the trade excludes a cost (as the plan's rule has it), no stratum's loss is
    hidden in the mean, and no check of the experiment itself failed. Do not ship: a guardrail fails, the primary is
    clearly worse, or the trade shows a cost. What faded, and is not shown by the later half alone, gives neither.
    Anything else is inconclusive. One treatment that ships is enough, and is named.
    """
    arms = []
    for case in cases:
        found = _decided(plan, case, checks)
        headline = None if case.primary is None else case.primary.estimate
        rows = [*case.stratum_rows, *(() if case.fading is None else case.fading.rows)]
        rows += [row for one in case.growing if one.blocks for row in one.rows]
        sentence = decision_sentence(found, headline, case.trade, case.guardrails, plan.alpha, parts=rows)
        arms.append(replace(found, sentence=sentence))
    preference = _preference(plan, arms, cases, pairs)
    for wanted in _BEST_FIRST:
        chosen = [arm for arm in arms if arm.decision is wanted]
        if chosen:
            told = "; ".join(arm.sentence if len(arms) == 1 else f"{arm.arm}: {arm.sentence}" for arm in chosen)
            if preference is not None:
                told += f"; {preference.sentence}"
            return Conclusion(decision=wanted, sentence=f"{told}.", arms=tuple(arms), preference=preference)
    return Conclusion(decision=Decision.INCONCLUSIVE, sentence="the plan has no treatment.", arms=(), preference=None)


def _decided(plan: AnalysisPlan, case: Case, checks: Sequence[Check]) -> ArmDecision:
    """The first fact that settles the question, from the gravest."""

    def answer(
        decision: Decision,
        cause: Cause,
        about: Sequence[str] = (),
        *,
        scope: Scope = case.scope,
        overturn: Sequence[Overturn] = (),
    ) -> ArmDecision:
        return ArmDecision(
            arm=case.treatment,
            decision=decision,
            cause=cause,
            about=tuple(about),
            scope=scope,
            missing=case.missing,
            overturn=(*overturn, *case.doubts, *_standing_doubts(plan, case)),
        )

    unclear, no = Decision.INCONCLUSIVE, Decision.DO_NOT_SHIP
    failed = [rail.plan.metric for rail in case.guardrails if rail.verdict is Verdict.FAIL]
    if failed:  # harm counts also in an experiment that is in doubt
        return answer(no, Cause.GUARDRAIL_FAILED, failed)
    failed_checks = [check.name for check in checks if check.passed is False]
    if failed_checks:
        return answer(unclear, Cause.CHECK_FAILED, failed_checks)
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    if primary is None:
        return answer(unclear, Cause.NO_PRIMARY)
    if primary.better is None:
        return answer(unclear, Cause.NO_DIRECTION, [primary.name])
    effect = case.primary
    if case.mixed:
        return answer(unclear, Cause.MIXED_MEANINGS, [primary.name, *case.mixed])
    if effect is None or effect.estimate.difference is None:
        return answer(unclear, Cause.NOT_MEASURED, [primary.name])
    rule = Rule.PRIMARY if plan.trade is None else plan.trade.rule
    cost = None if plan.trade is None or rule is Rule.PRIMARY else _cost(case, answer)
    if rule is Rule.SERVERS:
        return _guarded(case, answer, Cause.SERVERS_SAVED) if cost is None else cost
    if case.unresolved is not None:  # whatever moved, moved in the interpolation
        return answer(unclear, Cause.RESOLUTION, [effect.estimate.metric])
    p = effect.estimate.p
    if p is None:
        return answer(unclear, Cause.TOO_FEW_UNITS if effect.few else Cause.NOT_TESTED)
    if p >= plan.alpha:
        return _in_strata(case, answer, cost) or answer(unclear, Cause.NOT_CLEAR)
    better = _is_better(effect.estimate.difference, primary)
    if not _kept_by_bounds(effect, plan.alpha):
        return answer(unclear, Cause.MISSING_DATA, [effect.estimate.metric])
    if not better:
        return _faded(case, answer) or answer(no, Cause.WORSE)
    if cost is not None:
        return cost
    return _guarded(case, answer, Cause.BETTER)


class _Verdict(Protocol):
    def __call__(
        self,
        decision: Decision,
        cause: Cause,
        about: Sequence[str] = ...,
        *,
        scope: Scope = ...,
        overturn: Sequence[Overturn] = ...,
    ) -> ArmDecision: ...


def _guarded(case: Case, answer: _Verdict, cause: Cause) -> ArmDecision:
    """A benefit was shown: do the guardrails and the strata let it stand?"""
    if (faded := _faded(case, answer)) is not None:
        return faded
    open_rails = [rail.plan.metric for rail in case.guardrails if rail.verdict is not Verdict.PASS]
    if open_rails:
        grown = [one.metric for one in case.growing if one.blocks]
        cause = Cause.GUARDRAIL_GROWING if grown else Cause.GUARDRAIL_OPEN
        return answer(Decision.INCONCLUSIVE, cause, grown or open_rails)
    if case.local and (case.strata is None or not case.strata.named(StratumStanding.HARMED)):
        return answer(Decision.BETTER_HERE, cause, overturn=[Overturn(doubt=Doubt.FEW_HOSTS)])
    if case.strata is None:
        return answer(Decision.SHIP, cause)
    without = case.strata.named(StratumStanding.OPEN, StratumStanding.HARMED)
    if not without:
        return answer(Decision.SHIP, cause)
    sound, harmed = (
        case.strata.named(StratumStanding.BETTER, StratumStanding.SOUND),
        case.strata.named(StratumStanding.HARMED),
    )
    scope = replace(case.scope, strata=sound, without=without, harmed=harmed)
    open_strata = [
        Overturn(doubt=Doubt.STRATUM_NOT_RULED_OUT, about=name) for name in case.strata.named(StratumStanding.OPEN)
    ]
    if not sound or case.local:
        return answer(Decision.INCONCLUSIVE, Cause.STRATUM_HARMED, without, scope=scope, overturn=open_strata)
    return answer(Decision.SHIP_IN_STRATA, cause, scope=scope, overturn=open_strata)


def _faded(case: Case, answer: _Verdict) -> ArmDecision | None:
    """What was shown over the whole time is not there in its later half: a rollout is kept, and keeps only that."""
    if case.primary is None or case.fading is None or not case.fading.gone:
        return None
    return answer(Decision.INCONCLUSIVE, Cause.FADED, [case.primary.estimate.metric])


def _in_strata(case: Case, answer: _Verdict, cost: ArmDecision | None) -> ArmDecision | None:
    """No clear change over all hosts: is it one because strata differ, and some of them gain?

    Only where the strata were shown to differ and a benefit was shown in a stratum beside all the others (Holm), with
    nothing missing and no trade that speaks against it.
    """
    strata, effect = case.strata, case.primary
    if strata is None or effect is None or effect.bounds is not None or cost is not None or case.local:
        return None
    better = strata.named(StratumStanding.BETTER)
    if not better or not strata.differ:
        return None
    if any(rail.verdict is not Verdict.PASS for rail in case.guardrails):
        return None
    without = strata.named(StratumStanding.SOUND, StratumStanding.OPEN, StratumStanding.HARMED)
    scope = replace(case.scope, strata=better, without=without, harmed=strata.named(StratumStanding.HARMED))
    return answer(Decision.SHIP_IN_STRATA, Cause.BETTER_IN_STRATA, better, scope=scope)


def _cost(case: Case, answer: _Verdict) -> ArmDecision | None:
    """What the trade says against shipping; None where it saves servers. One not computed excludes no cost."""
    if case.trade is not None and case.trade.side is TradeSide.SAVES:
        return None
    if case.trade is not None and case.trade.side is TradeSide.COSTS:
        return answer(Decision.DO_NOT_SHIP, Cause.COSTS_SERVERS)
    return answer(Decision.INCONCLUSIVE, Cause.COST_NOT_EXCLUDED)


def _kept_by_bounds(effect: Effect, alpha: float) -> bool:
    """Whether the sign of a clear change holds had all that is missing spoken against it."""
    if effect.bounds is None:
        return True
    if effect.inference is None:
        return False
    rose = effect.inference.difference > 0
    against = effect.bounds.low if rose else effect.bounds.high
    p = against.p_value()
    adjusted = effect.look.p_adjusted(p)
    p = p if adjusted is None else adjusted
    return p is not None and p < alpha and (against.difference > 0) == rose


def _standing_doubts(plan: AnalysisPlan, case: Case) -> tuple[Overturn, ...]:
    """What could overturn any decision on this treatment."""
    doubts = []
    if case.primary is not None and case.primary.bounds is not None:
        doubts.append(Overturn(doubt=Doubt.MISSING_DATA, about=case.primary.estimate.metric))
    if case.primary is not None and case.fading is not None and case.fading.faded and case.fading.lasts:
        doubts.append(Overturn(doubt=Doubt.FADING, about=case.primary.estimate.metric))
    doubts += [
        Overturn(doubt=Doubt.GROWING, about=one.metric)
        for one in case.growing
        if one.later is not None and not one.blocks
    ]
    if case.strata is not None and case.strata.differ:
        doubts.append(Overturn(doubt=Doubt.STRATA_DIFFER))
    if plan.unplanned_look or plan.look < len(plan.information_fractions) - 1:
        doubts.append(Overturn(doubt=Doubt.EARLY_LOOK))
    if case.trade is not None and case.trade.side is not TradeSide.SAVES:
        doubts.append(Overturn(doubt=Doubt.COST_NOT_EXCLUDED))
    if all(rail.built_in for rail in case.guardrails):
        doubts.append(Overturn(doubt=Doubt.NO_GUARDRAIL))
    return tuple(doubts)


def _is_better(difference: float, primary: MetricPlan) -> bool:
    return (difference > 0) == (primary.better is Direction.INCREASE)


def _preference(
    plan: AnalysisPlan, arms: Sequence[ArmDecision], cases: Sequence[Case], pairs: Sequence[Estimate]
) -> Preference | None:
    """Which treatment is clearly better than each of the others that are in question; else none of them.

    In question are those with a favourable decision; where there is none, those that are not ruled out. None with
    fewer than two of them: there is nothing to choose.
    """
    primary = next((metric for metric in plan.metrics if metric.role is Role.PRIMARY), None)
    if len(arms) < 2 or primary is None or primary.better is None:
        return None
    favourable = [arm.arm for arm in arms if arm.decision.is_favourable]
    alive = [arm.arm for arm in arms if arm.decision is not Decision.DO_NOT_SHIP]
    named = favourable or alive
    if len(named) < 2:
        return None
    sign = 1.0 if primary.better is Direction.INCREASE else -1.0
    means = {
        case.treatment: sign * case.primary.estimate.treatment_mean
        for case in cases
        if case.treatment in named and case.primary is not None and case.primary.estimate.treatment_mean is not None
    }
    if not means:
        return None
    best = max(means, key=lambda arm: means[arm])
    beaten = []
    for row in pairs:
        if best in {row.control, row.treatment} and row.difference is not None and row.p is not None:
            gain = sign * (row.difference if row.treatment == best else -row.difference)
            if row.p < plan.alpha and gain > 0:
                beaten.append(row.control if row.treatment == best else row.treatment)
    rivals = [arm for arm in named if arm != best]
    told_apart = all(rival in beaten for rival in rivals)
    over = rivals if told_apart else [arm for arm in named if arm not in beaten]
    found = Preference(arm=best if told_apart else None, over=tuple(over))
    return replace(found, sentence=preference_sentence(found, pairs, plan.alpha))
