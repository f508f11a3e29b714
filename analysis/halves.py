"""The later half of what each unit has in time: the one way in which its periods are parted, whatever the design."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.guardrails import with_guardrail_metrics
from analysis.plan import AnalysisPlan, MetricPlan, Role
from analysis.results import HALVES

_EARLIER, _LATER = (kind.value for kind in HALVES)  # columns of the observations


def cut_in_halves(plan: AnalysisPlan) -> tuple[MetricPlan, ...]:
    """Say which metrics are looked at by halves: the primary, and those that a guardrail with a margin watches."""
    guarded = {guardrail.metric for guardrail in plan.guardrails if guardrail.margin is not None}
    every = with_guardrail_metrics(plan)
    return tuple(metric for metric in every if metric.role is Role.PRIMARY or metric.name in guarded)


def in_later_half(unit: NDArray[np.intp], order: NDArray[np.number]) -> NDArray[np.bool_]:
    """Whether each value belongs to the later half of its unit's moments; of an odd number the middle one does not.

    `unit` numbers the units from 0, `order` the moments of each: values of one moment are in one half.
    """
    sorted_places = np.lexsort((order, unit))
    units, moments = unit[sorted_places], order[sorted_places]
    new = np.ones(unit.size, dtype=np.bool_)
    new[1:] = (units[1:] != units[:-1]) | (moments[1:] != moments[:-1])
    counts = np.bincount(units[new])
    late = np.empty(unit.size, dtype=np.bool_)
    late[sorted_places] = np.cumsum(new) - 1 - (np.cumsum(counts) - counts)[units] >= (counts[units] + 1) // 2
    return late


def cut_at_their_middles(rows: pd.DataFrame, metric: MetricPlan) -> pd.DataFrame | None:
    """The rows of a metric, each period whose halves are known as two periods; None where those of none are.

    `rows` are checked observations; the halves are the columns `earlier_half` and `later_half`, of the figure that the
    metric's effect is of. Of a ratio both parts are cut, or neither.
    """
    if not {_EARLIER, _LATER} <= set(rows.columns):
        return None
    own = rows[rows["metric"].isin({metric.name, metric.denominator} - {None})]
    known = np.isfinite(own[[_EARLIER, _LATER]].to_numpy(dtype=np.float64)).all(axis=1)
    cut = pd.Series(known, index=own.index).groupby(own["period_id"]).transform("all")
    if not cut.any():
        return None
    own = own.assign(period_id=2 * own["period_id"], position=2 * own["position"])  # room for a period behind each
    whole = own[cut].assign(seconds=own["seconds"] / 2)
    earlier = whole.assign(**{metric.statistic: whole[_EARLIER]})
    later = whole.assign(
        **{metric.statistic: whole[_LATER]}, period_id=whole["period_id"] + 1, position=whole["position"] + 1
    )
    return pd.concat([own[~cut], earlier, later], ignore_index=True)
