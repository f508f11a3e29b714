"""The order of the arms in a switchback's blocks: did chance draw it, or did one arm always come first?"""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
from scipy import stats

from analysis.plan import AnalysisPlan
from analysis.results import Check

ALARM, ONE_ORDER_ALARM = 0.001, 0.01


def order_check(rows: pd.DataFrame, plan: AnalysisPlan, treatment: str) -> Iterator[Check]:
    """Say it where one of two arms came first more often than coins explain: time then passes for the arm.

    `rows` are the used measure periods. Exact binomial test over the coins that were thrown: alarm at .001, at .01
    where every block has the same order, of which no part could be told from a drift.
    """
    periods = rows[rows["arm"].isin([plan.control, treatment])]
    if plan.order == "abba":  # the second of two blocks follows from the first
        periods = periods[periods["block"] % 2 == 0]
    first = periods.groupby([*plan.of_one_coin, "arm"])["position"].mean().unstack("arm")
    if first.shape[1] < 2 or (coins := len(first := first.dropna())) == 0:
        return
    control = int((first[plan.control] < first[treatment]).sum())
    p = float(stats.binomtest(control, coins, 0.5).pvalue)
    if p >= (ONE_ORDER_ALARM if control in {0, coins} else ALARM):
        return
    detail = (
        f"{plan.control} came before {treatment} in {control} of {coins} draws (p = {p:.2g}): what changes in time is "
        "not told apart from the arm. Let chance order each block."
    )
    yield Check(name=f"order of arms ({treatment})", passed=False, p_value=p, detail=detail)
