"""Power of the whole decision: the chance that the rule itself, not a t-test, calls a true effect what it is.

Two kinds of shape say what a run is made of. For a shape without a formula runs are simulated, always the same ones:
each has a smallest effect from which on every part of the rule agrees (the headline's t-test at the level of the last
look, the randomisation test, no stratum with harm as large as the gain). The share of runs with a threshold below an
effect is that effect's power, so that power never falls as the effect grows, and one simulation answers for all
effects. Guardrails are not part of the promise; a further part of the rule is one more threshold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from analysis.assignment_redraws import Replay, WithinPairs, WithinStrata
from analysis.errors import BadPlan
from analysis.headline import LEAST_DF
from analysis.inference import FEW_UNITS, MIN_HOSTS, SKEWED
from analysis.sequential import level_at
from analysis.switchback import MIN_BLOCKS
from analysis.switchback import MIN_HOSTS as HOSTS_AS_UNITS
from analysis.welch import satterthwaite

_Floats = NDArray[np.float64]
RUNS = 2_000
FEWEST_VALUES = 20  # of hosts or blocks that were measured: fewer do not show how they are spread
MOST_HOSTS = 10_000_000
_EXACT_UP_TO = 2_000  # assignments, or sign patterns
_MOST_UNITS = 2_000  # of a switchback: beyond, values are taken for normal ones
_MOST_COINS = 60  # of a switchback: more make the sign-flip test no finer
_CHUNK = 200  # runs at a time: what they need stays in the cache
_MOST_SIMULATED = 200  # hosts of the larger arm, or 5 times the smaller one
_MOST_SKEWED = 60  # hosts of the smaller arm: beyond, several are simulated as one, of their mean
_MEANS = 50_000
_HEAVY = 0.5  # excess kurtosis over the hosts of the smaller arm: beyond, the t-test's own power is another
_STEPS = 5  # of the bisection in a run: the threshold is known to a hundredth of a standard error


class Obstacle(StrEnum):
    """Why a shape can't be decided, whatever the effect."""

    FEW_HOSTS = "few_hosts"
    FEW_UNITS = "few_units"  # blocks, or hosts, of a switchback
    ONE_BLOCK = "one_block"  # on each of several hosts: no spread
    OPEN_STRATUM = "open_stratum"  # too few hosts in it to rule out harm there
    COARSE_TEST = "coarse_test"  # the randomisation test has too few outcomes for the level


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelShape:
    """A parallel design: hosts (control, treatment) in each stratum; one entry is a design without strata.

    `correlation` is that of a host with its pre-period, None where nothing is adjusted for it. `comparisons` counts
    the treatments, each of which is compared with the control; `treatment` is the smallest. The last of `fractions`,
    the planned looks, is the one that decides.
    """

    strata: tuple[tuple[int, int], ...]
    correlation: float | None = None
    comparisons: int = 1
    fractions: tuple[float, ...] = (1.0,)
    alpha: float = 0.05
    matched_pairs: bool = False

    @property
    def control(self) -> int:
        return sum(control for control, _ in self.strata)

    @property
    def treatment(self) -> int:
        return sum(treatment for _, treatment in self.strata)

    @property
    def smallest(self) -> int:
        return min(self.control, self.treatment)

    @property
    def outcomes(self) -> int:
        """How many assignments the draw could have given."""
        if self.matched_pairs:
            return int(2**self.smallest)
        return math.prod(math.comb(control + treatment, treatment) for control, treatment in self.strata)

    def resized(self, control: int, treatment: int) -> ParallelShape:
        """The same design with so many hosts, spread evenly over as many strata."""
        count = len(self.strata)
        return replace(
            self, strata=tuple(zip(_evenly(control, count), reversed(_evenly(treatment, count)), strict=True))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchbackShape:
    """A switchback: on each host so many blocks, two in ABBA order counted as one.

    The spread is that of one block's contrast, from 6 hosts on that of a host's mean contrast.
    """

    hosts: int = 1
    blocks: int
    comparisons: int = 1
    fractions: tuple[float, ...] = (1.0,)
    alpha: float = 0.05

    @property
    def by_host(self) -> bool:
        return self.hosts >= HOSTS_AS_UNITS

    @property
    def units(self) -> int:
        return self.hosts if self.by_host else self.hosts * self.blocks

    @property
    def outcomes(self) -> int:
        return int(2 ** (self.hosts * self.blocks))


Shape: TypeAlias = ParallelShape | SwitchbackShape


def rule_level(shape: Shape) -> float:
    """The p-value below which the rule's tests must come at the last look."""
    if not 0 < shape.alpha < 1 or shape.comparisons < 1:
        raise BadPlan(
            f"no rule at alpha {shape.alpha:g}, {shape.comparisons} treatments", "power", "such as 0.05 and 1"
        )
    return level_at(shape.fractions, len(shape.fractions) - 1, shape.alpha) / shape.comparisons


def lowest_p(shape: Shape) -> float:
    """The smallest p-value that the randomisation test of such a run can have; 0 where none is made."""
    return 2 / shape.outcomes if _few(shape) else 0.0


def obstacle(shape: Shape) -> Obstacle | None:
    """Say why no effect at all could be decided on; None where one could."""
    if isinstance(shape, ParallelShape):
        if shape.smallest < MIN_HOSTS:
            return Obstacle.FEW_HOSTS
        if any(min(group) < 2 for group in _tested_sizes(shape)):
            return Obstacle.OPEN_STRATUM
    elif shape.units < MIN_BLOCKS:
        return Obstacle.FEW_UNITS
    elif 1 < shape.hosts < HOSTS_AS_UNITS and shape.blocks < 2:
        return Obstacle.ONE_BLOCK
    return Obstacle.COARSE_TEST if lowest_p(shape) >= rule_level(shape) else None


def obstacle_words(shape: Shape) -> str:
    """Say why nothing can be decided, '' where something could."""
    match obstacle(shape):
        case Obstacle.FEW_HOSTS:
            return f"{units_words(shape)} of at least {MIN_HOSTS} + {MIN_HOSTS}"
        case Obstacle.FEW_UNITS:
            return f"{units_words(shape)} of at least {MIN_BLOCKS}"
        case Obstacle.ONE_BLOCK:
            return f"{units_words(shape)}, and at least two on each are needed"
        case Obstacle.OPEN_STRATUM:
            return "strata with fewer than 2 + 2 hosts, even together: harm in them cannot be ruled out"
        case Obstacle.COARSE_TEST:
            said = f"the randomisation test of {units_words(shape)} gets no lower than p = {lowest_p(shape):.2g}"
            return f"{said}, and less than {rule_level(shape):.2g} is needed"
        case None:
            return ""


def units_words(shape: Shape) -> str:
    """Count what is compared: '8 + 8 hosts', '12 blocks', '12 blocks on 3 hosts'."""
    if isinstance(shape, ParallelShape):
        return f"{shape.control} + {shape.treatment} hosts"
    if shape.by_host:
        return f"{shape.hosts} hosts with {shape.blocks} block{'s' if shape.blocks != 1 else ''} each"
    on = f" on {shape.hosts} hosts" if shape.hosts > 1 else ""
    return f"{shape.units} block{'s' if shape.units != 1 else ''}{on}"


def shape_words(shape: Shape) -> str:
    """Say all of a shape that its power depends on: units, strata, treatments, looks."""
    said = units_words(shape)
    if isinstance(shape, ParallelShape) and len(shape.strata) > 1:
        said += f" in {len(shape.strata)} strata"
    if shape.comparisons > 1:
        said += f", for each of {shape.comparisons} treatments"
    if len(shape.fractions) > 1:
        said += f", at the last of {len(shape.fractions)} looks"
    return said


def rule_power(effect: float, sd: float, shape: Shape, values: Sequence[float] = (), seed: int = 0) -> float:
    """Chance that the rule, at the last look, calls a true difference `effect` a change in its direction.

    `sd` is that of hosts before any adjustment, or of a switchback's contrasts. `values` are those of real hosts (or
    contrasts), which simulated runs then draw from instead of from the normal law: their shape counts, not their
    mean or spread. From 20 hosts an arm on, without strata and skewness, or 20 blocks, it is the formula of the
    noncentral t (Cohen 1988, Statistical Power Analysis, chapter 2); else it is simulated.
    """
    _check_sd(sd)
    if not math.isfinite(effect):
        raise BadPlan(f"no power for an effect of {effect:g}", "power", "give finite numbers")
    if obstacle(shape) is not None:
        return 0.0
    size = abs(effect) / sd
    if _by_formula(shape, values):
        return _power_of_t(size, shape)
    return float(np.mean(_thresholds(shape, _towards(effect, values), seed) <= size))


def rule_detectable(
    sd: float, shape: Shape, wanted: float = 0.8, values: Sequence[float] = (), seed: int = 0, *, falls: bool = False
) -> float | None:
    """Minimum detectable effect (MDE) of the whole rule, in the metric's unit; None where nothing can be decided.

    `falls`: the treatment makes less of the metric, which matters for skewed values.
    """
    _check_sd(sd)
    _check_wanted(wanted, shape.alpha)
    if obstacle(shape) is not None:
        return None
    if _by_formula(shape, values):
        unit = _unit(shape)
        return sd * unit * float(optimize.brentq(lambda z: _power_of_t(z * unit, shape) - wanted, 0, 1e4, xtol=1e-9))
    size = float(np.quantile(_thresholds(shape, _towards(-1 if falls else 1, values), seed), wanted, method="higher"))
    return sd * size if math.isfinite(size) else None


def rule_hosts_needed(  # noqa: PLR0917 - an effect, its spread, the design, how surely
    effect: float,
    sd: float,
    shape: ParallelShape,
    treated_per_control: float = 1.0,
    wanted: float = 0.8,
    values: Sequence[float] = (),
) -> tuple[int, int]:
    """Fewest hosts (control, treatment) with which the rule sees a difference `effect` with probability `wanted`.

    `shape` gives everything but the numbers of hosts.
    """
    if not 0 < treated_per_control < math.inf:
        raise BadPlan(f"no treatment has {treated_per_control:g} of the control's hosts", "power", "such as 1")

    def sizes(control: int) -> tuple[int, int]:
        return control, max(1, math.ceil(control * treated_per_control - 1e-9))

    def enough(control: int) -> bool:
        return rule_power(effect, sd, shape.resized(*sizes(control)), values) >= wanted

    _check_needed(effect, sd, wanted, shape.alpha)
    small = math.ceil(FEW_UNITS / min(1.0, treated_per_control))
    return sizes(_fewest(enough, effect, small))


def rule_blocks_needed(
    effect: float, sd: float, shape: SwitchbackShape, wanted: float = 0.8, values: Sequence[float] = ()
) -> int:
    """Fewest blocks on each host with which the rule sees a difference `effect` with probability `wanted`."""
    _check_needed(effect, sd, wanted, shape.alpha)
    if shape.by_host:
        raise BadPlan(f"with {shape.hosts} hosts more blocks are no more units", "power", "ask for hosts")
    return _fewest(
        lambda blocks: rule_power(effect, sd, replace(shape, blocks=blocks), values) >= wanted, effect, FEW_UNITS
    )


# ------------------------------------------------------------------ where the formula is the rule
def _few(shape: Shape) -> bool:
    """Whether the randomisation test must agree."""
    smallest: int = shape.smallest if isinstance(shape, ParallelShape) else shape.units
    return smallest < FEW_UNITS


def _by_formula(shape: Shape, values: Sequence[float]) -> bool:
    if _few(shape):
        return False
    if isinstance(shape, ParallelShape):
        return len(_tested_strata(shape)) == 1 and not _is_unlike_normal(shape, tuple(values))
    return (shape.hosts == 1 or shape.by_host) and not _is_unlike_normal(shape, tuple(values))


def _is_unlike_normal(shape: Shape, values: tuple[float, ...]) -> bool:
    """Whether such hosts are too skewed, or have tails too heavy, for the formula to be the rule."""
    if not values:
        return False
    if isinstance(shape, SwitchbackShape):
        smallest, skewness = shape.units, float(stats.skew(values)) / math.sqrt(shape.units)
        if shape.units > _MOST_UNITS:
            return False
    else:
        smallest, n, m = shape.smallest, shape.control, shape.treatment
        skewness = float(stats.skew(values)) * (1 / m**2 - 1 / n**2) / (1 / n + 1 / m) ** 1.5
    return abs(skewness) > SKEWED or float(stats.kurtosis(values)) > _HEAVY * smallest


def _towards(effect: float, values: Sequence[float]) -> tuple[float, ...]:
    """Values as seen along the effect: simulated effects are positive."""
    return tuple(-value for value in values) if effect < 0 else tuple(values)


def _unit(shape: Shape) -> float:
    """Standard error of the estimate where hosts (or contrasts) have an SD of 1."""
    if isinstance(shape, SwitchbackShape):
        return 1 / math.sqrt(shape.units)
    return math.sqrt(_left(shape) * (1 / shape.control + 1 / shape.treatment))


def _left(shape: ParallelShape) -> float:
    """Share of the variance that the pre-period leaves, with the price of a slope that is itself estimated."""
    if shape.correlation is None:
        return 1.0
    return (1 - shape.correlation**2) * (1 + 1 / max(1, shape.control + shape.treatment - 4))


def _power_of_t(size: float, shape: Shape) -> float:
    if isinstance(shape, SwitchbackShape):
        df = shape.units - 1.0
    else:
        lost = 1 if shape.correlation is None else 2
        sizes = [shape.control, shape.treatment]
        df = satterthwaite([1 / n for n in sizes], [n - lost for n in sizes])
    shift = size / _unit(shape)
    critical = float(stats.t.isf(rule_level(shape) / 2, df))
    chance = float(stats.nct.sf(critical, df, shift))
    return min(1.0, chance if math.isfinite(chance) else float(stats.norm.sf(critical - shift)))  # far out


# ------------------------------------------------------------------ where it is simulated
@lru_cache(maxsize=512)
def _thresholds(shape: Shape, values: tuple[float, ...], seed: int) -> _Floats:
    """The effect, in SDs, from which on the rule decides rightly in each of the simulated runs."""
    draw = np.random.default_rng(seed)
    if isinstance(shape, SwitchbackShape):
        return _switchback_thresholds(shape, values, draw)
    if not _few(shape) and not _is_unlike_normal(shape, values):
        return _thresholds_of_strata(shape, draw)
    together = math.ceil(shape.smallest / _MOST_SKEWED)
    simulated = _capped(shape, together)
    scale = _unit(shape) / _unit(simulated)
    return scale * _thresholds_of_hosts(simulated, _of_means(values, together, draw), draw)


def _switchback_thresholds(shape: SwitchbackShape, values: tuple[float, ...], draw: np.random.Generator) -> _Floats:
    # The coin of each block is drawn again, also where hosts are the units: then blocks spread as their mean does.
    blocks = min(shape.blocks, math.ceil(_MOST_COINS / shape.hosts)) if shape.by_host else shape.blocks
    coins = shape.hosts * blocks
    contrasts = _drawn(coins, values, np.ones(coins), draw) * (math.sqrt(blocks) if shape.by_host else 1.0)
    means = contrasts.reshape(RUNS, shape.hosts, blocks)
    means = means.mean(axis=2)[:, np.newaxis] if shape.by_host else means
    hosts, each = means.shape[1:]
    variances = means.var(axis=2, ddof=1) / each
    # Hosts are taken as they are: each has its own spread, combined by Satterthwaite's df.
    df = variances.sum(axis=1) ** 2 / (variances**2 / (each - 1)).sum(axis=1)
    error = np.sqrt(variances.sum(axis=1)) / hosts
    found = _from_t(contrasts.mean(axis=1), error, df, rule_level(shape) / 2)
    if not _few(shape):
        return found
    return np.maximum(found, _from_sign_flips(contrasts, rule_level(shape), draw))


def _from_sign_flips(contrasts: _Floats, level: float, draw: np.random.Generator) -> _Floats:
    """Threshold of the sign-flip test in each run.

    A pattern of signs is as far from 0 as the real one up to some effect, which is where two straight lines cross.
    """
    units = contrasts.shape[1]
    exact = 2 ** (units - 1) <= _EXACT_UP_TO
    if exact:
        patterns = (np.arange(2 ** (units - 1))[:, np.newaxis] >> np.arange(units)) & 1
        most = math.ceil(level * len(patterns) - 1e-9) - 1
    else:
        patterns = draw.integers(0, 2, size=(_draws(level, 50), units))
        most = math.ceil(level * (len(patterns) + 1) - 1e-9) - 2  # the real pattern counts too
    signs = 1.0 - 2.0 * patterns
    out = np.empty(len(contrasts))
    for first in range(0, len(contrasts), _CHUNK):
        rows = slice(first, first + _CHUNK)
        sums, real = contrasts[rows] @ signs.T, contrasts[rows].sum(axis=1, keepdims=True)
        slopes = signs.sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            above = np.where(slopes < units, (sums - real) / (units - slopes), np.inf)
            below = np.where(slopes > -units, -(sums + real) / (units + slopes), np.inf)
        crossed = np.maximum(above, below)
        out[rows] = np.partition(crossed, -1 - most, axis=1)[:, -1 - most]
    return out


def _thresholds_of_hosts(shape: ParallelShape, values: tuple[float, ...], draw: np.random.Generator) -> _Floats:
    """Simulate hosts, estimate as the headline does, draw the assignment again."""
    strata = np.repeat(np.arange(len(shape.strata)), [sum(cell) for cell in shape.strata])
    treated = np.concatenate([np.repeat([False, True], cell) for cell in shape.strata])
    along = treated - treated.mean()
    y = noise = _drawn(treated.size, values, along, draw)
    dummies = np.eye(len(shape.strata))[strata][:, 1:] if _adjusts_strata(shape) else np.empty((treated.size, 0))
    covariates, before = dummies[np.newaxis], None
    if shape.correlation is not None:
        before = _drawn(treated.size, values, along, draw)
        y = shape.correlation * before + math.sqrt(1 - shape.correlation**2) * noise
        every = np.broadcast_to(dummies, (RUNS, *dummies.shape))
        covariates = np.concatenate((before[:, :, np.newaxis], every), axis=2)
    level = rule_level(shape)
    if covariates.shape[2]:
        difference, error, df = _ancova(y, treated, covariates)
    else:
        difference, error, df = _welch(y[:, ~treated], y[:, treated])
    found = _from_t(difference, error, df, level / 2)
    tested = [np.isin(strata, group) for group in _tested_strata(shape)]
    if len(tested) > 1:
        told = (
            y
            if before is None
            else _told_apart(y, before, [here & arm for here in tested for arm in (treated, ~treated)])
        )
        for here in tested:
            gap, error, df = _welch(told[:, here & ~treated], told[:, here & treated])
            found = np.maximum(found, _from_harm(gap, error, df, difference, shape.alpha))
    moved = np.broadcast_to(treated.astype(np.float64), y.shape)
    rest, moved = _unexplained(y, covariates), _unexplained(moved, covariates)
    runs = np.arange(RUNS) if _few(shape) else np.flatnonzero(_skewness(rest, treated) > SKEWED)
    assignments = _assignments(shape, treated, strata, draw)
    step = _unit(shape) / 4
    for first in range(0, runs.size, _CHUNK):
        some = runs[first : first + _CHUNK]
        found[some] = _from_assignments(
            rest[some], moved[some], treated, assignments, np.maximum(found[some], 0.0), level, step
        )
    return found


def _assignments(
    shape: ParallelShape, treated: NDArray[np.bool_], strata: NDArray[np.intp], draw: np.random.Generator
) -> _Floats:
    """What the draw could have given [assignment, host], the real one among them."""
    replay: Replay = WithinStrata(treated, strata.astype(np.str_))
    if shape.matched_pairs:
        pairs = np.empty(treated.size, dtype=np.intp)
        for arm in (treated, ~treated):
            pairs[arm] = np.arange(arm.sum())
        replay = WithinPairs(treated, pairs.astype(np.str_))
    if shape.outcomes <= _EXACT_UP_TO:
        return np.array(list(replay.every()), dtype=np.float64)
    as_far = 50 if shape.control == shape.treatment else 12  # with arms of one size they cost little
    return np.vstack((replay.redraw(_draws(rule_level(shape), as_far), draw), treated)).astype(np.float64)


def _from_assignments(  # noqa: PLR0917 - runs, the draw, where to begin
    rest: _Floats,
    moved: _Floats,
    treated: NDArray[np.bool_],
    assignments: _Floats,
    start: _Floats,
    level: float,
    step: float,
) -> _Floats:
    """Threshold of the randomisation test in each run, sought from `start` on; inf where no effect is enough.

    Values are centred, so that Welch's t of an assignment is a function of the sums and the sums of squares over its
    treated hosts: polynomials of the effect, computed once. With arms of one size the sums alone order it, and where
    two straight lines cross is known; else the threshold is bisected.
    """
    sums, slopes = rest @ assignments.T, moved @ assignments.T
    own = int(np.flatnonzero((assignments == treated).all(axis=1))[0])
    n = float(treated.sum())
    m = treated.size - n
    most = math.ceil(level / 2 * len(assignments) - 1e-9) - 1  # assignments that may be as far, the real one too
    if n == m:
        ahead = slopes[:, own : own + 1] - slopes
        with np.errstate(divide="ignore", invalid="ignore"):
            crossed = np.where(ahead > 1e-9, (sums - sums[:, own : own + 1]) / ahead, np.inf)
        thresholds: _Floats = np.maximum(start, np.partition(crossed, -1 - most, axis=1)[:, -1 - most])
        return thresholds
    squares = (rest**2 @ assignments.T, 2 * (rest * moved) @ assignments.T, moved**2 @ assignments.T)
    totals = tuple(part.sum(axis=1, keepdims=True) for part in (rest**2, 2 * rest * moved, moved**2))
    one, other = 1 / (n * (n - 1)), 1 / (m * (m - 1))

    def agrees(runs: NDArray[np.intp], effect: _Floats) -> NDArray[np.bool_]:
        by = effect[:, np.newaxis]
        of = slopes[runs] * by + sums[runs]
        of2 = (squares[2][runs] * by + squares[1][runs]) * by + squares[0][runs]
        every2 = (totals[2][runs] * by + totals[1][runs]) * by + totals[0][runs]
        mine, mine2 = of[:, own : own + 1], of2[:, own : own + 1]
        spread = (one - other) * mine2 - (one / n + other / m) * mine**2 + other * every2
        r2 = mine**2 / spread  # the observed t, squared, but for a factor: t >= observed without roots or divisions
        far = of * of * (1 + r2 * (one / n + other / m)) - of2 * (r2 * (one - other))
        return np.asarray(((far >= r2 * other * every2 * (1 - 1e-9)) & (of > 0)).sum(axis=1) <= most)

    low, high = start.copy(), start.copy()
    left = np.arange(len(rest))
    for _ in range(12):  # up to 1,000 standard errors
        left = left[~agrees(left, high[left])]
        if not left.size:
            break
        low[left] = high[left]
        high[left] += step
        step *= 2
    high[left] = np.inf
    open_ = np.flatnonzero((high > low) & np.isfinite(high))
    for _ in range(_STEPS if open_.size else 0):
        middle = (low[open_] + high[open_]) / 2
        yes = agrees(open_, middle)
        high[open_[yes]], low[open_[~yes]] = middle[yes], middle[~yes]
    return high


def _thresholds_of_strata(shape: ParallelShape, draw: np.random.Generator) -> _Floats:
    """Strata with 20 hosts in each arm, or more: means and variances are drawn, by their own laws, not hosts."""
    sizes = np.array(_tested_sizes(shape), dtype=np.float64)  # [stratum, arm]
    inverse = _left(shape) / sizes
    gaps = draw.standard_normal((RUNS, len(sizes))) * np.sqrt(inverse.sum(axis=1))
    weights = 1 / inverse.sum(axis=1)
    weights /= weights.sum()
    lost = len(shape.strata) + (shape.correlation is not None)
    of_arms = weights[:, np.newaxis] ** 2 * inverse
    error, df = _error(of_arms.sum(axis=0), np.array([shape.control - lost, shape.treatment - lost]), draw)
    found = _from_t(gaps @ weights, error, df, rule_level(shape) / 2)
    for place, cell in enumerate(sizes):
        error, df = _error(inverse[place], cell - 1, draw)
        found = np.maximum(found, _from_harm(gaps[:, place], error, df, gaps @ weights, shape.alpha))
    return found


def _error(variances: _Floats, dfs: _Floats, draw: np.random.Generator) -> tuple[_Floats, _Floats]:
    """Standard error and Welch's df in each run, as estimated from two arms with these variances of their means."""
    drawn = variances * draw.chisquare(dfs, (RUNS, 2)) / dfs
    return np.sqrt(drawn.sum(axis=1)), drawn.sum(axis=1) ** 2 / (drawn**2 / dfs).sum(axis=1)


# ------------------------------------------------------------------ parts of a simulated run
def _drawn(hosts: int, values: tuple[float, ...], along: _Floats, draw: np.random.Generator) -> _Floats:
    """Values [run, host] with mean 0 and SD 1: from the normal law, or from those given.

    Of normal values the component `along` the contrast is independent of the rest: it is drawn evenly over its law,
    so that 2,000 runs say as much as several times as many.
    """
    if not values:
        noise = draw.standard_normal((RUNS, hosts))
        direction = along / np.linalg.norm(along)
        evenly = draw.permutation(special.ndtri((np.arange(RUNS) + 0.5) / RUNS))
        return np.asarray(noise + (evenly - noise @ direction)[:, np.newaxis] * direction)
    known = np.array(values)
    if not (np.isfinite(known).all() and known.std() > 0):
        raise BadPlan("values to draw from must be finite and differ", "power", "leave them out")
    return draw.choice((known - known.mean()) / known.std(), (RUNS, hosts))


def _from_t(difference: _Floats, error: _Floats, df: _Floats, tail: float) -> _Floats:
    return np.asarray(stats.t.isf(tail, df) * error - difference)


def largest_sd(units: int, sure: float = 0.8) -> float:
    """Return how many times the SD that so many hosts (or blocks) showed the true one may be, with this probability.

    The one-sided limit by the chi-square distribution of normal values, which Browne (1995, On the Use of a Pilot
    Sample for Sample Size Determination, Statistics in Medicine 14:1933-1940) plans with. BadPlan below 2.
    """
    if units < 2:
        raise BadPlan(f"{units} shows no spread", "power", "measure 2 hosts or more first")
    return math.sqrt((units - 1) / float(stats.chi2.ppf(1 - sure, units - 1)))


def _from_harm(gap: _Floats, error: _Floats, df: _Floats, gain: _Floats, alpha: float) -> _Floats:
    """From which effect on harm as large as the gain is ruled out in a stratum: both grow with the effect."""
    return _from_t(gap + gain, error, df, alpha) / 2


def _welch(control: _Floats, treatment: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Difference, standard error and df in each run [run, host]."""
    parts = [arm.var(axis=1, ddof=1) / arm.shape[1] for arm in (control, treatment)]
    total = parts[0] + parts[1]
    df = total**2 / sum(part**2 / (arm.shape[1] - 1) for part, arm in zip(parts, (control, treatment), strict=True))
    return treatment.mean(axis=1) - control.mean(axis=1), np.sqrt(total), df


def _ancova(y: _Floats, treated: NDArray[np.bool_], covariates: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """`analysis.adjustment.ancova` for many runs at once, covariates [run, host, column]: HC2, Bell-McCaffrey df."""
    arms = np.broadcast_to(np.stack((~treated, treated), axis=1).astype(np.float64), (len(covariates), y.shape[1], 2))
    centred = covariates - covariates.mean(axis=1, keepdims=True)
    design = np.concatenate((arms, centred), axis=2)
    inverse = np.linalg.inv(design.transpose(0, 2, 1) @ design)
    back = design @ inverse
    weights = back[:, :, 1] - back[:, :, 0]
    leverage = np.minimum((back * design).sum(axis=2), 1 - 1e-12)
    fitted = (y[:, np.newaxis] @ back) @ design.transpose(0, 2, 1)
    squares = (y - fitted[:, 0]) ** 2 / (1 - leverage)
    scaled = weights**2 / (1 - leverage)
    # tr(G^2) by products of k columns only. Imbens and Kolesar (2016), Rev. Econ. Stat. 98:701-712.
    inner = inverse @ ((design * scaled[:, :, np.newaxis]).transpose(0, 2, 1) @ design)
    traces = (scaled**2 * (1 - 2 * leverage)).sum(axis=1) + (inner * inner.transpose(0, 2, 1)).sum(axis=(1, 2))
    df = (weights**2).sum(axis=1) ** 2 / traces
    runs = len(y)
    return (
        np.broadcast_to((weights * y).sum(axis=1), runs),
        np.sqrt((weights**2 * squares).sum(axis=1)),
        np.broadcast_to(df, runs),
    )


def _told_apart(y: _Floats, before: _Floats, cells: Sequence[NDArray[np.bool_]]) -> _Floats:
    """Values less what the pre-period foretells of them, by the common slope within the cells."""
    x, own = before.copy(), y.copy()
    for cell in cells:
        x[:, cell] -= x[:, cell].mean(axis=1, keepdims=True)
        own[:, cell] -= own[:, cell].mean(axis=1, keepdims=True)
    slope = (x * own).sum(axis=1) / (x**2).sum(axis=1)
    return np.asarray(y - slope[:, np.newaxis] * before)


def _unexplained(y: _Floats, covariates: _Floats) -> _Floats:
    """What covariates [run, host, column] leave of values [run, host], centred."""
    y = y - y.mean(axis=1, keepdims=True)
    if not covariates.shape[2]:
        return y
    centred = covariates - covariates.mean(axis=1, keepdims=True)
    turned = centred.transpose(0, 2, 1)
    slopes = np.linalg.solve(turned @ centred, turned @ y[:, :, np.newaxis])
    return np.asarray(y - (centred @ slopes)[:, :, 0])


def _skewness(y: _Floats, treated: NDArray[np.bool_]) -> _Floats:
    """How skewed the difference of means is in each run, without its sign; `analysis.inference.skewness`."""
    rest = [arm - arm.mean(axis=1, keepdims=True) for arm in (y[:, ~treated], y[:, treated])]
    variance = sum((arm**2).sum(axis=1) / (arm.shape[1] - 1) / arm.shape[1] for arm in rest)
    thirds = [(arm**3).mean(axis=1) / arm.shape[1] ** 2 for arm in rest]
    return np.asarray(np.abs(thirds[1] - thirds[0]) / variance**1.5)


def _adjusts_strata(shape: ParallelShape) -> bool:
    """Whether the headline has strata in its model."""
    columns = len(shape.strata) - 1 + (shape.correlation is not None)
    left_over = shape.control + shape.treatment - columns - 2
    return len(shape.strata) > 1 and left_over >= LEAST_DF and min(min(cell) for cell in shape.strata) >= 1


def _tested_strata(shape: ParallelShape) -> list[list[int]]:
    """Strata, by number, in which harm is looked for: those with fewer than 2 + 2 hosts count as one."""
    small = [place for place, cell in enumerate(shape.strata) if min(cell) < 2]
    groups = [[place] for place in range(len(shape.strata)) if place not in small]
    return [*groups, small] if small else groups


def _tested_sizes(shape: ParallelShape) -> list[tuple[int, int]]:
    """Hosts (control, treatment) of each of them."""
    groups = _tested_strata(shape)
    return [(sum(shape.strata[n][0] for n in group), sum(shape.strata[n][1] for n in group)) for group in groups]


def _capped(shape: ParallelShape, together: int) -> ParallelShape:
    """The same design with so many hosts as one, and no more in its larger arm than make a difference.

    Thresholds are scaled for the smaller numbers.
    """
    arms = (shape.control, shape.treatment)
    most = max(_MOST_SIMULATED, 5 * shape.smallest / together)
    shares = [min(1 / together, most / arm) for arm in arms]
    cells = [
        tuple(min(size, max(2, round(size * share))) for size, share in zip(cell, shares, strict=True))
        for cell in shape.strata
    ]
    return replace(shape, strata=tuple((control, treatment) for control, treatment in cells))


def _of_means(values: tuple[float, ...], together: int, draw: np.random.Generator) -> tuple[float, ...]:
    """Means of so many values each: as skewed as the mean of as many hosts is."""
    if together == 1 or not values:
        return values
    return tuple(draw.choice(values, (_MEANS, together)).mean(axis=1).tolist())


def _draws(level: float, as_far: int) -> int:
    """How many to draw, the real one left out, so that the test rejects where at most `as_far` of a side are as far."""
    return max(499, round((as_far + 0.5) * 2 / level) - 1)


def _evenly(total: int, parts: int) -> list[int]:
    return [total // parts + (place < total % parts) for place in range(parts)]


def _fewest(enough: Callable[[int], bool], effect: float, small: int) -> int:
    """Smallest number that is enough: first whether a small one is, because those above have a formula."""
    low, high = 2, small
    while not enough(high):
        low, high = high + 1, high * 2
        if high > MOST_HOSTS:
            raise BadPlan(f"an effect of {effect:g} needs more than {MOST_HOSTS} units", "power", "adjust more")
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def _check_sd(sd: float) -> None:
    if not 0 < sd < math.inf:
        raise BadPlan("power needs a positive SD", "power", "measure the spread first")


def _check_wanted(wanted: float, alpha: float) -> None:
    if not 0 < alpha < wanted < 1:
        raise BadPlan(f"power {wanted:g} is not between alpha and 1", "power", "such as 0.8")


def _check_needed(effect: float, sd: float, wanted: float, alpha: float) -> None:
    _check_wanted(wanted, alpha)
    _check_sd(sd)
    if effect == 0:
        raise BadPlan("no number of hosts or blocks shows an effect of 0", "power", "say which effect would matter")
