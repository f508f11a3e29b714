"""Worlds whose truth was planted: hosts or blocks, one true effect, and one trouble that could hide or feign it.

The effect is multiplicative: the true lift of every estimand is the planted one. What is seen is drawn by a seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis import plan as planned
from analysis.plan import AnalysisPlan, AssignedUnit, Direction, GuardrailPlan, MetricPlan, Role
from tests.analysis.simulation import host_levels

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
CONTROL, TREATMENT = "control", "treatment"
PRIMARY, DENOMINATOR, GUARDED, BESIDE = "requests", "cpu_seconds", "memory", "cpu"
MARGIN = 0.10
HARMED = "pool-0"
HARM, BENEFIT = -0.15, 0.10  # in the harmed stratum, and in the others
KILLED = 3  # times, before one attempt survives
AT_RANDOM, ON_THE_WORST, OF_CONTROL = 0.15, 0.20, 0.30  # shares that go missing
PERIOD_CV = 0.05
DRIFT = 0.003  # a step of the random walk from period to period
UNLIKE = 0.02  # SD of the gains of a switchback's hosts, where these are the units
HOSTS_AS_UNITS = 6  # of a switchback
LOOKS = (0.2, 0.4, 0.6, 0.8, 1.0)


class Design(StrEnum):
    PARALLEL = "parallel"
    SWITCHBACK = "switchback"


class Estimand(StrEnum):
    MEAN = "mean over hosts"
    HOST_RATIO = "ratio of host means"
    FLEET_RATIO = "fleet ratio"


class Trouble(StrEnum):
    """What goes wrong; each speaks for the treatment where it can."""

    NONE = "none"
    AT_RANDOM = "missing at random"
    ON_THE_WORST = "missing on the worst"  # of the treated, the metric alone
    OF_AN_ARM = "arm-dependent loss"  # the control's best hosts, or the worst treated periods, whole
    DYING = "dying periods"  # treated periods are killed until one does well
    HARMED_STRATUM = "harm in one stratum"
    LAG = "lag"  # half of the effect is still there in the next period
    DELAYED_HARM = "delayed harm"  # no effect at once, the harm comes in the next period


class Look(StrEnum):
    FIXED = "fixed"
    THIRD = "third of five"
    UNPLANNED = "unplanned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What is seen of a world, and the truth: the primary's `lift`, the strata where there is a benefit."""

    observations: pd.DataFrame
    plan: AnalysisPlan
    periods: pd.DataFrame | None
    lift: float
    benefit: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One world. `hosts` are (control, treatment), of a switchback (all, blocks); `guarded` is memory's true lift."""

    design: Design = Design.PARALLEL
    estimand: Estimand = Estimand.MEAN
    hosts: tuple[int, int] = (20, 20)
    strata: int = 1
    skewed: bool = False
    narrow: float = 0.2  # host-to-host CV where not skewed
    noise: float = PERIOD_CV  # of a switchback's periods where not skewed
    before: bool = False  # a baseline, correlated .9; a switchback's blocks are in ABBA order
    trouble: Trouble = Trouble.NONE
    look: Look = Look.FIXED
    effect: float = 0.0
    guarded: float | None = None

    def draw(self, seed: int) -> Planted:
        """See it once."""
        random = np.random.default_rng(seed)
        return _parallel(self, random) if self.design is Design.PARALLEL else _switchback(self, random)

    @property
    def cv(self) -> float:
        """Spread between hosts."""
        return 1.0 if self.skewed else self.narrow

    @property
    def metric(self) -> MetricPlan:
        """The primary."""
        return MetricPlan(
            name=PRIMARY,
            unit="requests per second",
            role=Role.PRIMARY,
            better=Direction.INCREASE,
            denominator=None if self.estimand is Estimand.MEAN else DENOMINATOR,
            estimand=planned.Estimand.FLEET_RATIO
            if self.estimand is Estimand.FLEET_RATIO
            else planned.Estimand.MEAN_OVER_HOSTS,
        )

    def plan(self, units: tuple[AssignedUnit, ...], seed: int = 0) -> AnalysisPlan:
        """Plan its analysis."""
        rails = () if self.guarded is None else (_rail(),)
        return AnalysisPlan(
            design=self.design.value,
            control=CONTROL,
            arms=(CONTROL, TREATMENT),
            metrics=(self.metric,),
            guardrails=rails,
            units=units,
            seed=seed,
            ratio=tuple(map(float, self.hosts)) if self.design is Design.PARALLEL else (),
            order="abba" if self.design is Design.SWITCHBACK and self.before else "pairs",
            information_fractions=LOOKS if self.look is Look.THIRD else (1.0,),
            look=2 if self.look is Look.THIRD else 0,
            unplanned_look=self.look is Look.UNPLANNED,
        )

    def effects(self, pools: NDArray[np.int64]) -> Floats:
        """True lift by unit."""
        if self.trouble is Trouble.HARMED_STRATUM:
            return np.where(pools == 0, HARM, BENEFIT)
        return np.full(pools.size, self.effect)

    @property
    def benefit(self) -> frozenset[str]:
        own = self.effects(np.arange(self.strata))
        return frozenset(f"pool-{place}" for place in np.flatnonzero(own > 0).tolist())


def _rail() -> GuardrailPlan:
    return GuardrailPlan(metric=GUARDED, worse=Direction.INCREASE, margin=MARGIN)


def _parallel(world: World, random: np.random.Generator) -> Planted:
    n, m = world.hosts
    size = n + m
    treated = np.arange(size) >= n
    pools = np.concatenate((np.arange(n) % world.strata, random.permutation(world.strata)[np.arange(m) % world.strata]))
    factor = np.linspace(0.8, 1.2, world.strata) if world.strata > 1 else np.ones(1)
    own = world.effects(pools)
    by_size = world.estimand is Estimand.FLEET_RATIO  # there, the denominator has the spread
    cv, skewed = (0.2, False) if by_size else (world.cv, world.skewed)
    lasting = 100 * factor[pools] * host_levels(random, size, cv, skewed=skewed)
    wobble = host_levels(random, size, cv / 3, skewed=skewed)
    killed = np.zeros(size, dtype=bool)
    if world.trouble is Trouble.DYING:
        killed = treated & (wobble < 1)
        wobble = np.where(treated, np.maximum(wobble, 1 / wobble), wobble)
    rate = lasting * wobble * (1 + own * treated)
    under = np.ones(size)
    if world.estimand is not Estimand.MEAN:
        under = 10 * host_levels(random, size, world.cv, skewed=world.skewed)
    values = {PRIMARY: rate * under, BESIDE: host_levels(random, size, 0.2, skewed=False)}
    if world.estimand is not Estimand.MEAN:
        values[DENOMINATOR] = under
    if world.guarded is not None:
        values[GUARDED] = 50 * host_levels(random, size, world.cv, skewed=world.skewed) * (1 + world.guarded * treated)
    hit, good = (PRIMARY, rate) if world.guarded is None else (GUARDED, -values[GUARDED])
    keep = {name: np.ones(size, dtype=bool) for name in values}
    if world.trouble is Trouble.AT_RANDOM:
        keep[hit] = random.random(size) >= AT_RANDOM
    elif world.trouble is Trouble.ON_THE_WORST:
        keep[hit] = ~_worst(good, treated, ON_THE_WORST)
    elif world.trouble is Trouble.OF_AN_ARM:
        lost = _worst(-good, ~treated, OF_CONTROL)
        keep = dict.fromkeys(values, ~lost)
    names = np.array([f"h{place:04d}" for place in range(size)], dtype=object)
    strata = np.array([f"pool-{place}" for place in range(world.strata)], dtype=object)[pools]
    arms = np.where(treated, TREATMENT, CONTROL).astype(object)
    columns: dict[str, object] = {
        "period_id": np.arange(size) + 100_000, "host": names, "stratum": strata, "arm": arms, "kind": "measure",
        "stage": 0, "block": 0, "attempt": np.where(killed, KILLED, 0), "position": 2 + np.where(killed, KILLED, 0),
        "seconds": 600.0,
    }  # fmt: skip
    frames = [_rows(columns, values, keep)]
    if world.before:
        earlier = {PRIMARY: lasting * host_levels(random, size, cv / 3, skewed=skewed) * under}
        if world.estimand is not Estimand.MEAN:
            earlier[DENOMINATOR] = under
        start: dict[str, object] = columns | {
            "period_id": np.arange(size), "arm": CONTROL, "kind": "baseline", "block": -1, "attempt": 0, "position": 0,
        }  # fmt: skip
        frames.append(_rows(start, earlier, {name: np.ones(size, dtype=bool) for name in earlier}))
    units = tuple(
        AssignedUnit(host=host, stratum=stratum, arm=arm)
        for host, stratum, arm in zip(names.tolist(), strata.tolist(), arms.tolist(), strict=True)
    )
    return Planted(
        observations=pd.concat(frames, ignore_index=True),
        plan=world.plan(units, seed=int(random.integers(2**31))),
        periods=_with_killed(columns, killed) if world.trouble is Trouble.DYING else None,
        lift=float((factor[pools] * (1 + own)).sum() / factor[pools].sum() - 1),
        benefit=world.benefit,
    )


def _worst(good: Floats, among: Mask, share: float) -> Mask:
    """Choose the worst `share` of some units, at least one."""
    count = max(1, round(share * int(among.sum())))
    order = np.where(among, good, np.inf).argsort()
    out = np.zeros(good.size, dtype=bool)
    out[order[:count]] = True
    return out


def _rows(columns: Mapping[str, object], values: Mapping[str, Floats], keep: Mapping[str, Mask]) -> pd.DataFrame:
    """One row per period and metric that was measured."""
    places = np.concatenate([np.flatnonzero(keep[name]) for name in values])
    frame = {key: own[places] if isinstance(own, np.ndarray) else own for key, own in columns.items()}
    frame["metric"] = np.repeat(np.array(list(values), dtype=object), [int(keep[name].sum()) for name in values])
    mean = np.concatenate([own[keep[name]] for name, own in values.items()])
    frame |= {"n": 60, "mean": mean, "variance": 1.0, "minimum": mean - 1, "maximum": mean + 1, "p99": mean + 0.9}
    return pd.DataFrame(frame)


def _with_killed(columns: Mapping[str, object], killed: Mask) -> pd.DataFrame:
    """Every attempt: the complete ones, and those before them in which the host died."""
    whole = pd.DataFrame(columns).assign(state="complete", reason="", broken_by="")
    failed = whole[killed].loc[np.repeat(np.flatnonzero(killed), KILLED)]
    number = np.tile(np.arange(KILLED), int(killed.sum()))
    failed = failed.assign(
        attempt=number,
        position=failed["position"] - KILLED + number,
        period_id=500_000 + np.arange(len(failed)),
        state="invalid",
        reason="out of memory",
        broken_by="host",
    )
    return pd.concat((whole, failed), ignore_index=True)


def _switchback(world: World, random: np.random.Generator) -> Planted:
    hosts, blocks = world.hosts
    shape = (hosts, blocks, 2)
    first = random.random((hosts, blocks)) < 0.5
    if world.before:  # ABBA: a block's mirror follows it
        first[:, 1::2] = ~first[:, : 2 * (blocks // 2) : 2]
    treated = np.stack((first, ~first), axis=2)
    pools = np.arange(hosts) % world.strata
    spread = random.normal(0, UNLIKE, hosts) if hosts >= HOSTS_AS_UNITS else np.zeros(hosts)
    own = world.effects(pools)
    drift = np.cumsum(random.normal(0, DRIFT, (hosts, 2 * blocks)), axis=1).reshape(shape)
    noise = host_levels(random, hosts * blocks * 2, 0.5 if world.skewed else world.noise, skewed=world.skewed)
    noise = noise.reshape(shape)
    killed = np.zeros((hosts, blocks), dtype=bool)
    if world.trouble is Trouble.DYING:
        killed = np.where(treated, noise, 1.0).min(axis=2) < 1
        noise = np.where(treated, np.maximum(noise, 1 / noise), noise)
    after = np.zeros((hosts, 2 * blocks))
    after[:, 1:] = treated.reshape(hosts, -1)[:, :-1]
    left = {Trouble.LAG: world.effect / 2, Trouble.DELAYED_HARM: -abs(world.effect) / 2}.get(world.trouble, 0.0)
    gained = spread + (0.0 if world.trouble is Trouble.DELAYED_HARM else own)
    level = 100 * host_levels(random, hosts, world.cv, skewed=world.skewed)
    rate = level[:, None, None] * (1 + drift) * noise * (1 + gained[:, None, None] * treated)
    rate = (rate * (1 + left * after.reshape(shape))).ravel()
    size = rate.size
    of = treated.ravel()
    failures = np.where(killed, KILLED, 0)
    start = 2 * (np.cumsum(failures + 1, axis=1) - 1)  # where the last attempt of each block begins
    names = np.array([f"h{place:04d}" for place in range(hosts)], dtype=object)
    strata = np.array([f"pool-{place}" for place in range(world.strata)], dtype=object)[pools]
    columns: dict[str, object] = {
        "period_id": np.arange(size),
        "host": np.repeat(names, 2 * blocks),
        "stratum": np.repeat(strata, 2 * blocks),
        "arm": np.where(of, TREATMENT, CONTROL).astype(object),
        "kind": "measure",
        "stage": 0,
        "block": np.tile(np.repeat(np.arange(blocks), 2), hosts),
        "attempt": np.repeat(failures.ravel(), 2),
        "position": (start[:, :, None] + np.arange(2)).ravel(),
        "seconds": 60.0,
    }
    under = np.ones(size)
    if world.estimand is not Estimand.MEAN:
        under = 10 * host_levels(random, size, world.cv, skewed=world.skewed)
    values = {PRIMARY: rate * under, BESIDE: host_levels(random, size, 0.2, skewed=False)}
    if world.estimand is not Estimand.MEAN:
        values[DENOMINATOR] = under
    if world.guarded is not None:
        values[GUARDED] = 50 * host_levels(random, size, PERIOD_CV, skewed=False) * (1 + world.guarded * of)
    hit, good = (PRIMARY, rate) if world.guarded is None else (GUARDED, -values[GUARDED])
    keep = {name: np.ones(size, dtype=bool) for name in values}
    broken = np.zeros(size, dtype=bool)
    if world.trouble is Trouble.AT_RANDOM:
        keep[hit] = random.random(size) >= AT_RANDOM
    elif world.trouble is Trouble.ON_THE_WORST:
        keep[hit] = ~_worst(good, of, ON_THE_WORST)
    elif world.trouble is Trouble.OF_AN_ARM:
        broken = _worst(good, of, ON_THE_WORST)
        keep = dict.fromkeys(values, ~broken)
    frames = [_rows(columns, values, keep)]
    periods = pd.DataFrame(columns).assign(
        state=np.where(broken, "invalid", "complete"),
        reason=np.where(broken, "out of memory", ""),
        broken_by=np.where(broken, "host", ""),
    )
    if killed.any():
        failed, beside = _killed_blocks(columns, killed, treated)
        periods = pd.concat((periods, failed, beside.assign(state="complete", reason="")), ignore_index=True)
        seen = level[beside["host"].str[1:].astype(int)] * host_levels(random, len(beside), PERIOD_CV, skewed=False)
        extra = {key: beside[key].to_numpy() for key in columns}
        frames.append(_rows(extra, {PRIMARY: seen * 1.0}, {PRIMARY: np.ones(len(beside), dtype=bool)}))
    units = tuple(
        AssignedUnit(host=host, stratum=stratum, arm=None)
        for host, stratum in zip(names.tolist(), strata.tolist(), strict=True)
    )
    # Few hosts stand for themselves, with their own gains and levels; many for all hosts like them.
    total = (gained if hosts < HOSTS_AS_UNITS else gained - spread) + (
        left if world.trouble is Trouble.DELAYED_HARM else 0.0
    )
    return Planted(
        observations=pd.concat(frames, ignore_index=True),
        plan=world.plan(units, seed=int(random.integers(2**31))),
        periods=periods,
        lift=float(np.average(total, weights=level if hosts < HOSTS_AS_UNITS else None)),
        benefit=frozenset() if world.trouble is Trouble.DELAYED_HARM else world.benefit,
    )


def _killed_blocks(columns: Mapping[str, object], killed: Mask, treated: Mask) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The attempts of each killed block before its last: treated periods that died, control periods beside them."""
    whole = pd.DataFrame(columns)
    again = whole[np.repeat(killed.ravel(), 2)]
    earlier = []
    for attempt in range(KILLED):
        back = 2 * (KILLED - attempt)
        earlier.append(again.assign(attempt=attempt, position=again["position"] - back))
    every = pd.concat(earlier, ignore_index=True)
    every["period_id"] = 500_000 + np.arange(len(every))
    died = every["arm"] == TREATMENT
    failed = every[died].assign(state="invalid", reason="out of memory", broken_by="host")
    return failed, every[~died].assign(broken_by="")
