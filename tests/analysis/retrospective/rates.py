"""How often the estimates of a rollout already made are right, counted over made-up rollouts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from analysis.results import Interval
from analysis.retrospective.event_study import EventStudy, event_study
from analysis.retrospective.group_time import Controls, host_contrasts
from analysis.retrospective.panel import Panel
from analysis.retrospective.pre_trend import placebo_dates, pre_trend
from analysis.retrospective.relative_magnitudes import steps_before
from tests.analysis.retrospective.panels import true_effect, world

ALPHA = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollouts:
    """A kind of rollout: AR(1) errors of this correlation; `drift` is planted to be caught.

    The changed hosts' errors are `noise` times as large as the others'.
    """

    changed: int
    others: int
    periods: int
    starts: tuple[int, ...]
    correlation: float
    drift: float = 0.0
    noise: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """Shares of rollouts without a drift in which a check fails at `ALPHA` (`dates` at half of it, as verdicts ask).

    `contradicted` is the share with either, `covered` that of intervals that hold the effect; `drift_caught` with one.
    """

    covered: float
    gap: float
    slope: float
    dates: float
    contradicted: float
    drift_caught: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Shares of rollouts: `covered` and the rest without a drift, `drift_caught` with one."""

    covered: float
    band_held: float
    contradicted: float
    bounds_covered: float
    drift_caught: float


# few hosts were changed; the noise is that of their errors against the others'
FEW = {
    "2 of 20": Rollouts(changed=2, others=18, periods=16, starts=(8,), correlation=0.6),
    "3 of 205, quieter": Rollouts(changed=3, others=202, periods=16, starts=(8,), correlation=0.6, noise=1 / 3),
    "4 of 205, quieter": Rollouts(
        changed=4, others=201, periods=16, starts=(8,), correlation=0.6, noise=1 / 3, drift=0.3
    ),
    "4 of 20": Rollouts(changed=4, others=16, periods=16, starts=(8,), correlation=0.6, drift=0.7),
    "5 of 20, noisier": Rollouts(
        changed=5, others=15, periods=16, starts=(7, 8, 10), correlation=0.6, noise=3.0, drift=1.6
    ),
    "5 of 205, three starts": Rollouts(
        changed=5, others=200, periods=16, starts=(7, 8, 10), correlation=0.6, drift=0.6
    ),
}
SMALL = Rollouts(changed=12, others=10, periods=12, starts=(6, 7, 9), correlation=0.6, drift=0.8)


def holds(interval: Interval | None, truth: float) -> bool:
    if interval is None or interval.low is None or interval.high is None:
        return False
    return interval.low <= truth <= interval.high


def contradicted(panel: Panel) -> bool:
    """Whether the pre-trend or a placebo date speaks against the comparison, as verdicts count it."""
    study = event_study(host_contrasts(panel, Controls.NEVER))
    return alarmed(pre_trend(study).p_value, ALPHA / 2) or alarmed(smallest_of_dates(study), ALPHA / 2)


def smallest_of_dates(study: EventStudy) -> float | None:
    """Return the smallest adjusted p-value of the placebo dates; None where none could be tested."""
    return min((one.p_adjusted for one in placebo_dates(study) if one.p_adjusted is not None), default=None)


def alarmed(p: float | None, alpha: float) -> bool:
    return p is not None and p < alpha


def rates(kind: Rollouts, *, runs: int, seed: int, effect: float = 2.0) -> Rates:
    """Count over so many rollouts without a drift, and a quarter as many with one."""
    draw = np.random.default_rng(seed)
    counts = np.zeros(4)
    plain = replace(kind, drift=0.0)
    for run in range(runs):
        panel = _made(draw, plain, effect)
        contrasts = host_contrasts(panel, Controls.NEVER)
        main = contrasts.aggregate(contrasts.over_groups())
        study = event_study(contrasts)
        bands = study.bands(1 - ALPHA, run)
        truths = [effect * (1 + 0.1 * event) if event >= 0 else 0.0 for event in study.events]
        after = [effect * (1 + 0.1 * event) for event in study.after]
        counts += (
            holds(main.contrast().interval(1 - ALPHA), true_effect(panel, effect)),
            all(holds(band, truth) for band, truth in zip(bands, truths, strict=True)),
            contradicted(panel),
            holds(steps_before(study).interval(1.0, 1 - ALPHA), float(np.mean(after))),
        )
    caught = sum(contradicted(_made(draw, kind, effect)) for _ in range(runs // 4))
    covered, band_held, false, bounds = counts / runs
    return Rates(
        covered=covered,
        band_held=band_held,
        contradicted=false,
        bounds_covered=bounds,
        drift_caught=caught / (runs // 4),
    )


def false_alarms(kind: Rollouts, *, runs: int, seed: int, effect: float = 2.0) -> FalseAlarms:
    """Count each check's alarms over so many rollouts without a drift, and those caught of a third as many with one."""
    draw = np.random.default_rng(seed)
    counts = np.zeros(5)
    plain = replace(kind, drift=0.0)
    for _ in range(runs):
        panel = _made(draw, plain, effect)
        contrasts = host_contrasts(panel, Controls.NEVER)
        main = contrasts.aggregate(contrasts.over_groups())
        study = event_study(contrasts)
        trend = pre_trend(study)
        dates = alarmed(smallest_of_dates(study), ALPHA / 2)
        counts += (
            holds(main.contrast().interval(1 - ALPHA), true_effect(panel, effect)),
            alarmed(trend.any_gap, ALPHA),
            alarmed(trend.drift, ALPHA),
            dates,
            alarmed(trend.p_value, ALPHA / 2) or dates,
        )
    caught = sum(contradicted(_made(draw, kind, effect)) for _ in range(runs // 3)) / (runs // 3)
    covered, gap, slope, dates, either = counts / runs
    return FalseAlarms(covered=covered, gap=gap, slope=slope, dates=dates, contradicted=either, drift_caught=caught)


def _made(draw: np.random.Generator, kind: Rollouts, effect: float) -> Panel:
    return world(
        draw,
        changed=kind.changed,
        others=kind.others,
        periods=kind.periods,
        starts=kind.starts,
        correlation=kind.correlation,
        effect=effect,
        drift=kind.drift,
        noise=kind.noise,
    )
