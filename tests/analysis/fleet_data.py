"""Observations of a fleet for tests: hosts by arm, a baseline before and a measurement after, as the store gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.plan import AnalysisPlan, AssignedUnit, Direction, MetricPlan, Role

Floats = NDArray[np.float64]
PLAN = AnalysisPlan(
    design="parallel",
    control="control",
    arms=("control", "treatment"),
    metrics=(MetricPlan(name="throughput", unit="requests per second", role=Role.PRIMARY, better=Direction.INCREASE),),
    seed=11,
)


def plan(**more: object) -> AnalysisPlan:
    return replace(PLAN, **more)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Fleet:
    """Arms and strata of hosts h000, h001, ...; values are added metric by metric."""

    arms: tuple[str, ...]
    strata: tuple[str, ...]

    @property
    def units(self) -> tuple[AssignedUnit, ...]:
        return tuple(
            AssignedUnit(host=f"h{place:04d}", stratum=stratum, arm=arm)
            for place, (arm, stratum) in enumerate(zip(self.arms, self.strata, strict=True))
        )

    def is_treated(self, arm: str = "treatment") -> NDArray[np.bool_]:
        return np.array([own == arm for own in self.arms])

    def observations(
        self, after: Mapping[str, Floats], before: Mapping[str, Floats] | None = None, control: str = "control"
    ) -> pd.DataFrame:
        frames = []
        for kind, values, offset in (("baseline", before or {}, 0), ("measure", after, 100_000)):
            for name, of in values.items():
                frames.append(
                    pd.DataFrame(
                        {
                            "period_id": np.arange(len(self.arms)) + offset,
                            "host": [unit.host for unit in self.units],
                            "stratum": list(self.strata),
                            "arm": control if kind == "baseline" else list(self.arms),
                            "kind": kind,
                            "stage": 0,
                            "block": -1 if kind == "baseline" else 0,
                            "attempt": 0,
                            "position": 0 if kind == "baseline" else 2,
                            "seconds": 600.0,
                            "metric": name,
                            "n": 60,
                            "mean": of,
                            "variance": 1.0,
                            "minimum": of - 1,
                            "maximum": of + 1,
                            "p50": of,
                            "p99": of + 0.9,
                        }
                    )
                )
        return pd.concat(frames, ignore_index=True)


def fleet(control: int, treatment: int, strata: int = 1) -> Fleet:
    arms = ("control",) * control + ("treatment",) * treatment
    names = tuple(f"pool-{place % strata}" for place in range(control)) + tuple(
        f"pool-{place % strata}" for place in range(treatment)
    )
    return Fleet(arms=arms, strata=names)
