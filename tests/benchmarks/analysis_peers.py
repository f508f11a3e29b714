"""Time other experiment libraries on saved rows; run by an interpreter that has them. Prints ratios to the floor."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import spotify_confidence
import tea_tasting


def host_means(samples: np.ndarray, hosts: np.ndarray) -> pd.DataFrame:
    frame = pd.DataFrame(samples, copy=False)
    frame.columns = [f"m{place}" for place in range(samples.shape[1])]
    means = frame.groupby(hosts, sort=False).mean()
    return means.assign(arm=np.where(means.index % 2, "treatment", "control"))


def by_tea_tasting(samples: np.ndarray, hosts: np.ndarray) -> None:
    means = host_means(samples, hosts)
    metrics = {name: tea_tasting.Mean(name) for name in means.columns if name != "arm"}
    tea_tasting.Experiment(metrics, "arm").analyze(means, control="control")


def by_spotify_confidence(samples: np.ndarray, hosts: np.ndarray) -> None:
    means = host_means(samples, hosts)
    long = means.melt(id_vars="arm", var_name="metric", value_name="value")
    long["square"] = long["value"] ** 2
    sums = long.groupby(["arm", "metric"], as_index=False).agg(
        total=("value", "sum"), squares=("square", "sum"), count=("value", "size")
    )
    spotify_confidence.StudentsTTest(
        sums,
        numerator_column="total",
        numerator_sum_squares_column="squares",
        denominator_column="count",
        categorical_group_columns=["arm", "metric"],
    ).difference(level_1="control", level_2="treatment", groupby="metric")


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main(path: str, each: int, rounds: int) -> None:
    samples = np.load(path)
    hosts = np.repeat(np.arange(len(samples) // each), each)
    starts = np.arange(0, len(samples), each)
    peers: dict[str, Callable[[np.ndarray, np.ndarray], None]] = {
        "tea-tasting": by_tea_tasting,
        "spotify-confidence": by_spotify_confidence,
    }
    ratios: dict[str, list[float]] = {name: [] for name in peers}
    for _ in range(rounds):
        floor = min(timed(lambda: np.add.reduceat(samples, starts, axis=0)) for _ in range(2))
        for name, work in peers.items():
            ratios[name].append(timed(lambda work=work: work(samples, hosts)) / floor)
    print(json.dumps({name: statistics.median(values) for name, values in ratios.items()}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
