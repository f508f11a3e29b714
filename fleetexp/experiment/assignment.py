"""Which host gets which arm in a parallel design: four ways to draw, each of which the inference can replay. Pure.

`independent` (the default): each host's arm is drawn on its own from a hash of (seed, host). A host that joins later
moves nobody, cells of a fleet agree without talking, and the number of hosts in an arm is binomial. Strata do not
enter the hash: a draw with the same odds in every stratum is a draw within strata once the analysis compares inside
them, given how many hosts of each came to each arm; and a host whose label is corrected keeps its arm.

`complete`: within each stratum, hosts in the order of their hashes fill the arms to the exact ratio (what doesn't
divide is drawn). Better balanced, not stable: a host more may move others.

`matched_pairs`: within each stratum, hosts that are most alike in `balance` form sets of one host per arm, and a coin
decides inside each. Not stable. A host that is left over has a coin of its own.

`rerandomise`: as `complete`, drawn again until the arms are alike in `balance`; how often, and by which rule, is
recorded in the plan. Not stable.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from analysis.plan import AssignmentMethod
from fleetexp.domain import AssignmentPlan
from fleetexp.errors import ConfigError
from fleetexp.experiment import Experiment
from fleetexp.experiment.model import DEFAULT_DRAWS
from fleetexp.experiment.population import HostInfo
from fleetexp.experiment.problem import choose
from fleetexp.seeded_hash import uniform

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_AT_A_TIME = 50  # draws whose balance is looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnArms:
    """Who got which arm, and what the inference needs to draw again: sets of matched hosts, covariates, the rule."""

    arms: Mapping[str, str]
    record: AssignmentPlan
    pairs: Mapping[str, str] = field(default_factory=dict)
    balance: Mapping[str, tuple[float, ...]] = field(default_factory=dict)


def assign(experiment: Experiment, hosts: Sequence[HostInfo], strata: Mapping[str, str]) -> DrawnArms:
    """Draw the arm of every host; `strata` maps host to stratum. ConfigError where the method can't be carried out."""
    record = AssignmentPlan(method=experiment.method, strata=experiment.assignment.strata)
    match experiment.method:
        case AssignmentMethod.COMPLETE:
            return DrawnArms(arms=_complete(experiment, strata, 0), record=record)
        case AssignmentMethod.MATCHED_PAIRS:
            return _matched(experiment, hosts, strata)
        case AssignmentMethod.RERANDOMISE:
            return _rerandomise(experiment, hosts, strata)
        case _:
            return DrawnArms(arms={host.name: independent_arm(experiment, host.name) for host in hosts}, record=record)


def independent_arm(experiment: Experiment, host: str) -> str:
    """Draw one host's arm from (seed, host) alone."""
    ratio = experiment.ratio
    bounds = list(accumulate(ratio.values()))
    point = uniform(experiment.seed, "arm", host) * bounds[-1]
    return list(ratio)[bisect_right(bounds[:-1], point)]


def _by_stratum(strata: Mapping[str, str]) -> dict[str, list[str]]:
    out: dict[str, list[str]] = {}
    for host in sorted(strata):
        out.setdefault(strata[host], []).append(host)
    return out


def _complete(experiment: Experiment, strata: Mapping[str, str], draw: int) -> dict[str, str]:
    """Fill the arms to their sizes, in each stratum in the order of the hosts' hashes in this draw."""
    out: dict[str, str] = {}
    for stratum, hosts in _by_stratum(strata).items():
        order = sorted(hosts, key=lambda host: (uniform(experiment.seed, "complete", str(draw), host), host))
        places = iter(order)
        for arm, size in _sizes(experiment, stratum, len(hosts)).items():
            out |= {next(places): arm for _ in range(size)}
    return out


def _sizes(experiment: Experiment, stratum: str, hosts: int) -> dict[str, int]:
    """Share the hosts of a stratum out by ratio; each one that is left goes to an arm as often as its share says.

    Systematic sampling of the remainders: Madow (1949), Ann. Math. Statist. 20:333-354.
    """
    ratio = experiment.ratio
    parts = sum(ratio.values())
    sizes = {arm: hosts * part // parts for arm, part in ratio.items()}
    point = uniform(experiment.seed, "remainder", stratum) * parts
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


# ------------------------------------------------------------------ by what hosts were before
def _covariates(experiment: Experiment, hosts: Sequence[HostInfo]) -> dict[str, tuple[float, ...]]:
    """Each host's numbers; ConfigError names the host that lacks one."""
    out: dict[str, tuple[float, ...]] = {}
    for host in hosts:
        numbers = []
        for name in experiment.assignment.balance:
            number = host.number(name)
            if number is None:
                what = (
                    f"{name} of the host {host.name} is {host.labels[name]!r}, no number"
                    if name in host.labels
                    else f"the host {host.name} has neither a label nor a stored metric {name!r}"
                )
                legal = [label for label in host.labels if host.number(label) is not None]
                remedy = f"exclude it, or balance on what every host has; {choose(name, legal, noun='label')}"
                raise ConfigError(what, "assignment.balance", remedy)
            numbers.append(number)
        out[host.name] = tuple(numbers)
    return out


def _matched(experiment: Experiment, hosts: Sequence[HostInfo], strata: Mapping[str, str]) -> DrawnArms:
    import numpy as np  # noqa: PLC0415 - only the methods that balance need it

    values = _covariates(experiment, hosts)
    table = np.array([values[host.name] for host in hosts], dtype=np.float64)
    spread = table.std(axis=0)
    scaled = (table - table.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    row = {host.name: scaled[place] for place, host in enumerate(hosts)}
    arms: dict[str, str] = {}
    pairs: dict[str, str] = {}
    for stratum, names in _by_stratum(strata).items():
        points = np.array([row[name] for name in names])
        for number, members in enumerate(_sets(points, len(experiment.arms))):
            pair = f"{stratum}/{number}"
            order = sorted(experiment.arm_names, key=lambda arm: (uniform(experiment.seed, "pair", pair, arm), arm))
            for place, arm in zip(sorted(members), order, strict=False):
                arms[names[place]] = arm
                pairs[names[place]] = pair
    record = AssignmentPlan(
        method=experiment.method, strata=experiment.assignment.strata, balance=experiment.assignment.balance
    )
    return DrawnArms(arms=arms, pairs=pairs, balance=values, record=record)


def _sets(points: NDArray[np.float64], size: int) -> Iterator[list[int]]:
    """Put points that are near each other into sets of `size`; the last may be smaller.

    In one dimension neighbours in order, which is optimal for pairs; in more, greedily: whoever is furthest from the
    middle chooses its nearest first, because the middle has enough for everybody. The seed has no part in it.
    """
    import numpy as np  # noqa: PLC0415

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


def _rerandomise(experiment: Experiment, hosts: Sequence[HostInfo], strata: Mapping[str, str]) -> DrawnArms:
    import numpy as np  # noqa: PLC0415

    from analysis.balance import Balance  # noqa: PLC0415 - SciPy takes half a second

    values = _covariates(experiment, hosts)
    names = sorted(values)
    rule = experiment.balance_rule
    balance = Balance(np.array([values[name] for name in names], dtype=np.float64), rule)
    most = experiment.assignment.max_draws or DEFAULT_DRAWS
    nearest = np.inf
    for first in range(0, most, _AT_A_TIME):
        draws = [_complete(experiment, strata, draw) for draw in range(first, min(first + _AT_A_TIME, most))]
        table = np.array([[arms[name] for name in names] for arms in draws])
        distances = np.zeros(len(draws))
        for treatment in experiment.arm_names[1:]:
            for place in range(len(draws)):
                among = (table[place] == treatment) | (table[place] == experiment.control)
                own = balance.distances(table[place : place + 1] == treatment, among)
                distances[place] = max(distances[place], float(own[0]))
        accepted = np.flatnonzero(balance.accepts(distances))
        if accepted.size:
            chosen = int(accepted[0])
            record = AssignmentPlan(
                method=experiment.method,
                strata=experiment.assignment.strata,
                balance=experiment.assignment.balance,
                accept=rule.accept,
                largest_difference=rule.largest_difference,
                threshold=balance.threshold,
                distance=float(distances[chosen]),
                draws=first + chosen + 1,
            )
            return DrawnArms(arms=draws[chosen], balance=values, record=record)
        nearest = min(nearest, float(distances.min()))
    raise ConfigError(
        f"none of {most} draws is balanced: the nearest is at {nearest:.3g}, the limit {balance.threshold:.3g}",
        "assignment",
        "loosen accept or largest_difference, balance on less, or use more hosts",
    )
