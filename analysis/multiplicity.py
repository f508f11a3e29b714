"""Several estimates at once: Holm for what was promised, Benjamini-Hochberg for what is only explored.

Each row's interval has the level at which its p-value was judged, so that the interval leaves out 0 just where the
adjusted p is below alpha.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from scipy import stats

from analysis.errors import BadObservations
from analysis.inference import Inference
from analysis.plan import Role
from analysis.results import Estimate
from analysis.validation import finite_estimate

_Key = TypeVar("_Key", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdjustedTest:
    """A headline row and what it rests on; None: too few units for any claim."""

    row: Estimate
    inference: Inference | None


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust so that the chance of any false claim stays at alpha. Holm (1979), Scand. J. Statist. 6:65-70."""
    _refuse_impossible(p_values)
    count = len(p_values)
    adjusted_to = [0.0] * count
    largest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted_to[place] = largest
    return adjusted_to


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust so that the share of false among the claims stays at alpha. J. R. Stat. Soc. B 57:289-300 (1995)."""
    _refuse_impossible(p_values)
    return [float(p) for p in stats.false_discovery_control(p_values, method="bh")] if p_values else []


def _refuse_impossible(p_values: Sequence[float]) -> None:
    if not all(0 <= p <= 1 for p in p_values):
        raise BadObservations("a p-value is not between 0 and 1", "p-values", "leave out what could not be tested")


def adjusted(answers: Mapping[_Key, AdjustedTest], alpha: float) -> dict[_Key, Estimate]:
    """Give every row of a family its adjusted p and the interval of that level: secondaries by Holm, exploratory by BH.

    The primary has shared alpha between its treatments already. A secondary that is not called significant gets the
    level of the first that is not. Among the explored the level is that of those called significant together, which
    keeps the share of intervals that miss at alpha (Benjamini and Yekutieli 2005, J. Am. Stat. Assoc. 100:71-81).
    """
    out = {
        key: replace(answer.row, p_adjusted=answer.row.p) if answer.row.role is Role.PRIMARY else answer.row
        for key, answer in answers.items()
    }
    for role, adjust in ((Role.SECONDARY, holm), (Role.EXPLORATORY, benjamini_hochberg)):
        family = [(key, p) for key, row in out.items() if row.role is role and (p := row.p) is not None]
        values = adjust([p for _, p in family])
        count = len(family)
        claimed = sum(p < alpha for p in values)
        order = sorted(range(count), key=lambda place: family[place][1])
        for rank, place in enumerate(order):
            key = family[place][0]
            by_holm = 1 / (count - min(rank, claimed, count - 1))
            share = by_holm if role is Role.SECONDARY else max(claimed, 1) / count
            out[key] = _at(out[key], answers[key].inference, share, values[place])
    return out


def _at(row: Estimate, inference: Inference | None, share: float, p_adjusted: float) -> Estimate:
    if inference is None or row.difference_interval is None:
        return replace(row, p_adjusted=p_adjusted)
    level = 1 - (1 - row.difference_interval.level) * share
    lift_interval = inference.lift_interval(level) if row.lift is not None else None
    unbounded = row.lift_interval is not None and lift_interval is None
    return finite_estimate(
        replace(
            row,
            p_adjusted=p_adjusted,
            difference_interval=inference.interval(level),
            lift=None if unbounded else row.lift,
            lift_interval=lift_interval,
        )
    )
