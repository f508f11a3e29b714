"""Periods of a switchback to blocks: which attempt of each block counts, what was left out, each arm's value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import BadObservations
from analysis.missing import stratified_exact_p
from analysis.plan import AnalysisPlan, MetricPlan
from analysis.results import Excluded, Missing, Units

BLOCK = ["host", "block"]
ATTEMPT = ["host", "block", "attempt"]
CELL = ["host", "block", "arm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedBlocks:
    """The values of one metric in the blocks that have both arms; sorted by host, then block."""

    hosts: tuple[str, ...]
    blocks: tuple[int, ...]
    control: NDArray[np.float64]
    treatment: NDArray[np.float64]

    def only(self, kept: NDArray[np.bool_]) -> PairedBlocks:
        """Some of the blocks."""
        places = np.flatnonzero(kept).tolist()
        return PairedBlocks(
            hosts=tuple(self.hosts[place] for place in places),
            blocks=tuple(self.blocks[place] for place in places),
            control=self.control[kept],
            treatment=self.treatment[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cells:
    """One metric by (host, block, arm): its values in whole blocks, and what is known and lost of every begun cell.

    `values` are those of blocks that count; `known` has also what was measured in blocks that never became whole;
    `counts` has the columns known and lost, in periods.
    """

    values: pd.Series
    known: pd.Series
    counts: pd.DataFrame

    def gaps(self, pair: tuple[str, str]) -> bool:
        """Whether a period of one of two arms is missing."""
        return bool((self._of(pair)["lost"] > 0).any())

    def begun_blocks(self, pair: tuple[str, str]) -> pd.MultiIndex:
        """The (host, block) in which both arms began, sorted."""
        arms = self._of(pair).reset_index().groupby(BLOCK)["arm"].nunique()
        index = arms[arms == 2].sort_index().index
        assert isinstance(index, pd.MultiIndex)  # noqa: S101 - grouped by two
        return index

    @property
    def share(self) -> pd.Series:
        """The share of each cell's begun periods that are known."""
        return self.counts["known"] / (self.counts["known"] + self.counts["lost"])

    def missing(self, metric: MetricPlan, pair: tuple[str, str]) -> tuple[Missing, ...]:
        """Count what is missing by arm; () where nothing is."""
        if not self.gaps(pair):
            return ()
        out = []
        for arm in pair:
            known, lost = self._of((arm, arm)).to_numpy(dtype=np.int64).sum(axis=0).tolist()
            out.append(Missing(metric=metric.name, arm=arm, units=Units.PERIODS, lost=float(lost), due=known + lost))
        return tuple(out)

    def p_value(self, pair: tuple[str, str]) -> float | None:
        """Exact test that what is missing has nothing to do with the arm, within hosts; None where nothing is."""
        tables = []
        for _, own in self._of(pair).groupby(level="host"):
            treated = np.asarray(own.index.get_level_values("arm") == pair[1])
            lost, every = own["lost"].to_numpy(dtype=np.int64), own.to_numpy(dtype=np.int64).sum(axis=1)
            tables.append((int(lost[treated].sum()), int(every[treated].sum()), int(lost.sum()), int(every.sum())))
        return stratified_exact_p(tables)

    def _of(self, pair: tuple[str, str]) -> pd.DataFrame:
        """The cells of two arms."""
        return self.counts[self.counts.index.get_level_values("arm").isin(pair)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """What the cells of every metric are gathered from: all measured rows, parted by whether their block counts.

    `counted` are the rows of blocks that count, `broken` those of blocks that never became whole. `begun` has a row
    for each period that began, with its block and arm, whether it is `whole`, and whether it is `used`: its block
    counts. `untold` has what the rows alone tell of lost periods, where no periods were given.
    """

    every: pd.DataFrame
    counted: pd.DataFrame
    broken: pd.DataFrame
    begun: pd.DataFrame
    untold: pd.DataFrame

    def cells(self, metric: MetricPlan) -> Cells:
        """Gather one metric's cells.

        A period is lost that began and did not become whole, or that is whole and lacks the metric; one that the run
        itself stopped, or that another period of its block took down, is not (column `broken_by`). Without periods, a
        block that lacks an arm, a gap in a host's blocks and the number of an attempt tell what was lost.
        """
        values, other = arm_values(self.counted, metric), arm_values(self.broken, metric)
        known = pd.concat([part for part in (values, other) if len(part)] or [values])
        whole = self.begun["whole"] & self.begun["period_id"].isin(known_periods(self.every, metric))
        in_block = pd.MultiIndex.from_frame(self.begun[BLOCK]).isin(list({key[:2] for key in other.index}))
        counts = self.begun.assign(known=whole & (self.begun["used"] | in_block), lost=~whole)
        counts = counts.groupby(CELL)[["known", "lost"]].sum()
        if len(self.untold):
            more = self.untold.set_index(CELL)["lost"]
            index = counts.index.union(more.index)
            counts = counts.reindex(index, fill_value=0)
            counts["lost"] = counts["lost"].add(more.reindex(index, fill_value=0))
        counts.index = counts.index.set_names(CELL)
        counts = counts[(counts["known"] > 0) | (counts["lost"] > 0)].astype(np.int64)
        return Cells(values=values, known=known, counts=counts)


def attempts_of(every: pd.DataFrame, used: set[int], plan: AnalysisPlan, periods: pd.DataFrame | None) -> Attempts:
    """Part the rows of all measured periods; `used` are those whose block counts."""
    in_use = every["period_id"].isin(used)
    counted = every[in_use]
    idle = every[~in_use].merge(counted[BLOCK].drop_duplicates(), on=BLOCK, how="left", indicator="counted")
    if periods is None:
        begun = every.drop_duplicates("period_id")[["period_id", *CELL, "attempt"]]
        begun = begun.assign(host=begun["host"].astype(str), whole=True)
        untold = _untold(begun, plan)
    else:
        own = periods[(periods["kind"] == "measure") & (periods["block"] >= 0)]
        own = own[~own["state"].isin(["planned", "running"])]
        if "broken_by" in own.columns:
            own = own[~own["broken_by"].isin(["run", "block"])]
        whole = (own["state"] == "complete").astype(bool)
        begun = own[["period_id", *CELL]].assign(host=own["host"].astype(str), whole=whole)
        untold = pd.DataFrame(columns=[*CELL, "lost"])
    return Attempts(
        every=every,
        counted=counted,
        broken=idle[idle["counted"] == "left_only"],
        begun=begun.assign(used=begun["period_id"].isin(used)),
        untold=untold,
    )


def _untold(of_period: pd.DataFrame, plan: AnalysisPlan) -> pd.DataFrame:
    """What the rows alone tell of lost periods: attempts before the last, arms and blocks that are not there."""
    rows = []
    for host, own in of_period.groupby("host"):
        blocks, attempts = own["block"].to_numpy(dtype=np.int64), own["attempt"].to_numpy(dtype=np.int64)
        arms = own["arm"].to_numpy()
        for block in range(int(blocks.max()) + 1):
            here = blocks == block
            tried = int(attempts[here].max()) if here.any() else 0
            seen = set(arms[here].tolist())
            rows += [
                {"host": host, "block": block, "arm": arm, "lost": tried + int(arm not in seen)}
                for arm in plan.arms
                if tried or arm not in seen
            ]
    return pd.DataFrame(rows, columns=[*CELL, "lost"])


def known_periods(rows: pd.DataFrame, metric: MetricPlan) -> set[int]:
    """The periods that have the metric; of a ratio both parts, with a denominator above 0."""
    own = rows[rows["metric"] == metric.name]
    found = set(own.loc[np.isfinite(own[metric.statistic].to_numpy(dtype=np.float64)), "period_id"].tolist())
    if metric.denominator is not None:
        below = rows[(rows["metric"] == metric.denominator) & (rows["mean"] > 0)]
        found &= set(below["period_id"].tolist())
    return found


def measured(observations: pd.DataFrame) -> pd.DataFrame:
    """Keep the rows of measure periods inside a block."""
    return observations[(observations["kind"] == "measure") & (observations["block"] >= 0)]


def used_periods(rows: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame | None) -> set[int]:
    """Choose the periods that count: of each block, the last attempt in which every arm was measured whole.

    A block is whole if it holds every arm of the plan equally often, as often as the fullest block of the run, and
    none of its periods is known to be broken. In ABBA order two blocks share a coin: half of such a pair is not a unit.
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
    """One value per (host, block, arm): the mean of its periods' statistic; for a ratio, sum over sum.

    The periods of an arm weigh alike. A ratio's parts weigh by their seconds:
    a mean rate times seconds is the count.
    """
    if metric.statistic not in rows.columns:
        raise BadObservations(
            f"observations lack {metric.statistic}", f"metric {metric.name}", "use 'mean', or add the column"
        )
    if metric.denominator is None:
        own = rows[rows["metric"] == metric.name]
        known = own[np.isfinite(own[metric.statistic].to_numpy(dtype=np.float64))]
        values: pd.Series = known.groupby(CELL)[metric.statistic].mean()
        return values
    parts = rows[rows["metric"].isin([metric.name, metric.denominator])]
    amounts = parts.assign(amount=parts["mean"] * parts["seconds"]).pivot(
        index="period_id", columns="metric", values="amount"
    )
    if not {metric.name, metric.denominator} <= set(amounts.columns):
        return pd.Series(dtype=np.float64)
    both = amounts.dropna().join(parts.drop_duplicates("period_id").set_index("period_id")[CELL])
    sums = both.groupby(CELL)[[metric.name, metric.denominator]].sum()
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


def join_hosts(pairs: PairedBlocks) -> PairedBlocks:
    """Join the hosts of each block, which one coin decided for: their mean is one unit, whatever struck them all."""
    frame = pd.DataFrame({"block": list(pairs.blocks), "control": pairs.control, "treatment": pairs.treatment})
    joined = frame.groupby("block")[["control", "treatment"]].mean()
    return PairedBlocks(
        hosts=("all hosts",) * len(joined),
        blocks=tuple(int(block) for block in joined.index),
        control=joined["control"].to_numpy(dtype=np.float64),
        treatment=joined["treatment"].to_numpy(dtype=np.float64),
    )


def order_of(rows: pd.DataFrame, periods: pd.DataFrame | None) -> Mapping[int, str]:
    """Name the arm that the host measured right before each period; a host's first period has none."""
    source = rows if periods is None else periods[(periods["kind"] == "measure") & (periods["state"] != "planned")]
    flat = source.drop_duplicates("period_id").sort_values(["host", "position"], kind="stable")
    before = flat.groupby("host")["arm"].shift()
    known = before.notna()
    return dict(zip(flat.loc[known, "period_id"].tolist(), before[known].tolist(), strict=True))
