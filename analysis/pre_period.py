"""What stored observations say of a metric before a new experiment: how hosts, or blocks of one host, spread."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.blocks import arm_values, measured, paired
from analysis.errors import NotEnoughData
from analysis.plan import MetricPlan
from analysis.power import Spread

_Floats = NDArray[np.float64]
FEWEST = 4  # hosts, or contrasts


def host_spread(observations: pd.DataFrame, metric: MetricPlan, control: str) -> Spread:
    """Measure how hosts spread over the longest window there is, and how well an earlier one foretells it.

    The later window is the measurement, of a host that saw every arm that under the control; the earlier one the
    baseline, or the first half of the blocks. What arms and strata differ by is taken out first. Without a
    measurement, the baseline is the window and nothing foretells it. Raises NotEnoughData below 4 hosts.
    """
    rows = observations[observations["metric"] == metric.name]
    baseline = rows[rows["kind"] == "baseline"]
    later = rows[rows["kind"] == "measure"]
    switched = later.groupby("host")["arm"].transform("nunique") > 1
    later = later[~switched | (later["arm"] == control)]
    if later["host"].nunique() < FEWEST:
        return _spread(_by_host(baseline, metric), None, metric)
    earlier = baseline
    if baseline.empty and later["block"].nunique() > 1:
        half = later["block"] < later["block"].median()
        earlier, later = later[half], later[~half]
    return _spread(_by_host(later, metric), _by_host(earlier, metric), metric)


def block_spread(observations: pd.DataFrame, metric: MetricPlan, control: str, *, by_host: bool = False) -> Spread:
    """Measure how the contrasts of a switchback spread, over blocks or, `by_host`, over the hosts' mean contrasts.

    `mean` is the control's. Only blocks that hold both arms count. Raises NotEnoughData below 4 contrasts.
    """
    rows = measured(observations)
    treatment = next((arm for arm in sorted(set(rows["arm"])) if arm != control), "")
    pairs = paired(arm_values(rows, metric), treatment, control)
    steps = pd.Series(pairs.treatment - pairs.control, index=pd.Index(pairs.hosts, dtype=object))
    if by_host:
        steps = steps.groupby(level=0).mean()
    else:
        steps = steps - steps.groupby(level=0).transform("mean") if steps.index.nunique() > 1 else steps
    free = len(steps) - (0 if by_host else max(0, steps.index.nunique() - 1)) - 1
    if free < FEWEST - 1:
        raise NotEnoughData(f"{len(steps)} contrasts give no spread", metric.name, f"{FEWEST} are needed")
    centred = steps.to_numpy(dtype=np.float64) - float(steps.mean())
    sd = float(np.sqrt((centred**2).sum() / free))
    return Spread(
        mean=float(pairs.control.mean()), sd=sd, correlation=None, hosts=len(steps), values=tuple(centred.tolist())
    )


def _by_host(rows: pd.DataFrame, metric: MetricPlan) -> pd.DataFrame:
    """One row per host: its value weighed by seconds, its stratum, and its arm."""
    known = rows[np.isfinite(rows[metric.statistic].to_numpy(dtype=np.float64))]
    weighed = known.assign(sum=known[metric.statistic] * known["seconds"])
    by: pd.DataFrame = weighed.groupby("host").agg(
        sum=("sum", "sum"), seconds=("seconds", "sum"), stratum=("stratum", "first"), arm=("arm", "first")
    )
    by["value"] = by["sum"] / by["seconds"]
    return by


def _spread(later: pd.DataFrame, earlier: pd.DataFrame | None, metric: MetricPlan) -> Spread:
    cells = later.groupby(["stratum", "arm"])["value"]
    rest = (later["value"] - cells.transform("mean")).to_numpy(dtype=np.float64)
    free = len(later) - cells.ngroups
    if free < FEWEST - 1:
        raise NotEnoughData(f"{len(later)} hosts give no spread", metric.name, f"{FEWEST} are needed")
    sd = float(np.sqrt((rest**2).sum() / free))
    mean = float(later["value"].mean())
    correlation = None
    if earlier is not None and set(later.index) <= set(earlier.index):
        before = earlier["value"].reindex(later.index).groupby([later["stratum"], later["arm"]])
        old = (earlier["value"].reindex(later.index) - before.transform("mean")).to_numpy(dtype=np.float64)
        correlation = _correlation(rest, old, free)
    return Spread(mean=mean, sd=sd, correlation=correlation, hosts=len(later), values=tuple(rest.tolist()))


def _correlation(rest: _Floats, old: _Floats, free: int) -> float | None:
    """Correlation of what is left of two windows, corrected for the slope that was fitted: few hosts flatter it."""
    size = float(np.sqrt((rest**2).sum() * (old**2).sum()))
    if size == 0 or free < 2:
        return None
    found = float(np.clip((rest @ old) / size, -1.0, 1.0))
    explained = max(0.0, 1 - (1 - found**2) * free / (free - 1))
    return float(np.sign(found) * np.sqrt(explained))
