"""Switchback observations for tests: a schedule, values by formula, as the store would hand them over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.plan import AnalysisPlan, Direction, MetricPlan, Role

PLAN = AnalysisPlan(
    design="switchback",
    control="never",
    arms=("never", "always"),
    metrics=(MetricPlan(name="latency", unit="seconds", role=Role.PRIMARY, better=Direction.DECREASE),),
    seed=7,
)

Value = Callable[[str, int, int, np.random.Generator], float]  # arm, block, position -> value


def plan(**more: object) -> AnalysisPlan:
    return replace(PLAN, **more)  # type: ignore[arg-type]


def switchback(
    metrics: dict[str, Value],
    *,
    blocks: int = 8,
    arms: Sequence[str] = ("never", "always"),
    order: str = "pairs",
    hosts: Sequence[str] = ("host-1",),
    seed: int = 1,
) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    rows = []
    period = 0
    for host in hosts:
        position = 0
        sequence: list[str] = []
        for block in range(blocks):
            if order == "abba" and block % 2:
                sequence = sequence[::-1]
            else:
                sequence = [str(arm) for arm in draw.permutation(list(arms))]
            for arm in sequence:
                period += 1
                for name, value in metrics.items():
                    mean = value(arm, block, position, draw)
                    rows.append(
                        {
                            "period_id": period, "host": host, "stratum": "all", "arm": arm, "kind": "measure",
                            "stage": 0, "block": block, "attempt": 0, "position": position, "seconds": 10.0,
                            "metric": name, "n": 20, "mean": mean, "variance": 1.0, "minimum": mean - 1,
                            "maximum": mean + 1, "p50": mean, "p99": mean + 0.9,
                        }
                    )  # fmt: skip
                position += 1
    return pd.DataFrame(rows)


def shifted(effect: float, noise: float = 1.0, base: float = 100.0) -> Value:
    return lambda arm, block, position, draw: base + (effect if arm == "always" else 0.0) + draw.normal(0, noise)


def all_periods(observations: pd.DataFrame) -> pd.DataFrame:
    columns = ["period_id", "host", "arm", "kind", "stage", "block", "attempt", "position"]
    return observations.drop_duplicates("period_id")[columns].assign(state="complete", reason="")
