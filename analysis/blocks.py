"""Periods of a switchback to blocks: which attempt of each block counts, what was left out, each arm's value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.plan import AnalysisPlan, MetricPlan
from analysis.results import Excluded

BLOCK = ["host", "block"]
ATTEMPT = ["host", "block", "attempt"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBlocks:
    """The values of one metric in the blocks that have both arms; sorted by host, then block."""

    hosts: tuple[str, ...]
    blocks: tuple[int, ...]
    control: NDArray[np.float64]
    treatment: NDArray[np.float64]


def measured(observations: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of measure periods inside a block."""
    return observations[(observations["kind"] == "measure") & (observations["block"] >= 0)]


def used_periods(rows: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame | None) -> set[int]:
    """Choose the periods that count: of each block, the last attempt in which every arm was measured whole.

    A block is whole if it holds every arm of the plan equally often, as often as the fullest block of the run, and
    none of its periods is known to be broken. In ABBA order two blocks share a coin: half of such a pair is no unit.
    """
    if rows.empty:
        return set()
    flat = rows.drop_duplicates("period_id")[["period_id", "arm", *ATTEMPT]]
    counts = flat.groupby([*ATTEMPT, "arm"]).size().unstack("arm", fill_value=0)
    counts = counts.reindex(columns=list(plan.arms), fill_value=0)
    whole = (counts == counts.to_numpy().max()).all(axis=1)
    if periods is not None:
        broken = periods[(periods["kind"] == "measure") & (periods["state"] != "complete")]
        whole &= ~whole.index.isin(pd.MultiIndex.from_frame(broken[ATTEMPT]))
    chosen = whole[whole].reset_index()[ATTEMPT]
    last = chosen.sort_values("attempt").drop_duplicates(BLOCK, keep="last")
    if plan.order == "abba":
        last = last[last.groupby(["host", last["block"] // 2])["block"].transform("size") == 2]
    return set(flat.merge(last, on=ATTEMPT)["period_id"].tolist())


def excluded_periods(rows: pd.DataFrame, used: set[int], periods: pd.DataFrame | None) -> tuple[Excluded, ...]:
    """List every measured period that no estimate uses, with the reason."""
    flat = rows.drop_duplicates("period_id")
    unused = flat[~flat["period_id"].isin(used)]
    blocks_used = set(flat[flat["period_id"].isin(used)][BLOCK].itertuples(index=False, name=None))
    left: dict[int, Excluded] = {}
    for row in _records(unused):
        repeated = (row["host"], row["block"]) in blocks_used
        reason = "its block was repeated" if repeated else "its block, or the other half of its ABBA, is not whole"
        left[row["period_id"]] = _excluded(row, reason)
    return (*broken_periods(periods, skip=frozenset(left)), *(left[key] for key in sorted(left)))


def broken_periods(periods: pd.DataFrame | None, skip: frozenset[int] = frozenset()) -> tuple[Excluded, ...]:
    """List the baselines and measurements that began and did not become whole, with the reason kept for each."""
    if periods is None:
        return ()
    begun = periods["kind"].isin(["measure", "baseline"]) & ~periods["state"].isin(["complete", "planned"])
    return tuple(
        _excluded(row, str(row["reason"] or f"the period is {row['state']}"))
        for row in _records(periods[begun].sort_values("period_id"))
        if row["period_id"] not in skip
    )


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _excluded(row: Mapping[str, Any], reason: str) -> Excluded:
    return Excluded(
        host=str(row["host"]),
        period_id=int(row["period_id"]),
        arm=str(row["arm"]),
        block=int(row["block"]),
        reason=reason,
    )


def arm_values(rows: pd.DataFrame, metric: MetricPlan) -> pd.Series:
    """One value per (host, block, arm): the mean of its periods; for a ratio, sum over sum.

    The periods of an arm weigh alike. A ratio's parts weigh by their seconds:
    a mean rate times seconds is the count.
    """
    keys = [*BLOCK, "arm"]
    if metric.denominator is None:
        return rows[rows["metric"] == metric.name].groupby(keys)["mean"].mean()
    parts = rows[rows["metric"].isin([metric.name, metric.denominator])]
    amounts = parts.assign(amount=parts["mean"] * parts["seconds"]).pivot(
        index="period_id", columns="metric", values="amount"
    )
    if not {metric.name, metric.denominator} <= set(amounts.columns):
        return pd.Series(dtype=np.float64)
    both = amounts.dropna().join(parts.drop_duplicates("period_id").set_index("period_id")[keys])
    sums = both.groupby(keys)[[metric.name, metric.denominator]].sum()
    sums = sums[sums[metric.denominator] > 0]
    return sums[metric.name] / sums[metric.denominator]


def paired(values: pd.Series, treatment: str, control: str) -> PairedBlocks:
    """Put the two arms of each block side by side; a block that lacks either is left out."""
    if values.empty:
        empty = np.empty(0)
        return PairedBlocks(hosts=(), blocks=(), control=empty, treatment=empty)
    wide = values.unstack("arm").reindex(columns=[control, treatment]).dropna().sort_index()
    return PairedBlocks(
        hosts=tuple(str(host) for host in wide.index.get_level_values("host")),
        blocks=tuple(int(block) for block in wide.index.get_level_values("block")),
        control=wide[control].to_numpy(dtype=np.float64),
        treatment=wide[treatment].to_numpy(dtype=np.float64),
    )


def join_abba(pairs: PairedBlocks) -> PairedBlocks:
    """Join the two blocks that share a coin to one unit, numbered by the first: a linear drift cancels in it."""
    frame = pd.DataFrame(
        {
            "host": list(pairs.hosts),
            "block": [block // 2 * 2 for block in pairs.blocks],
            "control": pairs.control,
            "treatment": pairs.treatment,
        }
    )
    joined = frame.groupby(BLOCK)[["control", "treatment"]].agg(["mean", "size"])
    joined = joined[joined["control", "size"] == 2]
    return PairedBlocks(
        hosts=tuple(str(host) for host in joined.index.get_level_values("host")),
        blocks=tuple(int(block) for block in joined.index.get_level_values("block")),
        control=joined["control", "mean"].to_numpy(dtype=np.float64),
        treatment=joined["treatment", "mean"].to_numpy(dtype=np.float64),
    )


def order_of(rows: pd.DataFrame, periods: pd.DataFrame | None) -> Mapping[int, str]:
    """Name the arm that the host measured right before each period; a host's first period has none."""
    source = rows if periods is None else periods[(periods["kind"] == "measure") & (periods["state"] != "planned")]
    flat = source.drop_duplicates("period_id").sort_values(["host", "position"], kind="stable")
    before = flat.groupby("host")["arm"].shift()
    known = before.notna()
    return dict(zip(flat.loc[known, "period_id"].tolist(), before[known].tolist(), strict=True))
