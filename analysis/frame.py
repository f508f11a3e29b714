"""The observations as they come in, checked once: columns, numbers, arms, one row per period and metric."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.aggregate import FIGURES
from analysis.assignment_method import find_method
from analysis.errors import BadObservations, BadPlan
from analysis.plan import TOGETHER, AnalysisPlan, Estimand, GuardrailPlan, MetricPlan, Role

OBSERVED = ("period_id", "host", "arm", "kind", "block", "attempt", "position", "seconds", "metric", "mean")
TRACED = ("period_id", "host", "arm", "kind", "block", "attempt", "position", "state", "reason")


ORDERS = ("pairs", "abba", TOGETHER)
STATISTICS = ("mean", "minimum", "maximum", "p50", "p99", "rise")  # columns of the observations
LARGEST = 1e60  # no unit of this world reaches it; beyond, fourth powers overflow
SMALLEST = 1e-60  # nearer to 0 than this is 0


def checked_observations(observations: pd.DataFrame, plan: AnalysisPlan) -> pd.DataFrame:
    """Return the rows worth estimating from, by period and metric: known arms, finite means; names as text.

    Hosts, arms, kinds and metrics may be text, whole numbers or categories: '1' and 1 are the same host. Raises
    BadObservations with the first fault.
    """
    _columns(observations, OBSERVED, "observations")
    rows = _with_text(observations, ("host", "arm", "kind", "metric"), "observations")
    if strangers := sorted(set(rows["arm"].unique()) - set(plan.arms)):
        raise BadObservations(
            f"arm {strangers[0]!r} is not in the plan",
            "observations, column arm",
            f"the plan has {', '.join(plan.arms)}",
        )
    order = _order(rows)
    try:
        means = rows["mean"].to_numpy(dtype=np.float64)
        seconds = rows["seconds"].to_numpy(dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise BadObservations(str(error), "observations, columns mean and seconds", "give numbers") from error
    timed = np.isfinite(seconds) & (seconds > 0)
    if not timed.all():  # a length only weighs periods against each other: unknown ones count as usual
        usual = float(np.median(seconds[timed])) if timed.any() else 1.0
        rows = rows.assign(seconds=np.where(timed, seconds, usual))
    if (tiny := np.abs(means) < SMALLEST).any():
        rows = rows.assign(mean=np.where(tiny, 0.0, means))
    if not (usable := measurable(means)).all():
        order = order[usable[order]]
    whole = len(order) == len(rows) and bool((order[1:] > order[:-1]).all())  # then every row is in its place
    return rows.reset_index(drop=True) if whole else rows.take(order).reset_index(drop=True)


def _order(rows: pd.DataFrame) -> NDArray[np.intp]:
    """One order whatever the order of the rows, by period and metric: sums of floats depend on it."""
    period, _ = pd.factorize(rows["period_id"], sort=True, use_na_sentinel=False)
    metric, names = pd.factorize(rows["metric"], sort=True)
    key = period.astype(np.int64) * len(names) + metric
    rises = key[1:] > key[:-1]
    order: NDArray[np.intp] = np.arange(len(key)) if rises.all() else np.argsort(key, kind="stable")
    if (again := key[order[1:]] == key[order[:-1]]).any():
        doubled = rows.iloc[int(order[1:][again].min())]
        raise BadObservations(
            f"metric {doubled['metric']!r} comes twice",
            f"period {doubled['period_id']}",
            "one row per period and metric: drop the copies",
        )
    return order


def _with_text(frame: pd.DataFrame, columns: tuple[str, ...], what: str) -> pd.DataFrame:
    """Return the frame with these columns as plain text; BadObservations names the first row where that fails."""
    plain = pd.Series([""]).dtype
    for name in columns:
        if (missing := frame[name].isna().to_numpy(dtype=np.bool_)).any():
            where = f"{what}, column {name}, row {frame.index[int(np.argmax(missing))]}"
            raise BadObservations(f"the {name} is missing", where, "name it, or leave the row out")
        if frame[name].dtype == plain != np.dtype(object):
            continue
        codes, seen = pd.factorize(frame[name])
        for place, value in enumerate(seen):
            if not isinstance(value, str | int | np.integer) or isinstance(value, bool):
                where = f"{what}, column {name}, row {frame.index[int(np.argmax(codes == place))]}"
                raise BadObservations(f"{value!r} is not a name of a {name}", where, "use text or whole numbers")
        # An enum of text is its value, not its name.
        texts = [str.__str__(value) if isinstance(value, str) else str(value) for value in seen]
        frame = frame.assign(**{name: pd.Series(texts, dtype=plain).array.take(codes)})
    return frame


def figures_of(plan: AnalysisPlan) -> tuple[str, ...]:
    """The figures of an observation that the plan's analysis reads: all else can stay in the store."""
    wanted = {"mean", *(metric.statistic for metric in plan.metrics)}
    if any(guardrail.tripwire is not None for guardrail in plan.guardrails):
        wanted |= {"minimum", "maximum", "rise"}
    return tuple(name for name in FIGURES if name in wanted)


def measurable(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each value is finite and small enough that squares of squares are too."""
    return np.isfinite(values) & (np.abs(values) < LARGEST)


def unusable(observations: pd.DataFrame) -> tuple[str, ...]:
    """Name the metrics of which some value is not a measurement, as warnings."""
    bad = ~measurable(observations["mean"].to_numpy(dtype=np.float64))
    counts = observations.loc[bad, "metric"].astype(str).value_counts()
    return tuple(f"{name}: {count} values are not finite numbers and were left out" for name, count in counts.items())


def checked_periods(periods: pd.DataFrame | None) -> pd.DataFrame | None:
    """Return the periods with their names as text; BadObservations where a column or a name is missing."""
    if periods is None:
        return None
    _columns(periods, TRACED, "periods")
    return _with_text(periods, ("host", "arm", "kind", "state"), "periods")


def check_plan(plan: AnalysisPlan) -> None:
    """Refuse a plan that cannot be carried out, before any number is looked at."""
    if plan.design not in {"switchback", "parallel"}:
        raise BadPlan(f"unknown design {plan.design!r}", "design", "'switchback' or 'parallel'")
    if plan.control not in plan.arms:
        raise BadPlan(f"the control {plan.control!r} is not an arm", "control", f"one of {', '.join(plan.arms)}")
    if len(set(plan.arms)) != len(plan.arms) or len(plan.arms) < 2:
        raise BadPlan("arms must be two or more with different names", "arms", "name each arm once")
    if not 0 < plan.alpha < 0.5:
        raise BadPlan(f"alpha {plan.alpha:g} is not an error rate", "alpha", "between 0 and 0.5, such as 0.05")
    if sum(metric.role is Role.PRIMARY for metric in plan.metrics) > 1:
        raise BadPlan("more than one primary metric", "metrics", "choose one; make the others secondary")
    if (twice := _first_twice(metric_label(metric) for metric in plan.metrics)) is not None:
        raise BadPlan(f"metric {twice!r} is named twice", "metrics", "name it once")
    for guardrail in plan.guardrails:
        _check_guardrail(guardrail)
    for metric in plan.metrics:
        _check_metric(metric)
    if plan.order not in ORDERS:
        raise BadPlan(f"unknown order {plan.order!r}", "order", f"one of {', '.join(ORDERS)}")
    find_method(plan.method)
    looks = plan.information_fractions
    if not looks or looks[-1] != 1.0 or looks[0] <= 0 or any(b <= a for a, b in pairwise(looks)):
        raise BadPlan("the looks do not rise to 1", "information_fractions", "such as (0.25, 0.5, 1.0)")
    if not 0 <= plan.look < len(looks):
        raise BadPlan(f"look {plan.look} is not among the {len(looks)} planned", "look", "count from 0")


def metric_label(metric: MetricPlan) -> str:
    """The name under which a metric is reported: a ratio's two parts."""
    return metric.name if metric.denominator is None else f"{metric.name} / {metric.denominator}"


def _check_metric(metric: MetricPlan) -> None:
    where = f"metric {metric.name}"
    if metric.estimand not in tuple(Estimand):
        raise BadPlan(f"unknown estimand {metric.estimand!r}", where, f"one of {', '.join(Estimand)}")
    if metric.statistic not in STATISTICS:
        raise BadPlan(f"unknown statistic {metric.statistic!r}", where, f"one of {', '.join(STATISTICS)}")
    if metric.denominator is not None and metric.statistic != "mean":
        raise BadPlan(f"a ratio of {metric.statistic}", where, "a ratio is of means: statistic='mean'")
    if metric.denominator is None and metric.estimand == Estimand.FLEET_RATIO:
        raise BadPlan("a fleet ratio without a denominator", where, "name the denominator")


def _check_guardrail(guardrail: GuardrailPlan) -> None:
    if guardrail.margin is None and guardrail.tripwire is None:
        raise BadPlan("a guardrail without a limit", f"guardrail {guardrail.metric}", "give a margin or a tripwire")
    if guardrail.margin is not None and not 0 <= guardrail.margin < float("inf"):
        raise BadPlan(f"margin {guardrail.margin!r} is not a share", f"guardrail {guardrail.metric}", "0.1 means 10 %")


def _first_twice(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _columns(frame: pd.DataFrame, wanted: tuple[str, ...], what: str) -> None:
    if missing := [name for name in wanted if name not in frame.columns]:
        raise BadObservations(
            f"{what} lack {', '.join(missing)}", what, f"the columns are {', '.join(wanted)} and optional others"
        )
