"""The decision matrix: 280 worlds with planted truths, and how often each one leads the decision astray.

Harm that only comes a period after its arm is beyond the promise (docs/DECISIONS.md): it is printed, and not judged.
Prints every cell and the ten worst of each column. Up to 25 minutes on two cores; FLEETEXP_MATRIX_SHARE=0.2 sees each
cell by a fifth of the seeds, 5 by five times as many.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import combinations
from multiprocessing import get_context

import pytest
from scipy import stats

from tests.analysis.matrix import SURE, Cell, Column, Counted, cells, count, limit
from tests.analysis.worlds import Design, Trouble

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(7200)]
PROCESSES = 2


@pytest.fixture(scope="module")
def counted() -> Iterator[list[Counted]]:
    share = float(os.environ.get("FLEETEXP_MATRIX_SHARE", "1"))
    slowest_first = sorted(cells(), key=lambda cell: -sum(cell.world.hosts))
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENBLAS_NUM_THREADS", "1")  # a process for each core already
        with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
            for one in pool.map(partial(count, share=share), slowest_first):
                print(f"{one.cell}: {_shown(one)}", flush=True)
                found.append(one)
    for column in Column:
        print(f"\nthe ten worst: {column}")
        for one in _worst(found, column)[:10]:
            allowed = "allowed {:.1%} to {:.1%}".format(*one.allowed(column))
            print(f"  {one.rate(column):6.1%} of {one.runs[column]:4d}, {allowed}: {one.cell}")
    yield [one for one in found if one.cell.world.trouble is not Trouble.DELAYED_HARM]


def _shown(one: Counted) -> str:
    said = [f"{column} {one.hits[column]}/{one.runs[column]}" for column in one.runs]
    return ", ".join(said) + ("" if one.promised is None else f" (promised {one.promised:.1%})")


def _worst(found: Iterable[Counted], column: Column) -> list[Counted]:
    own = [one for one in found if column in one.runs]
    return sorted(own, key=lambda one: one.beyond(column), reverse=True)


def test_there_are_at_least_250_cells_and_every_pair_of_levels_that_goes_together_occurs() -> None:
    chosen = cells()
    assert len(set(chosen)) == len(chosen) >= 250
    many = {pair for cell in cells(700) for pair in _pairs(cell)}
    assert many <= {pair for cell in chosen for pair in _pairs(cell)}


def _pairs(cell: Cell) -> Iterator[tuple[object, ...]]:
    own = cell.world
    levels = [
        f"{name} {level}"
        for name, level in (
            ("truth", cell.truth), ("design", own.design), ("hosts", own.hosts), ("strata", own.strata),
            ("estimand", own.estimand), ("skewed", own.skewed), ("trouble", own.trouble), ("look", own.look),
        )
    ]  # fmt: skip
    return combinations(levels, 2)


@pytest.mark.parametrize("column", Column)
def test_no_cell_is_led_astray_more_often_than_chance_explains(counted: list[Counted], column: Column) -> None:
    own = [one for one in counted if column in one.runs]
    assert own
    assert [f"{one.cell}: {_shown(one)}" for one in own if not one.is_right(column)] == []


@pytest.mark.parametrize("column", [column for column in Column if column is not Column.SEEN])
def test_no_level_of_a_factor_is_led_astray_over_all_its_cells(counted: list[Counted], column: Column) -> None:
    """Sharper than a cell: a small excess everywhere adds up."""
    hits: dict[str, int] = defaultdict(int)
    runs: dict[str, int] = defaultdict(int)
    for one in counted:
        own = one.cell.world
        size = own.hosts if own.design is Design.PARALLEL else own.hosts[0]
        for level in (own.design, own.trouble, own.look, own.estimand, f"{own.design} {size}", f"skewed {own.skewed}"):
            hits[level] += one.hits.get(column, 0)
            runs[level] += one.runs.get(column, 0)
    beyond = {
        level: f"{hits[level]}/{runs[level]}"
        for level in runs
        if runs[level] and hits[level] > stats.binom.ppf(SURE, runs[level], limit(column))
    }
    assert beyond == {}
