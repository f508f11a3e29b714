"""Within each stratum, hosts in the order of their hashes fill the arms to the exact ratio.

What doesn't divide is drawn. Better balanced than independent draws, not stable: a host more may move others.
"""

from __future__ import annotations

from analysis.assignment_method import AssignmentMethod, Draw, DrawInput, within
from analysis.plan import AssignmentPlan
from analysis.seeded_hash import uniform


def complete(given: DrawInput, draw: int = 0) -> dict[str, str]:
    """Fill the arms to their sizes, in each stratum in the order of the hosts' hashes in this draw."""
    out: dict[str, str] = {}
    for stratum, hosts in given.by_stratum().items():
        order = sorted(hosts, key=lambda host: (uniform(given.seed, "complete", str(draw), host), host))
        places = iter(order)
        for arm, size in _sizes(given, stratum, len(hosts)).items():
            out |= {next(places): arm for _ in range(size)}
    return out


def _sizes(given: DrawInput, stratum: str, hosts: int) -> dict[str, int]:
    """Share the hosts of a stratum out by ratio; each one that is left goes to an arm as often as its share says.

    Systematic sampling of the remainders: Madow (1949), Ann. Math. Statist. 20:333-354.
    """
    ratio = given.ratio
    parts = sum(ratio.values())
    sizes = {arm: hosts * part // parts for arm, part in ratio.items()}
    point = uniform(given.seed, "remainder", stratum) * parts
    reached = 0
    for arm, part in ratio.items():
        rest = hosts * part % parts
        # Points lie at point, point + parts, ...: those below `reached` have gone to the arms before.
        before = _points_below(reached, point, parts)
        reached += rest
        sizes[arm] += _points_below(reached, point, parts) - before
    return sizes


def _points_below(bound: int, point: float, parts: int) -> int:
    return 0 if bound <= point else int((bound - point - 1e-12) // parts) + 1


def _words(record: AssignmentPlan, sets: int) -> str:
    return f"exact ratio{within(record)}, by hash of (seed, host); a host more may move others"


METHOD = AssignmentMethod(name="complete", draw=lambda given: Draw(arms=complete(given)), words=_words)
