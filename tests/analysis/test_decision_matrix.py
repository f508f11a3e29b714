"""A dozen cells of the decision matrix, enough to see a gross error; all are in tests/benchmarks."""

from __future__ import annotations

import pytest

from tests.analysis.matrix import Cell, Truth, count
from tests.analysis.worlds import MARGIN, Design, Estimand, Look, Trouble, World

pytestmark = pytest.mark.slow
SWITCHBACK = Design.SWITCHBACK

CELLS = (
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(4, 4), skewed=True, estimand=Estimand.FLEET_RATIO)),
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(100, 4), before=True)),
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(40, 40), trouble=Trouble.ON_THE_WORST)),
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(12, 12), trouble=Trouble.OF_AN_ARM, skewed=True)),
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(20, 20), trouble=Trouble.DYING, before=True)),
    Cell(truth=Truth.NO_EFFECT, world=World(hosts=(25, 25), look=Look.UNPLANNED, estimand=Estimand.HOST_RATIO)),
    Cell(truth=Truth.HARM, world=World(hosts=(30, 30), strata=3, trouble=Trouble.HARMED_STRATUM, before=True)),
    Cell(truth=Truth.AT_MARGIN, world=World(hosts=(20, 20), effect=0.6, guarded=MARGIN)),
    Cell(
        truth=Truth.AT_MARGIN,
        world=World(hosts=(20, 20), effect=0.6, guarded=MARGIN, trouble=Trouble.ON_THE_WORST),
    ),
    Cell(truth=Truth.NO_EFFECT, world=World(design=SWITCHBACK, hosts=(1, 12), skewed=True)),
    Cell(truth=Truth.NO_EFFECT, world=World(design=SWITCHBACK, hosts=(1, 24), trouble=Trouble.DYING)),
    Cell(truth=Truth.AT_MARGIN, world=World(design=SWITCHBACK, hosts=(3, 8), effect=0.3, guarded=MARGIN)),
)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_a_cell_is_led_astray_no_more_often_than_chance_explains(cell: Cell) -> None:
    found = count(cell, share=0.1)
    wrong = {column: (found.hits[column], found.runs[column]) for column in found.runs if not found.is_right(column)}
    assert wrong == {}
