"""From what one metric shows to its verdict: the first fact that settles it is the ground."""

from __future__ import annotations

from analysis.plan import Direction
from analysis.results import Interval
from analysis.retrospective.metric_effect import MetricEffect
from analysis.retrospective.pre_trend import share_of_each
from analysis.retrospective.verdicts import Ground, RetrospectiveVerdict, RowKind

_OTHERWISE = {
    RowKind.RATIOS: Ground.RATIOS,
    RowKind.LEVEL: Ground.UNLIKE_HOSTS,
    RowKind.BALANCED: Ground.UNLIKE_HOSTS,
    RowKind.LATER: Ground.FADED,
    RowKind.MIDDLE: Ground.FEW_MOVED,
}


def judged(found: MetricEffect, alpha: float) -> tuple[RetrospectiveVerdict | None, Ground]:
    """Judge one metric. A change is consistent with benefit or harm only where everything that could be tested agrees.

    What contradicts the comparison itself comes first; then whatever keeps a change from being told apart from none.
    None: it is told apart, and nobody says which way is better.
    """
    row = found.shown.headline
    trend = None if found.trend is None else found.trend.p_value
    dates = [one.p_adjusted for one in found.dates if one.p_adjusted is not None]
    share = share_of_each(found.dates, alpha)
    if trend is not None and trend < share:
        return RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED, Ground.PRE_TREND
    if dates and min(dates) < share:
        return RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED, Ground.PLACEBO_DATE
    blind = RetrospectiveVerdict.NOT_DISTINGUISHABLE
    if row is None or row.difference is None:
        return blind, Ground.NOT_ESTIMATED
    if found.few:
        return blind, Ground.TOO_FEW_HOSTS
    if trend is None:
        return blind, Ground.NO_PRE_TREND_TEST
    if row.p is None or row.p >= alpha:
        return blind, Ground.NOT_CLEAR
    if found.uneven or (found.worst is not None and _holds_zero(found.worst)):
        return blind, Ground.MISSING_DATA
    if found.placebo_p is not None and found.placebo_p >= alpha:
        return blind, Ground.PLACEBO_HOSTS
    if found.shown.plan.better is None:
        return None, Ground.NO_DIRECTION
    better = (row.difference > 0) == (found.shown.plan.better is Direction.INCREASE)
    parted = {one.kind for one in found.readings if one.parts_from(row.difference, 1 - alpha)}
    for kind, ground in _OTHERWISE.items():
        if kind in parted and (better or kind is not RowKind.MIDDLE):  # harm to few hosts is harm
            return blind, ground
    if better:
        return RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT, Ground.EFFECT
    return RetrospectiveVerdict.CONSISTENT_WITH_HARM, Ground.EFFECT


def _holds_zero(interval: Interval) -> bool:
    return not ((interval.low is not None and interval.low > 0) or (interval.high is not None and interval.high < 0))
