"""Runs of a known truth, put one by one through the parts of the decision's rule: what a promise is held against."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.adjustment import ancova, independent_columns, stratum_columns
from analysis.assignment_redraws import WithinStrata
from analysis.blocks import PairedBlocks
from analysis.contrast import Contrast
from analysis.rule_power import SKEWED, ParallelShape, Shape, SwitchbackShape, rule_level
from analysis.switchback import block_contrast
from analysis.welch import welch

Floats = NDArray[np.float64]
Draw = np.random.Generator
DRAWS = 1_999


def log_normal(draw: Draw, size: int) -> Floats:
    """Values of a log-normal law with a CV of 1, with mean 0 and SD 1."""
    sigma = math.sqrt(math.log(2))
    return np.exp(draw.normal(-(sigma**2) / 2, sigma, size)) - 1


def seen_rate(shape: Shape, effect: float, *, runs: int, seed: int, skewed: bool = False) -> float:
    """Share of runs in which the rule calls an effect (in SDs) a change in its direction."""
    draw = np.random.default_rng(seed)
    run = _Parallel(shape, draw) if isinstance(shape, ParallelShape) else _Switchback(shape, draw)
    values = log_normal if skewed else Draw.standard_normal
    return float(np.mean([run.sees(effect, values) for _ in range(runs)]))  # type: ignore[operator]


class _Parallel:
    """Headline by Welch or ANCOVA, the arms of hosts drawn again, each stratum looked at for harm."""

    def __init__(self, shape: ParallelShape, draw: Draw) -> None:
        self.shape, self.draw, self.level = shape, draw, rule_level(shape)
        self.treated = np.concatenate([np.repeat([False, True], cell) for cell in shape.strata])
        self.strata = np.repeat([f"pool-{n}" for n in range(len(shape.strata))], [sum(cell) for cell in shape.strata])
        replay = WithinStrata(self.treated, self.strata)
        few = replay.possible() <= 20_000
        drawn = np.array(list(replay.every())) if few else replay.redraw(DRAWS, draw)
        self.assignments = drawn if few else np.vstack((drawn, self.treated))
        small = {name for name in np.unique(self.strata) if min(self._sizes(self.strata == name)) < 2}
        self.groups = np.array(["small" if name in small else name for name in self.strata])

    def _sizes(self, here: NDArray[np.bool_]) -> tuple[int, int]:
        return int((here & ~self.treated).sum()), int((here & self.treated).sum())

    def sees(self, effect: float, values) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
        hosts, rho = self.treated.size, self.shape.correlation
        y = values(self.draw, hosts)
        covariates = stratum_columns(self.strata)
        before = None
        if rho is not None:
            before = values(self.draw, hosts)
            y = rho * before + math.sqrt(1 - rho**2) * y
            covariates = np.column_stack((before, covariates))
        y += effect * self.treated
        headline = ancova(y, self.treated, covariates)
        p = headline.p_value()
        if p is None or p >= self.level or headline.difference * effect <= 0:
            return False
        basis = independent_columns(covariates)
        rest = y - y.mean()
        rest -= basis @ (basis.T @ rest)
        if self._is_delicate(rest) and self._randomisation_p(rest) >= self.level:
            return False
        return self._no_harm(y, before, headline, np.sign(effect))

    def _is_delicate(self, y: Floats) -> bool:
        """Few hosts, or a difference of means that is skewed."""
        arms = [y[~self.treated], y[self.treated]]
        thirds = [stats.moment(arm, 3) / arm.size**2 for arm in arms]
        return min(arm.size for arm in arms) < 20 or abs(thirds[1] - thirds[0]) > SKEWED * welch(*arms).variance ** 1.5

    def _randomisation_p(self, y: Floats) -> float:
        z = self.assignments.astype(float)
        n, m = z.sum(axis=1), (1 - z).sum(axis=1)
        treatment, control = z @ y / n, (1 - z) @ y / m
        spread = (z @ y**2 - n * treatment**2) / (n - 1) / n + ((1 - z) @ y**2 - m * control**2) / (m - 1) / m
        t = (treatment - control) / np.sqrt(spread)
        observed = welch(y[~self.treated], y[self.treated])
        own = observed.difference / observed.standard_error
        return 2 * min(float(np.mean(t >= own - 1e-9)), float(np.mean(t <= own + 1e-9)))

    def _no_harm(self, y: Floats, before: Floats | None, headline: Contrast, sign: float) -> bool:
        names = np.unique(self.groups)
        if len(names) < 2:
            return True
        if before is not None:
            cells = np.array([f"{group} {arm}" for group, arm in zip(self.groups, self.treated, strict=True)])
            dummies = np.column_stack([cells == cell for cell in np.unique(cells)]).astype(float)
            slope = np.linalg.lstsq(np.column_stack((before, dummies)), y, rcond=None)[0][0]
            y = y - slope * before
        for name in names:
            here = self.groups == name
            found = welch(y[here & ~self.treated], y[here & self.treated])
            worst = sign * found.difference - stats.t.isf(self.shape.alpha, found.df) * found.standard_error
            if worst <= -abs(headline.difference):
                return False
        return True


class _Switchback:
    """Paired t on blocks (from 6 hosts on, on hosts), and the coin of each block thrown again."""

    def __init__(self, shape: SwitchbackShape, draw: Draw) -> None:
        self.shape, self.draw, self.level = shape, draw, rule_level(shape)
        coins = shape.hosts * shape.blocks
        exact = coins <= 12
        every = (np.arange(2**coins)[:, np.newaxis] >> np.arange(coins)) & 1 if exact else None
        drawn = draw.integers(0, 2, (4_999, coins)) if every is None else every
        self.signs = np.vstack((np.ones((0 if exact else 1, coins)), 1.0 - 2.0 * drawn))

    def sees(self, effect: float, values) -> bool:  # type: ignore[no-untyped-def]  # noqa: ANN001
        shape = self.shape
        steps = values(self.draw, shape.hosts * shape.blocks)
        if shape.by_host:
            steps = steps * math.sqrt(shape.blocks)
        steps += effect
        places = range(steps.size)
        pairs = PairedBlocks(
            hosts=tuple(f"h{place // shape.blocks}" for place in places),
            blocks=tuple(place % shape.blocks for place in places),
            control=np.zeros(steps.size),
            treatment=steps,
        )
        found, _ = block_contrast(pairs)
        p = None if found is None else found.p_value()
        if p is None or p >= self.level or steps.mean() * effect <= 0:
            return False
        if shape.units >= 20:
            return True
        return float(np.mean(np.abs(self.signs @ steps) >= abs(steps.sum()) - 1e-9)) < self.level
