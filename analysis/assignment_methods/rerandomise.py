"""As `complete`, drawn again until the arms are alike in what hosts were before.

How often, and by which rule, is recorded in the plan. Not stable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.assignment_method import AssignmentMethod, Draw, DrawInput, replay_within_strata, within
from analysis.assignment_methods.complete import complete
from analysis.errors import BadPlan
from analysis.plan import AnalysisPlan, AssignmentPlan

if TYPE_CHECKING:
    from analysis.assignment_redraws import Replay
    from analysis.hosts import TwoArms

_AT_A_TIME = 50  # draws whose balance is looked at together


def _draw(given: DrawInput) -> Draw:
    import numpy as np

    from analysis.balance import Balance

    names = sorted(given.balance)
    balance = Balance(np.array([given.balance[name] for name in names], dtype=np.float64), given.rule)
    control, *treatments = given.ratio
    nearest = np.inf
    for first in range(0, given.most_draws, _AT_A_TIME):
        draws = [complete(given, draw) for draw in range(first, min(first + _AT_A_TIME, given.most_draws))]
        table = np.array([[arms[name] for name in names] for arms in draws])
        distances = np.zeros(len(draws))
        for treatment in treatments:
            for place in range(len(draws)):
                among = (table[place] == treatment) | (table[place] == control)
                own = balance.distances(table[place : place + 1] == treatment, among)
                distances[place] = max(distances[place], float(own[0]))
        accepted = np.flatnonzero(balance.accepts(distances))
        if accepted.size:
            chosen = int(accepted[0])
            return Draw(
                arms=draws[chosen],
                threshold=balance.threshold,
                distance=float(distances[chosen]),
                draws=first + chosen + 1,
            )
        nearest = min(nearest, float(distances.min()))
    raise BadPlan(
        f"none of {given.most_draws} draws is balanced: the nearest is at {nearest:.3g}, "
        f"the limit {balance.threshold:.3g}",
        "assignment",
        "loosen accept or largest_difference, balance on less, or use more hosts",
    )


def _replay(sample: TwoArms, plan: AnalysisPlan) -> Replay:
    from analysis.assignment_redraws import Rerandomised

    if sample.control != plan.control:  # two treatments: no rule compared them
        return replay_within_strata(sample, plan)
    return Rerandomised(plan.units, plan, (sample.control, sample.treatment), [str(host) for host in sample.hosts])


def _words(record: AssignmentPlan, sets: int) -> str:
    rule = (
        f"Mahalanobis distance {record.distance:.3g} of at most {record.threshold:.3g}"
        if record.accept is not None
        else f"largest difference {record.distance:.3g} SD of at most {record.threshold:.3g}"
    )
    return f"exact ratio{within(record)}, draw {record.draws} is balanced in {', '.join(record.balance)}: {rule}"


METHOD = AssignmentMethod(name="rerandomise", draw=_draw, replay=_replay, words=_words, balances=True, by_rule=True)
