"""The table of effects in words: metric, control, treatment, change with its interval. Report and CLI share it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import stats

from analysis.plan import Direction, Role
from analysis.report.content import UnavailableMetric
from analysis.report.quantities import TIMES, Scale, decimals_for, is_duration, percentage, scale_for
from analysis.results import Estimate, Findings, Interval

# Seconds that are a cost and not a wait: 'faster' would say something else than 'less'.
_COSTS = ("cpu", "psi", "stall", "pressure")
_ORDER = {role: place for place, role in enumerate(Role)}


class Outcome(StrEnum):
    """What the data show of a change. Without a clear change nothing is called better or worse."""

    BETTER = "better"
    WORSE = "worse"
    CHANGED = "changed"  # clear, and nobody said which way is better
    UNCLEAR = "no clear change"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectRow:
    """One line of the table, every cell as text; nothing is escaped yet."""

    metric: str
    unit: str  # only where it is too long to stand in the cells
    role: Role | None  # None: the metric is unavailable
    control_arm: str
    treatment_arm: str
    control: str
    treatment: str
    change: str  # '34 % faster', '+12 MiB', or 'unavailable: why'
    interval: str  # '[+3 %, +9 %]', '' where there is none
    level: float | None  # 0.95
    outcome: Outcome
    remark: str  # warnings of the estimate, joined


def effect_rows(
    findings: Findings,
    unavailable: Sequence[UnavailableMetric] = (),
    better: Mapping[str, Direction] | None = None,
) -> tuple[EffectRow, ...]:
    """Put every headline estimate into words: primary first, each metric's arms together, then what is unavailable.

    `better` names the direction in which a metric should move. A change counts as clear where its interval leaves
    out 0 and its p-value, adjusted where it was, is below the findings' alpha.
    """
    directions = better or {}
    estimates = [row for row in findings.estimates if row.headline and not row.stratum]
    estimates.sort(key=lambda row: _ORDER[row.role])
    rows = [estimate_row(row, findings.alpha, directions.get(row.metric)) for row in estimates]
    rows += [_unavailable_row(item) for item in unavailable]
    return tuple(rows)


def estimate_row(estimate: Estimate, alpha: float, better: Direction | None = None) -> EffectRow:
    """Put one estimate into words."""
    scale = scale_for(estimate.unit, (estimate.control_mean, estimate.treatment_mean))
    change, interval = _change(estimate, scale)
    used = estimate.lift_interval if estimate.lift is not None else estimate.difference_interval
    return EffectRow(
        metric=estimate.metric,
        unit=scale.spelled,
        role=estimate.role,
        control_arm=estimate.control,
        treatment_arm=estimate.treatment,
        control=_mean(estimate.control_mean, estimate.unit, scale),
        treatment=_mean(estimate.treatment_mean, estimate.unit, scale),
        change=change,
        interval=interval,
        level=used.level if used is not None else None,
        outcome=_outcome(estimate, used, alpha, better),
        remark="; ".join(estimate.warnings),
    )


def leaves_out_zero(interval: Interval) -> bool:
    """Whether 0 is outside the confidence set."""
    low, high = interval.low, interval.high
    if interval.excludes:
        return low is not None and high is not None and low < 0 < high
    return (low is not None and low > 0) or (high is not None and high < 0)


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
    small = 0 < abs(value * scale.factor) < 0.1
    return (scale_for(unit, (value,)) if small else scale).show(value)


def _outcome(estimate: Estimate, interval: Interval | None, alpha: float, better: Direction | None) -> Outcome:
    p_value = estimate.p_adjusted if estimate.p_adjusted is not None else estimate.p_value
    moved = estimate.lift if estimate.lift is not None else estimate.difference
    if moved is None or interval is None or p_value is None or p_value >= alpha or not leaves_out_zero(interval):
        return Outcome.UNCLEAR
    if better is None:
        return Outcome.CHANGED
    # The difference, not the lift: a lift on a negative control mean has the other sign.
    direction = Direction.INCREASE if _direction_of(estimate, moved) > 0 else Direction.DECREASE
    return Outcome.BETTER if direction is better else Outcome.WORSE


def _direction_of(estimate: Estimate, moved: float) -> float:
    return estimate.difference if estimate.difference is not None else moved


def _change(estimate: Estimate, scale: Scale) -> tuple[str, str]:
    if estimate.lift is not None:
        return _relative(estimate.metric, estimate.unit, estimate.lift, estimate.lift_interval)
    if estimate.difference is not None:
        interval = estimate.difference_interval
        return scale.show_difference(estimate.difference), (
            "" if interval is None else interval_text(interval, scale.show_difference)
        )
    return "no estimate", ""


def _relative(metric: str, unit: str, lift: float, interval: Interval | None) -> tuple[str, str]:
    ends = [] if interval is None else [end * 100 for end in (interval.low, interval.high) if end is not None]
    half_width = abs(ends[1] - ends[0]) / 2 if len(ends) == 2 else None
    decimals = decimals_for([lift * 100, *ends], half_width)
    timed = is_duration(unit) and not any(word in metric for word in _COSTS)
    if lift == 0:
        change = "no change"
    elif lift >= 1:
        change = f"{1 + lift:,.1f}{TIMES} as {'long' if timed else 'much'}"
    else:
        words = ("slower", "faster") if timed else ("higher", "lower")
        change = f"{percentage(abs(lift), decimals, sign=False)} {words[lift < 0]}"
    return change, "" if interval is None else interval_text(interval, lambda end: percentage(end, decimals))


def interval_text(interval: Interval, show: Callable[[float], str]) -> str:
    """Write a confidence set; what is unbounded is said to be."""
    low, high = interval.low, interval.high
    if low is None and high is None:
        return "[unbounded]"
    if low is None or high is None:
        return f"[unbounded, {show(high)}]" if high is not None else f"[{show(low or 0.0)}, unbounded]"
    if interval.excludes:
        return f"[below {show(low)} or above {show(high)}]"
    return f"[{show(low)}, {show(high)}]"


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
        interval="",
        level=None,
        outcome=Outcome.UNAVAILABLE,
        remark="",
    )
