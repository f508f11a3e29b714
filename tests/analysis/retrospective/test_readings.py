"""Claims that rest on one reading of the data are not made: worlds without such an effect, and worlds with one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import fleetexp
from analysis.retrospective.panel import Panel
from analysis.retrospective.verdicts import Ground, RetrospectiveFindings, RetrospectiveVerdict
from tests.analysis.retrospective.panels import frame_of

DAYS, CHANGED_ON, HOSTS = 28, 14, 40
ON = (np.arange(DAYS) >= CHANGED_ON) & (np.arange(HOSTS) < HOSTS // 2)[:, np.newaxis]
_Floats = NDArray[np.float64]


def noise(draw: np.random.Generator, hosts: int, correlation: float) -> _Floats:
    out = draw.normal(size=(hosts, DAYS))
    for day in range(1, DAYS):
        out[:, day] = correlation * out[:, day - 1] + np.sqrt(1 - correlation**2) * out[:, day]
    return out


def fleet(draw: np.random.Generator) -> _Floats:
    """Forty hosts of a level of their own, days that resemble the one before, shocks in common; no effect."""
    return 100 + 15 * draw.normal(size=(HOSTS, 1)) + 4 * noise(draw, HOSTS, 0.6) + 2 * draw.normal(size=DAYS)


def half(values: _Floats) -> Panel:
    return Panel(values=values, start=np.where(np.arange(len(values)) < HOSTS // 2, CHANGED_ON, DAYS))


def grown(draw: np.random.Generator) -> Panel:
    """Hosts of nearly twice the level are changed; then the load of every host grows by 30 %."""
    values = fleet(draw) + 80 * (np.arange(HOSTS) < HOSTS // 2)[:, np.newaxis]
    values[:, CHANGED_ON + 2 :] *= 1.3
    return half(values)


def chosen(draw: np.random.Generator) -> Panel:
    """The twenty of a hundred hosts that did worst over all the time before are changed."""
    values = 100 + 2 * draw.normal(size=(100, 1)) + 12 * noise(draw, 100, 0.3)
    return half(values[np.argsort(-values[:, :CHANGED_ON].mean(axis=1))])


def faded(draw: np.random.Generator) -> Panel:
    return half(fleet(draw) - np.where(ON, 25 * np.exp(-(np.arange(DAYS) - CHANGED_ON) / 2.0), 0))


def replaced(draw: np.random.Generator) -> Panel:
    """Four of the changed hosts are other machines under the old names."""
    return half(fleet(draw) - np.where(ON & (np.arange(HOSTS) < 4)[:, np.newaxis], 55, 0))


def faster(draw: np.random.Generator) -> Panel:
    return half(fleet(draw) - np.where(ON, 7, 0))


def faster_by_a_share(draw: np.random.Generator) -> Panel:
    """Hosts of another level are changed, and gain 7 %."""
    values = fleet(draw) + 40 * (np.arange(HOSTS) < HOSTS // 2)[:, np.newaxis]
    return half(np.where(ON, 0.93 * values, values))


def found_in(panel: Panel, better: str = "decrease") -> RetrospectiveFindings:
    return fleetexp.analyze(frame_of({"p99": panel}), assigned="not at random", better=better)


@pytest.mark.parametrize(
    ("world", "ground"),
    [
        (grown, Ground.RATIOS),
        (chosen, Ground.UNLIKE_HOSTS),
        (faded, Ground.FADED),
        (replaced, Ground.FEW_MOVED),
    ],
)
def test_what_another_reading_does_not_show_is_not_claimed(
    world: Callable[[np.random.Generator], Panel], ground: Ground
) -> None:
    found = [found_in(world(np.random.default_rng(seed))) for seed in range(16)]
    claimed = [one for one in found if one.ground is Ground.EFFECT]
    assert len(claimed) <= 1
    told = next(one for one in found if one.ground is ground)
    assert told.verdict is RetrospectiveVerdict.NOT_DISTINGUISHABLE
    assert ", but " in told.reason


@pytest.mark.parametrize("world", [faster, faster_by_a_share])
def test_what_every_reading_shows_is_claimed(world: Callable[[np.random.Generator], Panel]) -> None:
    found = Counter(found_in(world(np.random.default_rng(seed))).ground for seed in range(16))
    assert found[Ground.EFFECT] >= 14


def test_harm_to_few_hosts_is_harm() -> None:
    found = found_in(replaced(np.random.default_rng(0)), better="increase")
    assert (found.verdict, found.ground) == (RetrospectiveVerdict.CONSISTENT_WITH_HARM, Ground.EFFECT)


def test_a_shift_of_the_unit_or_of_gaps_that_settle_leaves_the_readings_as_they_are() -> None:
    panel = faster(np.random.default_rng(2))
    rows = found_in(panel).metric("p99").beside
    scaled = found_in(Panel(values=1e-3 * panel.values, start=panel.start)).metric("p99").beside
    assert len(rows) == len(scaled)
    for one, other in zip(rows, scaled, strict=True):
        if one.estimate is not None and one.estimate.difference is not None and other.estimate is not None:
            assert other.estimate.difference == pytest.approx(1e-3 * one.estimate.difference, rel=1e-6)
