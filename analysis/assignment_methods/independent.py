"""Each host's arm drawn on its own from a hash of (seed, host): the default.

A host that joins later moves nobody, cells of a fleet agree without talking, and the number of hosts in an arm is
binomial. Strata do not enter the hash: a draw with the same odds in every stratum is a draw within strata once the
analysis compares inside them, given how many hosts of each came to each arm; and a host whose label is corrected keeps
its arm.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from analysis.assignment_method import AssignmentMethod, Draw, DrawInput, within
from analysis.plan import INDEPENDENT, AssignmentPlan
from analysis.seeded_hash import uniform


def _draw(given: DrawInput) -> Draw:
    bounds = list(accumulate(given.ratio.values()))
    arms = list(given.ratio)

    def arm(host: str) -> str:
        return arms[bisect_right(bounds[:-1], uniform(given.seed, "arm", host) * bounds[-1])]

    return Draw(arms={host: arm(host) for host in given.strata})


def _words(record: AssignmentPlan, sets: int) -> str:
    return f"each host by hash of (seed, host), compared{within(record) or ' over all'}; stable"


METHOD = AssignmentMethod(name=INDEPENDENT, draw=_draw, words=_words, stable=True)
