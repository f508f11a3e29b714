"""Did hosts that were changed move as the others did before? Two tests of that, and changes that never were.

A test that finds nothing shows little (Roth 2022, American Economic Review: Insights 4:305-322): what a trend as small
as went unseen would do is told by `relative_magnitudes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.multiplicity import holm
from analysis.retrospective.event_study import BASE_EVENT, EventStudy
from analysis.retrospective.group_time import Functional

MOST_BINS = 4  # into which the times before the change are gathered: many tests of few hosts find nothing
MOST_DATES = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTrend:
    """The tests of what was there before the change: p of any gap at all, p of a steady drift; None: not testable."""

    any_gap: float | None
    drift: float | None
    drift_per_period: Functional | None

    @property
    def p_value(self) -> float | None:
        """P of either, the smaller adjusted for there being two (Bonferroni)."""
        found = [p for p in (self.any_gap, self.drift) if p is not None]
        return min(1.0, len(found) * min(found)) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceboDate:
    """What a change would have seemed to do, had hosts been changed so many periods earlier."""

    earlier: int
    effect: Functional
    p_value: float | None
    p_adjusted: float | None  # by Holm over the dates


def share_of_each(dates: Sequence[PlaceboDate], alpha: float) -> float:
    """Return the level of the pre-trend's test, and of the dates': two kinds of tests of one assumption."""
    return alpha / 2 if any(one.p_adjusted is not None for one in dates) else alpha


def wald(effects: Sequence[Functional]) -> tuple[float, float] | None:
    """Chi-square of several effects being 0 at once and its p; None where they do not vary on their own."""
    if not effects:
        return None
    influence = np.array([one.influence for one in effects])
    covariance = influence @ influence.T
    if np.linalg.matrix_rank(covariance) < len(effects):
        return None
    values = np.array([one.estimate for one in effects])
    square = float(values @ np.linalg.solve(covariance, values))
    return square, float(stats.chi2.sf(square, len(effects)))


def pre_trend(study: EventStudy) -> PreTrend:
    """Test the times before the change: jointly, in few bins, by Hotelling's F; and their slope by a t-test."""
    before = study.before
    if not before:
        return PreTrend(any_gap=None, drift=None, drift_per_period=None)
    earlier = study.effects[: len(before)]
    if all(one.variance == 0 and one.estimate == 0 for one in earlier):  # every host read one value: nothing moved
        return PreTrend(any_gap=1.0, drift=None, drift_per_period=None)
    drift = _drift(study)
    slope = drift.p_value()
    if len(before) == 1:
        return PreTrend(any_gap=slope, drift=None, drift_per_period=drift)
    df = min(one.df for one in earlier)
    bins = np.array_split(np.array(before), max(1, min(MOST_BINS, len(before), int(df / 4))))
    gaps = [study.combined({int(event): 1 / len(part) for event in part}) for part in bins]
    found, count = wald(gaps), len(gaps)
    joint = None
    if found is not None and df > count:
        joint = float(stats.f.sf(found[0] * (df - count + 1) / (df * count), count, df - count + 1))
    return PreTrend(any_gap=joint, drift=slope, drift_per_period=drift)


def _drift(study: EventStudy) -> Functional:
    """The least-squares slope of the effects before the change, the base's 0 among them, per period."""
    times = np.array([*study.before, BASE_EVENT], dtype=np.float64)
    centred = times - times.mean()
    parts = centred / (centred @ centred)
    return study.combined({event: float(part) for event, part in zip(study.before, parts, strict=False)})


def placebo_dates(study: EventStudy) -> tuple[PlaceboDate, ...]:
    """Take the change for some periods earlier than it was, using nothing from after it: there must be no effect."""
    possible = [-event - 1 for event in study.before]  # so many periods stand between the false date and the true one
    chosen = sorted(
        {possible[int(place)] for place in np.linspace(0, len(possible) - 1, MOST_DATES)} if possible else []
    )
    found: list[tuple[int, Functional]] = []
    for earlier in chosen:
        seeming = {event: 1 / earlier for event in study.before if event >= -earlier}
        found.append((earlier, study.combined({-earlier - 1: -1.0, **seeming})))
    p_values = [effect.p_value() for _, effect in found]
    tested = iter(holm([p for p in p_values if p is not None]))
    return tuple(
        PlaceboDate(earlier=earlier, effect=effect, p_value=p, p_adjusted=None if p is None else next(tested))
        for (earlier, effect), p in zip(found, p_values, strict=True)
    )
