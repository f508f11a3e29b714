"""Which look at the data this is, and what confidence that leaves for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from analysis.confidence_sequence import FEWEST_HOSTS, sequence_level
from analysis.plan import AnalysisPlan, Role
from analysis.sequential import level_at


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The level of this look's intervals; `blind` says that no claim may be made; `spent` is alpha over its share."""

    level: float
    blind: bool = False
    spent: float = 1.0
    warnings: tuple[str, ...] = ()

    def p_adjusted(self, p: float | None) -> float | None:
        """P-value to be compared with alpha at any look and of any comparison; None where there is but one."""
        return None if p is None or self.spent == 1.0 else min(1.0, p * self.spent)

    def shared(self, comparisons: int) -> Look:
        """The level of one of several comparisons, so that the intervals of all hold at once (Bonferroni)."""
        if comparisons <= 1:
            return self
        return replace(self, level=1 - (1 - self.level) / comparisons, spent=self.spent * comparisons)


def look_at(plan: AnalysisPlan, role: Role, units: int, planned_units: int | None = None) -> Look:
    """Say how a metric may be looked at now: `units` hosts or blocks are in, `planned_units` will be.

    Primary and secondary metrics pay for planned looks by alpha spending, and for an unplanned one by a confidence
    sequence, from 20 units; other metrics are looked at with the fixed level. The primary shares alpha between the
    treatments.
    """
    if role not in {Role.PRIMARY, Role.SECONDARY}:
        return Look(level=1 - plan.alpha)
    look = _paid(plan, units, planned_units)
    return look.shared(len(plan.arms) - 1) if role is Role.PRIMARY else look


def _paid(plan: AnalysisPlan, units: int, planned_units: int | None) -> Look:
    """The level that looking early leaves."""
    if plan.unplanned_look:
        if units < FEWEST_HOSTS:
            said = f"an unplanned look at {units} units bears no claim: {FEWEST_HOSTS} are needed"
            return Look(level=1 - plan.alpha, blind=True, warnings=(said,))
        share = sequence_level(units, plan.alpha, planned_units)
        said = f"an unplanned look: the {1 - plan.alpha:.0%} interval holds at every moment"
        return Look(level=1 - share, spent=plan.alpha / share, warnings=(said,))
    looks = len(plan.information_fractions)
    if looks == 1:
        return Look(level=1 - plan.alpha)
    share = level_at(plan.information_fractions, plan.look, plan.alpha)
    said = f"look {plan.look + 1} of {looks}: the interval allows for the others"
    return Look(level=1 - share, spent=plan.alpha / share, warnings=(said,))


def guardrail_look(plan: AnalysisPlan, units: int, planned_units: int | None = None) -> Look:
    """Say with what confidence a guardrail's margin may be judged now.

    Each end of its interval is a one-sided bound at alpha, hence twice alpha for both. A breach halts a run, so every
    look at which one could be found is paid for: the chance of ever halting over a harmless arm stays below alpha.
    """
    return _paid(replace(plan, alpha=2 * plan.alpha), units, planned_units)
