"""The table of effects in words: metric, control, treatment, change with its interval. Report and CLI share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from analysis.plan import Direction, Role
from analysis.quantities import Scale, scale_for
from analysis.report.content import UnavailableMetric
from analysis.results import Estimate, EstimateKind, Findings
from analysis.wording import NO_CLEAR_CHANGE, Change, change_of, scaled_values

_ORDER = {role: place for place, role in enumerate(Role)}


class EffectOutcome(StrEnum):
    """What the data show of a change. Without a clear change nothing is called better or worse."""

    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"  # clear, and nobody said which way is better
    UNCLEAR = NO_CLEAR_CHANGE
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRow:
    """One line of the table, every cell as text; nothing is escaped yet."""

    metric: str
    unit: str  # only where it is too long to stand in the cells
    role: Role | None  # None: the metric is unavailable
    control_arm: str  # what it is compared with: of a pair of treatments, one of them
    treatment_arm: str
    control: str
    treatment: str
    change: str  # '34 % faster', '+12 MiB', 'no clear change', or 'unavailable: why'
    figures: str  # '[+3 %, +9 %]'; without a clear change the estimate too: '+0.8 % [-3.1 %, +4.7 %]'
    level: float | None  # of the interval: 0.95
    outcome: EffectOutcome
    remark: str  # warnings of the estimate, joined

    @property
    def is_clear(self) -> bool:
        """Whether the data show a change."""
        return self.outcome in {EffectOutcome.BETTER, EffectOutcome.WORSE, EffectOutcome.CHANGED}


def effect_rows(
    findings: Findings,
    unavailable: Sequence[UnavailableMetric] = (),
    better: Mapping[str, Direction] | None = None,
) -> tuple[EffectRow, ...]:
    """Put every headline estimate into words: primary first, each metric's arms together, then what is unavailable.

    `better` names the direction in which a metric should move.
    """
    directions = better or {}
    estimates = [row for row in findings.estimates if row.headline and not row.stratum]
    estimates.sort(key=lambda row: _ORDER[row.role])
    rows = [estimate_row(row, findings.alpha, directions.get(row.metric)) for row in estimates]
    rows += [_unavailable_row(item) for item in unavailable]
    return tuple(rows)


def pair_rows(findings: Findings, better: Mapping[str, Direction] | None = None) -> tuple[EffectRow, ...]:
    """Put the comparisons of two treatments into words, the primary's first."""
    directions = better or {}
    pairs = [row for row in findings.estimates if row.kind is EstimateKind.PAIRWISE and not row.stratum]
    pairs.sort(key=lambda row: _ORDER[row.role])
    return tuple(estimate_row(row, findings.alpha, directions.get(row.metric)) for row in pairs)


def estimate_row(estimate: Estimate, alpha: float, better: Direction | None = None) -> EffectRow:
    """Put one estimate into words."""
    scale = scale_for(estimate.unit, scaled_values(estimate))
    change = change_of(estimate, alpha)
    return EffectRow(
        metric=estimate.metric,
        unit=scale.spelled,
        role=estimate.role,
        control_arm=estimate.control,
        treatment_arm=estimate.treatment,
        control=_mean(estimate.control_mean, estimate.unit, scale),
        treatment=_mean(estimate.treatment_mean, estimate.unit, scale),
        change=change.compared,
        figures=change.figures,
        level=change.level,
        outcome=_outcome(change, better),
        remark="; ".join(estimate.warnings),
    )


def smallest_lift(estimate: Estimate, alpha: float, power: float = 0.8) -> float | None:
    """Return the lift that data as precise as these would show with this power (the MDE); None where not known.

    (t(1 - alpha / 2) + t(power)) standard errors over the control mean: Bloom (1995), Evaluation Review 19:547-556.
    """
    if not estimate.standard_error or not estimate.control_mean or not estimate.df:
        return None
    reach = stats.t.ppf(1 - alpha / 2, estimate.df) + stats.t.ppf(power, estimate.df)
    return float(reach * estimate.standard_error / abs(estimate.control_mean))


def _mean(value: float | None, unit: str, scale: Scale) -> str:
    """Show a mean in the row's scale, or in its own where that would be 0.05 MiB."""
    if value is None:
        return "no data"
    small = not scale.spelled and 0 < abs(value * scale.factor) < 0.1
    return (scale_for(unit, (value,)) if small else scale).show(value)


def _outcome(change: Change, better: Direction | None) -> EffectOutcome:
    if not change.clear:
        return EffectOutcome.UNCLEAR
    if better is None:
        return EffectOutcome.CHANGED
    return EffectOutcome.BETTER if change.rose == (better is Direction.INCREASE) else EffectOutcome.WORSE


def _unavailable_row(item: UnavailableMetric) -> EffectRow:
    return EffectRow(
        metric=item.metric,
        unit="",
        role=None,
        control_arm="",
        treatment_arm="",
        control="",
        treatment="",
        change=f"unavailable: {item.reason or 'no reason was recorded'}",
        figures="",
        level=None,
        outcome=EffectOutcome.UNAVAILABLE,
        remark="",
    )
