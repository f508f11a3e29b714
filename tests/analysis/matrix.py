"""The decision matrix: worlds by every factor that may lead a decision astray, what is counted in each, and its limits.

Not the full product: cells are chosen so that every pair of levels that can go together does, then as many triples as
fit. Each cell is seen by `first` seeds, and where that leaves a doubt by `most`: a sound cell fails with the same
small probability as in one go, and most of the time goes to the cells that need it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis import analyze
from analysis.results import Decision, EstimateKind, Findings, Interval, Verdict
from analysis.rule_power import ParallelShape, SwitchbackShape, rule_power
from tests.analysis.worlds import (
    DRIFT,
    GUARDED,
    HOSTS_AS_UNITS,
    MARGIN,
    UNLIKE,
    Design,
    Estimand,
    Look,
    Planted,
    Trouble,
    World,
)

ALPHA, COVERED, SURE = 0.05, 0.94, 0.999
POWER, POWER_SLACK = 0.8, 0.03


class Truth(StrEnum):
    """What is true of the world."""

    NO_EFFECT = "no effect"
    HARM = "harm"
    AT_MARGIN = "at margin"  # the primary gains much, the guardrail loses just its margin
    PLANNED = "planned"  # the effect that the plan promised to see


class Column(StrEnum):
    """What is counted."""

    FALSE_SHIP = "false ship"
    HARM_PASSES = "harm passes"
    UNCOVERED = "uncovered"  # the headline's interval of the lift leaves out the truth
    UNBOUNDED = "out of bounds"  # the worst case of what is missing leaves out the truth
    SEEN = "seen"  # a true effect of planned size is shipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    truth: Truth
    world: World
    first: int = 60
    most: int = 300

    def __str__(self) -> str:
        w = self.world
        size = f"{w.hosts[0]}+{w.hosts[1]}" if w.design is Design.PARALLEL else f"{w.hosts[0]}x{w.hosts[1]}"
        words = [
            self.truth, w.design, size, f"{w.strata} strata", w.estimand, "CV 1" if w.skewed else "normal",
            w.trouble, w.look,
        ]  # fmt: skip
        return ", ".join([*words, *(["before" if w.design is Design.PARALLEL else "abba"] if w.before else [])])


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """How often it happened in how many sights of a cell."""

    cell: Cell
    hits: dict[Column, int]
    runs: dict[Column, int]
    promised: float | None = None

    def rate(self, column: Column) -> float:
        return self.hits[column] / self.runs[column]

    def allowed(self, column: Column) -> tuple[float, float]:
        """Lowest and highest rate that chance explains."""
        runs = self.runs[column]
        least, most = 0.0, limit(column)
        if column is Column.SEEN:
            wanted = self.promised or 0.0
            least, most = max(wanted - POWER_SLACK, 0.0), min(wanted + POWER_SLACK, 1.0)
        return float(stats.binom.ppf(1 - SURE, runs, least)) / runs, float(stats.binom.ppf(SURE, runs, most)) / runs

    def beyond(self, column: Column) -> float:
        """How far the rate is outside what is allowed; negative within."""
        low, high = self.allowed(column)
        rate = self.rate(column)
        return max(low - rate, rate - high) if column is Column.SEEN else rate - high

    def is_right(self, column: Column) -> bool:
        return self.beyond(column) <= 0


def limit(column: Column) -> float:
    """Rate that a column must keep."""
    return 1 - COVERED if column in {Column.UNCOVERED, Column.UNBOUNDED} else ALPHA


def count(cell: Cell, share: float = 1.0) -> Counted:
    """See a cell often enough to judge it."""
    hits: Counter[Column] = Counter()
    runs: Counter[Column] = Counter()
    first, most = max(20, round(cell.first * share)), max(20, round(cell.most * share))
    for seed in range(most):
        if seed == first and cell.truth is not Truth.PLANNED and all(_clear(hits[key], runs[key], key) for key in runs):
            break
        for column, hit in _seen(cell, cell.world.draw(seed)):
            runs[column] += 1
            hits[column] += hit
    return Counted(
        cell=cell,
        hits={key: hits[key] for key in runs},
        runs=dict(runs),
        promised=promised(cell.world) if cell.truth is Truth.PLANNED else None,
    )


def _clear(hits: int, runs: int, column: Column) -> bool:
    """No need to look further: at or below three quarters of what may be expected at the limit."""
    return hits <= 0.75 * limit(column) * runs


def _seen(cell: Cell, planted: Planted) -> Iterator[tuple[Column, bool]]:
    findings = analyze(planted.observations, planted.plan, planted.periods)
    trouble = cell.world.trouble
    ships = passes_as_better(findings, planted.benefit)
    if cell.truth is Truth.AT_MARGIN:
        yield (
            Column.HARM_PASSES,
            any(rail.plan.metric == GUARDED and rail.verdict is Verdict.PASS for rail in findings.guardrails),
        )
    elif cell.truth is Truth.PLANNED:
        yield Column.SEEN, findings.decision in {Decision.SHIP, Decision.BETTER_HERE}
    elif trouble is Trouble.HARMED_STRATUM:
        yield Column.HARM_PASSES, ships
    else:
        yield Column.FALSE_SHIP, ships
    head = next((row for row in findings.estimates if row.headline and row.metric.startswith("requests")), None)
    speaks = trouble in {Trouble.NONE, Trouble.AT_RANDOM, Trouble.HARMED_STRATUM}
    if speaks and head is not None and head.lift_interval is not None:
        yield Column.UNCOVERED, not holds(head.lift_interval, planted.lift)
    if (
        trouble in {Trouble.ON_THE_WORST, Trouble.OF_AN_ARM}
        and cell.truth is Truth.NO_EFFECT
        and cell.world.design is Design.PARALLEL
        and cell.world.look is Look.FIXED
    ):
        bound = next((row for row in findings.estimates if row.kind is EstimateKind.WORST_CASE), None)
        if bound is not None and bound.difference_interval is not None:
            yield Column.UNBOUNDED, not holds(bound.difference_interval, 0.0)
        elif head is not None and head.p is not None:  # a claim without a bound
            yield Column.UNBOUNDED, True


def passes_as_better(findings: Findings, benefit: frozenset[str]) -> bool:
    """Whether something is shipped, or called better, where there is no benefit."""
    for own in findings.arms:
        if own.decision in {Decision.SHIP, Decision.BETTER_HERE}:
            return True
        if own.decision is Decision.SHIP_IN_STRATA and not (own.scope.strata and set(own.scope.strata) <= benefit):
            return True
    return False


def holds(interval: Interval, value: float) -> bool:
    """Whether a confidence set holds a value."""
    low = -math.inf if interval.low is None else interval.low
    high = math.inf if interval.high is None else interval.high
    return (low <= value <= high) != interval.excludes


def planned_size(world: World) -> float:
    """Lift that a plain t-test sees with probability about .8; what the whole rule makes of it is its own."""
    sd, shape = _plan_of(world)
    if isinstance(shape, SwitchbackShape):
        error, df = sd / math.sqrt(shape.units), max(shape.units - 1, 1)
    else:
        left = sd if shape.correlation is None else sd * math.sqrt(1 - shape.correlation**2)
        error, df = left * math.sqrt(1 / shape.control + 1 / shape.treatment), shape.control + shape.treatment - 2
    return error * float(stats.t.isf(ALPHA / 2, df) + stats.t.isf(1 - POWER, df))


def promised(world: World) -> float:
    """Power that the plan promises of the whole rule for `planned_size`."""
    sd, shape = _plan_of(world)
    return rule_power(planned_size(world), sd, shape)


def _plan_of(world: World) -> tuple[float, ParallelShape | SwitchbackShape]:
    """What a planner knows: the relative spread of hosts (of contrasts), and the shape of the design."""
    if world.design is Design.PARALLEL:
        per_stratum = tuple(zip(*(_evenly(size, world.strata) for size in world.hosts), strict=True))
        return math.hypot(world.cv, world.cv / 3), ParallelShape(
            strata=per_stratum, correlation=0.9 if world.before else None
        )
    hosts, blocks = world.hosts
    units = max(blocks // 2, 1) if world.before else blocks
    of_unit = math.hypot(world.noise * math.sqrt(2), DRIFT) / math.sqrt(2 if world.before else 1)
    sd = math.hypot(UNLIKE, of_unit / math.sqrt(units)) if hosts >= HOSTS_AS_UNITS else of_unit
    return sd, SwitchbackShape(hosts=hosts, blocks=units)


def _evenly(size: int, strata: int) -> list[int]:
    return [len(range(place, size, strata)) for place in range(strata)]


# --- which cells
_SIZES = (
    (4, 4), (6, 6), (10, 10), (20, 20), (60, 60), (200, 200), (1000, 1000), (40, 4), (100, 10), (1000, 100), (500, 4),
)  # fmt: skip
_SWITCHBACKS = ((1, 6), (1, 8), (1, 12), (1, 24), (3, 6), (3, 12), (20, 6), (20, 12), (20, 24))
_TRIED = 2000  # candidates a step
_LARGE = 600  # hosts: such fleets cost most and add least, so they are there for the pairs alone
_Levels = tuple[Truth, Design, tuple[int, int], int, Estimand, bool, Trouble, Look, bool]


def cells(wanted: int = 260) -> tuple[Cell, ...]:
    """Choose the cells: all pairs of levels first, then triples; then those that count power."""
    return (*map(_cell, _cover(wanted)), *_power_cells())


def _cover(wanted: int) -> list[_Levels]:
    possible = [levels for levels in _product() if _goes_together(levels)]
    random = np.random.default_rng(9)
    weights = np.array([_weight(levels) for levels in possible])
    chosen: list[int] = []
    for size in (2, 3):
        parts = _parts(possible, size)
        left = np.ones(parts.max() + 1, dtype=bool)
        left[parts[chosen]] = False
        while len(chosen) < wanted and (left[parts].any() if size == 2 else True):
            tried = random.choice(len(possible), _TRIED, replace=False, p=weights / weights.sum())
            gain = left[parts[tried]].sum(axis=1)
            if not gain.any():  # what is left is rare
                tried = np.arange(len(possible))
                gain = left[parts].sum(axis=1)
            chosen.append(int(tried[gain.argmax()]))
            left[parts[chosen[-1]]] = False
        weights = weights * [sum(levels[2]) <= _LARGE for levels in possible]
    return [possible[place] for place in chosen]


def _parts(possible: list[_Levels], size: int) -> NDArray[np.int64]:
    """Number every combination of `size` levels: [cell, combination]."""
    coded = np.stack(
        [np.unique([str(level) for level in column], return_inverse=True)[1] for column in zip(*possible, strict=True)]
    )
    base = int(coded.max()) + 1
    out = []
    for number, places in enumerate(combinations(range(len(coded)), size)):
        code = np.full(len(possible), number)
        for place in places:
            code = code * base + coded[place]
        out.append(code)
    return np.unique(np.stack(out, axis=1), return_inverse=True)[1].reshape(len(possible), -1)


def _weight(levels: _Levels) -> float:
    """How much there is to learn: a look that spends less, or plain harm, hides more than it shows."""
    return (3.0 if levels[7] is Look.FIXED else 1.0) * (
        0.3 if levels[0] is Truth.HARM and levels[6] is Trouble.NONE else 1.0
    )


def _product() -> Iterator[_Levels]:
    for design, sizes in ((Design.PARALLEL, _SIZES), (Design.SWITCHBACK, _SWITCHBACKS)):
        yield from product(
            (Truth.NO_EFFECT, Truth.HARM, Truth.AT_MARGIN), (design,), sizes, (1, 3, 10), Estimand, (False, True),
            Trouble, Look, (False, True),
        )  # fmt: skip


def _goes_together(levels: _Levels) -> bool:
    truth, design, sizes, strata, estimand, _, trouble, _, _ = levels
    parallel = design is Design.PARALLEL
    if trouble is Trouble.HARMED_STRATUM:
        if truth is not Truth.HARM or strata == 1:
            return False
    elif truth is Truth.HARM and trouble not in {Trouble.NONE, Trouble.LAG, Trouble.ON_THE_WORST, Trouble.DYING}:
        return False
    if trouble in {Trouble.LAG, Trouble.DELAYED_HARM} and parallel:
        return False
    if (trouble is Trouble.LAG and truth is not Truth.HARM) or (
        trouble is Trouble.DELAYED_HARM and truth is not Truth.NO_EFFECT
    ):
        return False
    if truth is Truth.AT_MARGIN and trouble is Trouble.DYING:  # the guardrail's own values are not touched by it
        return False
    if not parallel:
        return estimand is not Estimand.FLEET_RATIO and strata <= (sizes[0] if sizes[0] < 20 else 10)
    return strata <= min(sizes) or sizes == (500, 4)


def _cell(levels: _Levels) -> Cell:
    truth, design, sizes, strata, estimand, skewed, trouble, look, before = levels
    world = World(
        design=design, hosts=sizes, strata=strata, estimand=estimand, skewed=skewed, trouble=trouble, look=look,
        before=before,
    )  # fmt: skip
    size = planned_size(world)
    effect = {Truth.NO_EFFECT: 0.0, Truth.HARM: -min(size, 0.5), Truth.AT_MARGIN: min(3 * size, 3.0)}[truth]
    if trouble is Trouble.DELAYED_HARM:
        effect = min(size, 0.5)
    few = sum(sizes) > _LARGE
    return Cell(
        truth=truth,
        world=replace(world, effect=effect, guarded=MARGIN if truth is Truth.AT_MARGIN else None),
        first=40 if few else 60,
        most=120 if few else 300,
    )


def _power_cells() -> Iterator[Cell]:
    for sizes in ((4, 4), (6, 6), (10, 10), (20, 20), (60, 60), (100, 10), (500, 4)):
        for before in (False, True):
            world = World(hosts=sizes, narrow=0.02, before=before)
            yield Cell(truth=Truth.PLANNED, world=replace(world, effect=planned_size(world)), most=400)
    for sizes in ((1, 6), (1, 8), (1, 12), (1, 24), (3, 8), (20, 6)):
        world = World(design=Design.SWITCHBACK, hosts=sizes, noise=0.02)
        yield Cell(truth=Truth.PLANNED, world=replace(world, effect=planned_size(world)), most=400)
