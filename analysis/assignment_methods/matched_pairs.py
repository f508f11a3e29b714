"""Within each stratum, hosts that are most alike form sets of one host per arm, and a coin decides inside each.

Not stable. A host that is left over has a coin of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from analysis.assignment_method import AssignmentMethod, Draw, DrawInput, within
from analysis.plan import AnalysisPlan, AssignmentPlan
from analysis.seeded_hash import uniform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from analysis.assignment_redraws import Replay
    from analysis.hosts import TwoArms


def _draw(given: DrawInput) -> Draw:
    import numpy as np

    table = np.array(list(given.balance.values()), dtype=np.float64)
    spread = table.std(axis=0)
    scaled = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    row = dict(zip(given.balance, scaled, strict=True))
    arms: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for stratum, names in given.by_stratum().items():
        points = np.array([row[name] for name in names])
        for number, members in enumerate(_sets(points, len(given.ratio))):
            pair = f"{stratum}/{number}"
            order = sorted(given.ratio, key=lambda arm: (uniform(given.seed, "pair", pair, arm), arm))
            for place, arm in zip(sorted(members), order, strict=False):
                arms[names[place]] = arm
                pairs[names[place]] = pair
    return Draw(arms=arms, pairs=pairs)


def _sets(points: NDArray[np.float64], size: int) -> Iterator[list[int]]:
    """Put points that are near each other into sets of `size`; the last may be smaller.

    In one dimension neighbours in order, which is optimal for pairs; in more, greedily: whoever is furthest from the
    middle chooses its nearest first, because the middle has enough for everybody. The seed has no part in it.
    """
    import numpy as np

    if points.shape[1] == 1:
        order = np.argsort(points[:, 0], kind="stable").tolist()
        for first in range(0, len(order), size):
            yield order[first : first + size]
        return
    left = np.argsort(-np.linalg.norm(points - points.mean(axis=0), axis=1), kind="stable")
    while left.size:
        away = np.linalg.norm(points[left] - points[left[0]], axis=1)
        away[0] = -1.0
        chosen = np.argsort(away, kind="stable")[:size]
        yield left[chosen].tolist()
        left = np.delete(left, chosen)


def _replay(sample: TwoArms, plan: AnalysisPlan) -> Replay:
    from analysis.assignment_redraws import replay_sets

    return replay_sets(sample, plan)


def _words(record: AssignmentPlan, sets: int) -> str:
    return f"{sets} sets of hosts alike in {', '.join(record.balance)}{within(record)}, a coin in each"


METHOD = AssignmentMethod(name="matched_pairs", draw=_draw, replay=_replay, words=_words, balances=True, paired=True)
