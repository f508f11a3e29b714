"""Rows in memory to all primary estimates, against the floor of one `np.add.reduceat` over the same numbers.

The floor reads columns that lie together, as in a data frame: 1.2 times the time of just reading the bytes. (Along
rows of row-ordered memory `reduceat` itself is 20 times slower; that would be no floor.) Ours is timed on both orders.

2,000 hosts x 1,000 samples x 40 metrics (640 MB). Beside it, on the same rows: pandas groupby + SciPy here, and
tea-tasting and spotify-confidence by the interpreter named in FLEETEXP_PEERS_PYTHON (spotify-confidence asks for an
older pandas than ours, so that they have an environment of their own). Peers get the host means that pandas groupby
makes: the unit is the host for all of them. Interleaved rounds, ratios within a round, their median.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis.plan import MetricPlan, Role
from analysis.rows import compare_rows

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(900)]
HOSTS, SAMPLES, METRICS, ROUNDS = 2_000, 1_000, 40, 5
PEERS = Path(__file__).with_name("analysis_peers.py")
Floats = NDArray[np.float64]


@pytest.fixture(scope="module")
def rows() -> tuple[NDArray[np.int64], Floats]:
    draw = np.random.default_rng(0)
    samples = draw.standard_normal((HOSTS * SAMPLES, METRICS))
    samples += 10
    return np.repeat(np.arange(HOSTS), SAMPLES), np.asfortranarray(samples)


def ours(hosts: NDArray[np.int64], samples: Floats) -> int:
    metrics = [MetricPlan(name=f"m{place}", unit="", role=Role.SECONDARY) for place in range(METRICS)]
    arms = {host: "treatment" if host % 2 else "control" for host in range(HOSTS)}
    return len(compare_rows(hosts, samples, metrics, arms, control="control", treatment="treatment"))


def by_pandas(hosts: NDArray[np.int64], samples: Floats) -> int:
    means = pd.DataFrame(samples, copy=False).groupby(hosts, sort=False).mean().to_numpy()
    return len(stats.ttest_ind(means[1::2], means[::2], equal_var=False).pvalue)


def seconds(work: object, *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - started


def floor_of(samples: Floats) -> float:
    return min(seconds(lambda: np.add.reduceat(samples, np.arange(0, len(samples), SAMPLES), axis=0)) for _ in range(2))


def test_rows_to_estimates_within_two_floors(rows: tuple[NDArray[np.int64], Floats]) -> None:
    hosts, columns = rows
    by_row = np.ascontiguousarray(columns)
    found: dict[str, list[float]] = {"by column": [], "by row": [], "pandas groupby + SciPy": []}
    floors = []
    for _ in range(ROUNDS):
        floor = floor_of(columns)
        floors.append(floor)
        found["by column"].append(seconds(ours, hosts, columns) / floor)
        found["by row"].append(seconds(ours, hosts, by_row) / floor)
        found["pandas groupby + SciPy"].append(seconds(by_pandas, hosts, columns) / floor)
    print(f"\nfloor {statistics.median(floors) * 1e3:.0f} ms; reading {seconds(columns.sum) * 1e3:.0f} ms")
    for name, ratios in found.items():
        print(f"{name}: {statistics.median(ratios):.2f}x")
    assert statistics.median(found["by column"]) <= 2.0
    assert statistics.median(found["by row"]) <= 2.0


def test_extra_memory_is_below_a_tenth_of_the_input(rows: tuple[NDArray[np.int64], Floats]) -> None:
    hosts, samples = rows
    tracemalloc.start()
    ours(hosts, samples)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(f"\nextra peak memory {peak / samples.nbytes:.2%} of {samples.nbytes / 1e6:.0f} MB")
    assert peak < 0.10 * samples.nbytes


def test_peers_on_the_same_rows(rows: tuple[NDArray[np.int64], Floats], tmp_path: Path) -> None:
    python = os.environ.get("FLEETEXP_PEERS_PYTHON")
    if not python:
        pytest.skip("FLEETEXP_PEERS_PYTHON names no interpreter with tea-tasting and spotify-confidence")
    hosts, samples = rows
    np.save(tmp_path / "samples.npy", samples)
    done = subprocess.run(
        [python, str(PEERS), str(tmp_path / "samples.npy"), str(SAMPLES), str(ROUNDS)],
        capture_output=True, text=True, check=True, timeout=800,
    )  # fmt: skip
    ratios: dict[str, float] = json.loads(done.stdout)
    own = statistics.median(seconds(ours, hosts, samples) / floor_of(samples) for _ in range(ROUNDS))
    print(f"\nfleetexp {own:.2f}x; " + "; ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items()))
    assert own < min(ratios.values())
