"""Panels for tests: published ones, made anew from their sums, and made-up rollouts whose truth is known."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.retrospective.panel import Panel

PUBLISHED = Path(__file__).parent / "published"
_Floats = NDArray[np.float64]


def with_moments(hosts: int, mean: _Floats, covariance: _Floats) -> _Floats:
    """Hosts whose sample mean and covariance are exactly these."""
    raw = np.random.default_rng(hosts).normal(size=(hosts, mean.size))
    raw -= raw.mean(axis=0)
    whitened = raw @ np.linalg.inv(np.linalg.cholesky(np.cov(raw.T))).T
    return mean + whitened @ np.linalg.cholesky(covariance).T


def teen_employment() -> tuple[Panel, list[int]]:
    """The 500 counties of `mpdta`, and the years."""
    told = json.loads((PUBLISHED / "teen_employment.json").read_text())
    years: list[int] = told["periods"]
    values, starts = [], []
    for group in told["groups"]:
        values.append(with_moments(group["hosts"], np.array(group["mean"]), np.array(group["covariance"])))
        start = years.index(group["changed"]) if group["changed"] else len(years)
        starts += [start] * group["hosts"]
    return Panel(values=np.vstack(values), start=np.array(starts)), years


def medicaid() -> tuple[Panel, list[int]]:
    """The 46 states, and the years."""
    rows = pd.read_csv(PUBLISHED / "medicaid.csv")
    years = [int(name) for name in rows.columns[2:]]
    starts = [years.index(year) if year else len(years) for year in rows["changed"]]
    return Panel(values=rows.iloc[:, 2:].to_numpy(), start=np.array(starts)), years


def world(
    draw: np.random.Generator,
    *,
    changed: int,
    others: int,
    periods: int,
    starts: tuple[int, ...],
    correlation: float,
    effect: float = 0.0,
    drift: float = 0.0,
    noise: float = 1.0,
) -> Panel:
    """Hosts whose errors are AR(1), with levels of their own and shocks in common.

    The effect grows by a tenth each period since the change, so that two-way regressions of staggered starts miss it;
    `drift` is what changed hosts gain on the others every period, before the change too;
    their errors are `noise` times as large as the others'.
    """
    hosts = changed + others
    errors = draw.normal(size=(hosts, periods))
    for period in range(1, periods):
        errors[:, period] *= np.sqrt(1 - correlation**2)
        errors[:, period] += correlation * errors[:, period - 1]
    errors[:changed] *= noise
    start = np.concatenate((draw.choice(starts, changed), np.full(others, periods)))
    since = np.arange(periods) - start[:, np.newaxis]
    values = errors + 3 * draw.normal(size=(hosts, 1)) + draw.normal(size=periods) + 100
    values += np.where(since >= 0, effect * (1 + 0.1 * since), 0.0)
    values += drift * np.arange(periods) * (start < periods)[:, np.newaxis]
    return Panel(values=values, start=start)


def true_effect(panel: Panel, effect: float) -> float:
    """The mean over changed hosts, each over its periods since, of what `world` planted."""
    return float(np.mean([effect * (1 + 0.1 * (panel.periods - 1 - s) / 2) for s in panel.start[panel.changed]]))


def frame_of(panels: dict[str, Panel]) -> pd.DataFrame:
    """One row a host, period and metric, as `fleetexp.analyze` and the store's imports have it."""
    rows = []
    for metric, panel in panels.items():
        host, period = np.indices(panel.values.shape)
        when = np.where(panel.changed, panel.start, np.nan)
        rows.append(
            pd.DataFrame(
                {
                    "host": [f"h{place:03}" for place in host.ravel()],
                    "period": period.ravel(),
                    "metric": metric,
                    "value": panel.values.ravel(),
                    "treated_from": when[host.ravel()],
                }
            )
        )
    return pd.concat(rows, ignore_index=True)
