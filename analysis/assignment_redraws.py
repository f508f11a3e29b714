"""How the arms came about, to be drawn again: each way of assignment as the outcomes that it makes equally likely.

Everything is given the hosts that report. Draws are [draw, host], True for the treatment; hosts of other arms stay
where they are: given those, the rest is drawn as if there were two arms.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations, product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.assignment_method import find_method
from analysis.balance import Balance
from analysis.errors import NotEnoughData
from analysis.hosts import TwoArms
from analysis.plan import AnalysisPlan, AssignedUnit

_Floats = NDArray[np.float64]
_Draws = NDArray[np.bool_]
EXACT_UP_TO = 20_000
MOST_TRIED = 2_000_000  # draws looked at to find those that the balance rule accepts
BATCH_CELLS = 4_000_000
DRAWS, FEWEST_DRAWS = 2_999, 999
CELLS = 10_000_000  # of all draws together: a larger fleet gets fewer


class Replay(Protocol):
    """A mechanism of assignment that can be replayed."""

    name: str  # what was drawn anew, for the row's name: 'within strata'

    def possible(self) -> int | None:
        """Count the equally likely assignments; None where they are too many to be counted one by one."""
        ...

    def every(self) -> Iterator[_Draws]:
        """Yield each of them, the real one among them."""
        ...

    def redraw(self, draws: int, draw: np.random.Generator) -> _Draws:
        """Draw that many anew."""
        ...


class WithinStrata:
    """Within each stratum, as many treated as there were, whoever they are: independent and complete draws alike.

    Independent draws are so given how many hosts of each stratum came to each arm.
    """

    name = "within strata"

    def __init__(self, treated: _Draws, strata: NDArray[np.str_]) -> None:
        self._size = treated.size
        self._parts = [
            (here, int(treated[here].sum())) for here in (np.flatnonzero(strata == name) for name in np.unique(strata))
        ]

    def possible(self) -> int:
        return math.prod(math.comb(here.size, chosen) for here, chosen in self._parts)

    def every(self) -> Iterator[_Draws]:
        for chosen in product(*(combinations(here.tolist(), count) for here, count in self._parts)):
            mask = np.zeros(self._size, dtype=bool)
            mask[[place for part in chosen for place in part]] = True
            yield mask

    def redraw(self, draws: int, draw: np.random.Generator) -> _Draws:
        out = np.zeros((draws, self._size), dtype=bool)
        for here, chosen in self._parts:
            order = draw.random((draws, here.size)).argsort(axis=1)[:, :chosen]
            np.put_along_axis(out, here[order], True, axis=1)
        return out


class WithinPairs:
    """One coin for each set of matched hosts. A host whose partner does not report has its coin to itself."""

    def __init__(self, treated: _Draws, pairs: NDArray[np.str_], name: str = "within matched pairs") -> None:
        self.name = name
        self._treated = treated
        self._names, self._coin = np.unique(pairs, return_inverse=True)

    def possible(self) -> int:
        return int(2 ** len(self._names))

    def every(self) -> Iterator[_Draws]:
        for flips in product((False, True), repeat=len(self._names)):
            yield self._treated ^ np.array(flips)[self._coin]

    def redraw(self, draws: int, draw: np.random.Generator) -> _Draws:
        flips = draw.integers(0, 2, size=(draws, len(self._names)), dtype=np.int8).astype(bool)
        drawn: _Draws = self._treated ^ flips[:, self._coin]
        return drawn


class Rerandomised:
    """Draws within strata that the balance rule accepts, over every assigned host, also those that do not report.

    Morgan and Rubin (2012), Ann. Statist. 40:1263-1282, section 2.2: the test must leave out what was never possible.
    """

    name = "among balanced draws within strata"

    def __init__(
        self, units: tuple[AssignedUnit, ...], plan: AnalysisPlan, pair: tuple[str, str], hosts: list[str]
    ) -> None:
        if plan.balance_rule is None or not units or any(not unit.balance for unit in units):
            raise NotEnoughData(
                "the plan does not say what the draw was balanced on",
                "units",
                "give balance_rule and each unit's balance",
            )
        treatment, own = pair[1], set(pair)
        self._arms = np.array([unit.arm for unit in units], dtype=np.str_)
        self._control = plan.control
        self._others = [arm for arm in plan.arms if arm not in own]
        self._among = np.isin(self._arms, list(own))
        strata = np.array([unit.stratum for unit in units], dtype=np.str_)
        self._free = WithinStrata((self._arms == treatment)[self._among], strata[self._among])
        self._balance = Balance(np.array([unit.balance for unit in units], dtype=np.float64), plan.balance_rule)
        place = {unit.host: number for number, unit in enumerate(units)}
        self._shown = np.array([place[host] for host in hosts], dtype=np.intp)
        if not len(self._accepted((self._arms == treatment)[self._among][np.newaxis])):
            raise NotEnoughData(
                "the assignment is none that the plan's balance rule accepts",
                "units",
                "give the rule that it was drawn by",
            )
        self._kept: _Draws | None = None
        if self._free.possible() <= EXACT_UP_TO:
            self._kept = self._accepted(np.array(list(self._free.every())))

    def possible(self) -> int | None:
        return None if self._kept is None else len(self._kept)

    def every(self) -> Iterator[_Draws]:
        yield from self._kept if self._kept is not None else ()

    def redraw(self, draws: int, draw: np.random.Generator) -> _Draws:
        if self._kept is not None:
            return self._kept[draw.integers(0, len(self._kept), size=draws)]
        found: list[_Draws] = []
        tried = have = 0
        batch = max(1, BATCH_CELLS // max(self._arms.size, 1))
        while have < draws:
            take = min(batch, max(1000, 4 * (draws - have)))
            good = self._accepted(self._free.redraw(take, draw))
            found.append(good)
            have, tried = have + len(good), tried + take
            if tried >= MOST_TRIED and have < draws:
                break
        if have == 0:
            raise NotEnoughData(
                f"none of {tried} draws is balanced",
                "randomisation test",
                "check that the plan's rule is the one drawn by",
            )
        return np.concatenate(found)[:draws]

    def _accepted(self, free: _Draws) -> _Draws:
        """Keep the draws that the rule accepts, as the hosts that report show them."""
        treated = np.zeros((len(free), self._arms.size), dtype=bool)
        treated[:, self._among] = free
        distances = self._balance.distances(treated, self._among)
        for arm in self._others:  # the arms that stay were compared with the control as well
            theirs = self._arms == arm
            moving = self._among[np.newaxis] & ~treated
            distances = np.maximum(distances, self._against(theirs, moving))
        kept: _Draws = treated[self._balance.accepts(distances)][:, self._shown]
        return kept

    def _against(self, theirs: _Draws, control: _Draws) -> _Floats:
        """Distance of one fixed arm from the control of each draw."""
        return np.array(
            [float(self._balance.distances(theirs[np.newaxis], theirs | of_draw)[0]) for of_draw in control]
        )


def redrawn(mechanism: Replay, hosts: int, seed: int) -> tuple[_Draws, bool]:
    """Every assignment where at most 20,000 are possible, else a seeded draw of as many as a fleet of that size allows.

    Returns the draws [draw, host], and whether the real assignment is to be counted in besides.
    """
    possible = mechanism.possible()
    if possible is not None and possible <= EXACT_UP_TO:
        return np.array(list(mechanism.every())), False
    return mechanism.redraw(min(DRAWS, max(FEWEST_DRAWS, CELLS // max(hosts, 1))), np.random.default_rng(seed)), True


def replay_sets(sample: TwoArms, plan: AnalysisPlan, name: str = "within matched pairs") -> WithinPairs | WithinStrata:
    """Replay one coin for each set of hosts that the plan names; draws within strata where a host is in none."""
    pair_of = {unit.host: unit.pair for unit in plan.units}
    pairs = [pair_of.get(str(host), "") for host in sample.hosts]
    if not all(pairs):
        return WithinStrata(sample.treated, sample.strata)
    return WithinPairs(sample.treated, np.array(pairs, dtype=np.str_), name)


def replay_of(sample: TwoArms, plan: AnalysisPlan) -> Replay:
    """Return the mechanism that assigned a sample's hosts."""
    return find_method(plan.method).replay(sample, plan)
