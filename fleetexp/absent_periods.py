"""Periods of which a frame has no row and that it shows all the same: most other hosts have them."""

from __future__ import annotations

import pandas as pd

from fleetexp.domain import PeriodKind, PeriodState

_REASON = "the frame has no row of it, and of most other hosts it has"


def with_absent(periods: pd.DataFrame) -> pd.DataFrame:
    """Return complete periods, and as invalid those measured ones that a host lacks and more than half of them have.

    A host lacks what is later than its first measured period, and everything where it was measured before the arms
    differed only. `periods` has the columns of observations of periods. The arm of a lost host is that of its
    baseline; where baselines name other arms than their hosts had, nobody knows it, and the host is left out.
    """
    measured = periods[periods["kind"] == PeriodKind.MEASURE.value]
    blocked = bool((measured["block"] >= 0).any())
    cell = ["block", "arm"] if blocked else ["position"]
    facts = _facts(periods, measured, arms=not blocked)
    held = measured.groupby(["host", *cell]).size().unstack(cell)
    usual = held.columns[held.notna().sum() > len(held) / 2]
    grid = held.reindex(index=facts.index, columns=usual).isna().stack(cell, future_stack=True)
    absent = grid.to_numpy(dtype=bool)
    if not absent.any():
        return periods
    lacking = grid.index[absent].to_frame(index=False)
    when = cell[0]
    first = measured.groupby("host")[when].min()
    begun = lacking["host"].map(first)
    lacking = lacking[begun.isna() | (lacking[when] > begun) | (blocked & (lacking[when] == begun))]
    if lacking.empty:
        return periods
    lacking = lacking.join(facts, on="host")
    if blocked:
        places = measured.groupby(["host", "block"])["position"].max()
        usual_place = measured.groupby("block")["position"].max()
        own = places.reindex(pd.MultiIndex.from_frame(lacking[["host", "block"]])).to_numpy()
        lacking["position"] = pd.Series(own, index=lacking.index).fillna(lacking["block"].map(usual_place)).astype(int)
    else:
        lacking["block"] = -1
    next_id = int(periods["period_id"].max()) + 1
    lacking = lacking.assign(
        period_id=range(next_id, next_id + len(lacking)),
        kind=PeriodKind.MEASURE.value,
        attempt=0,
        seconds=1.0,
        state=PeriodState.INVALID.value,
        reason=_REASON,
    )
    return pd.concat((periods, lacking[periods.columns]), ignore_index=True)


def _facts(periods: pd.DataFrame, measured: pd.DataFrame, *, arms: bool) -> pd.DataFrame:
    """Stratum and, where hosts keep one, arm of each host; without hosts of which nobody knows the arm."""
    facts = periods.groupby("host")[["stratum"]].first()
    if not arms:
        return facts
    had = measured.groupby("host")["arm"].first().reindex(facts.index)
    before = periods.loc[periods["kind"] == PeriodKind.BASELINE.value].groupby("host")["arm"].first()
    before = before.reindex(facts.index)
    both = had.notna() & before.notna()
    known = had.fillna(before) if (had[both] == before[both]).all() else had
    return facts.assign(arm=known).dropna(subset=["arm"])
