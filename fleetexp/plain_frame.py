"""What a plain frame of measurements shows: the analysis that a run gets, for data that somebody else has brought.

A frame says who measured what. How the arms came about, who was to be measured and was not, which looks were planned:
none of that is in it, so that it is asked for, or told as not known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal, overload

import numpy as np
import pandas as pd

from agents.catalogue import MetricKind
from analysis.errors import BadObservations, BadPlan
from analysis.findings import analyze as analyze_observations
from analysis.odd_series import refuse_unit_jump, rising_warnings
from analysis.plain_columns import first, numbers_of, with_names
from analysis.plan import TOGETHER, AnalysisPlan, Direction, GuardrailPlan, MetricPlan, Role
from analysis.results import Findings
from analysis.retrospective.plan import RetrospectivePlan
from analysis.retrospective.verdicts import RetrospectiveFindings
from fleetexp.absent_periods import with_absent
from fleetexp.experiment.mapping import AT_RANDOM, NOT_AT_RANDOM, TAKEN_ON_TRUST
from fleetexp.experiment.metrics import known, usual_trade

__all__ = ["analyze"]

_NEEDED = ("host", "arm", "metric", "value")
_OF_PERIOD = ["host", "kind", "period"]
_KINDS = {"baseline", "measure"}


@overload
def analyze(
    frame: pd.DataFrame,
    *,
    assigned: Literal["not at random"],
    changed: str = "the change",
    primary: str = "",
    better: str | Mapping[str, str] = "",
    guardrails: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> RetrospectiveFindings: ...


@overload
def analyze(
    frame: pd.DataFrame,
    *,
    control: str,
    assigned: str = "",
    primary: str = "",
    better: str | Mapping[str, str] = "",
    guardrails: Mapping[str, float] | None = None,
    ratio: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Findings: ...


def analyze(
    frame: pd.DataFrame,
    *,
    control: str = "",
    assigned: str = "",
    changed: str = "",
    primary: str = "",
    better: str | Mapping[str, str] = "",
    guardrails: Mapping[str, float] | None = None,
    ratio: Mapping[str, float] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Findings | RetrospectiveFindings:
    """Decide on each arm against the control from one row a host and metric: columns host, arm, metric, value.

    With a column `period` a host may have many rows of a metric: numbers in the order of time. With `period` and
    `block` hosts may change arms: each block holds every arm once, in an order of its own. `stratum` keeps hosts apart
    that differ; rows whose `kind` is 'baseline' were measured before the arms differed, `seconds` is how long a period
    took. A value that is missing (NaN) counts as lost there, and so does a period that a host lacks
    and more than half of them have; of another row that is missing a frame shows nothing.

    Chance must have decided which host (with blocks: which place in each block) got which arm, each for itself or in
    fixed numbers within a stratum, and `assigned="at random"` says so. Matched pairs, re-randomised draws and ABBA
    orders need `analysis.analyze` and a plan that names them. `primary` decides: the only metric if there is but one.
    `better` is 'increase' or 'decrease', or says it by metric; the catalogue's direction where there is one.
    `guardrails`: metric -> relative harm that is not accepted, 0.05 is 5 %. With `ratio` (arm -> its parts of the
    hosts) the sizes of the arms are tested; without one they are taken as they are.

    Where nobody drew the hosts, `assigned="not at random"` gives a rollout already made what it bears: a verdict, no
    decision. Then the columns are host, period, metric, value and treated_from, the period (or, with a column
    started_at, the instant) from which a host was changed, missing where it never was; `changed` is what was changed,
    as people call it, and there are no arms to name.

    BadObservations and BadPlan name the column or the argument, and the remedy.
    """
    if assigned == NOT_AT_RANDOM:
        if control or ratio is not None:
            raise BadPlan(
                "a rollout that nobody drew has no arms",
                "analyze, control and ratio",
                "leave them out: treated_from says which hosts were changed",
            )
        return _retrospective(frame, changed or "the change", primary, better, guardrails or {}, alpha, seed)
    if assigned != AT_RANDOM:
        raise BadPlan(
            "nobody says how the arms were assigned, and a frame doesn't show it",
            "analyze, assigned",
            "say assigned='at random' where chance decided; else no difference can be put down to the arm, and "
            "assigned='not at random' with a column treated_from gives a verdict instead of a decision",
        )
    if changed:
        raise BadPlan("'changed' is of rollouts that nobody drew", "analyze, changed", "arms have names: leave it out")
    rows = _rows(frame)
    measured = rows.loc[rows["kind"] == "measure", "arm"]
    arms = tuple(sorted(measured.unique(), key=lambda arm: (arm != control, arm)))
    if control not in arms:
        raise BadPlan(f"no row has the arm {control!r}", "analyze, control", f"name one of {', '.join(arms)}")
    limits = dict(guardrails or {})
    metrics = _metrics(rows["metric"], primary, better, limits)
    plan = AnalysisPlan(
        design="switchback" if "block" in frame.columns else "parallel",
        order=TOGETHER if _in_step(rows) else "pairs",
        control=control,
        arms=arms,
        metrics=tuple(metrics.values()),
        guardrails=tuple(_guardrail(metrics[name], margin) for name, margin in limits.items()),
        alpha=alpha,
        seed=seed,
        ratio=None if ratio is None else _parts(ratio, arms),
        trade=usual_trade(metrics),
    )
    periods = rows.drop_duplicates("period_id").drop(columns=["metric", "mean"]).assign(state="complete", reason="")
    findings = analyze_observations(rows, plan, with_absent(periods))
    return replace(findings, warnings=(TAKEN_ON_TRUST, *findings.warnings, *_odd(rows)))


def _in_step(rows: pd.DataFrame) -> bool:
    """Whether several hosts have the same order in every block: then one draw decided for all of them at a time."""
    taken = rows[(rows["kind"] == "measure") & (rows["block"] >= 0)]
    if taken["host"].nunique() < 2:
        return False
    place = taken.groupby(["block", "host", "arm"])["position"].mean().groupby(["block", "host"]).rank()
    return bool((place.groupby(["block", "arm"]).nunique() == 1).all())


def _odd(rows: pd.DataFrame) -> Iterator[str]:
    """Say what series show that nobody asked of them; BadObservations where a metric changes its unit."""
    for metric, mine in rows.groupby("metric", sort=False):
        series = mine.assign(order=mine["position"] + (mine["kind"] == "measure") * len(rows))  # the baseline is first
        matrix = series.pivot_table(index="host", columns="order", values="mean")
        values = matrix.to_numpy(dtype=np.float64)
        labels = [f"{order % len(rows)}" for order in matrix.columns]
        refuse_unit_jump(str(metric), values, list(matrix.index), labels, "frame, column value")
        yield from rising_warnings([(str(metric), values)])


def _retrospective(  # noqa: PLR0917 - what `analyze` was told
    frame: pd.DataFrame,
    changed: str,
    primary: str,
    better: str | Mapping[str, str],
    limits: Mapping[str, float],
    alpha: float,
    seed: int,
) -> RetrospectiveFindings:
    from analysis.retrospective.findings import retrospective_findings  # noqa: PLC0415 - loaded where it is asked for
    from analysis.retrospective.panel_frame import panels_of  # noqa: PLC0415

    panels = panels_of(frame)
    metrics = _metrics(panels.by_metric, primary, better, limits)
    plan = RetrospectivePlan(
        metrics=tuple(metrics.values()),
        guardrails=tuple(_guardrail(metrics[name], margin) for name, margin in limits.items()),
        changed=changed,
        alpha=alpha,
        seed=seed,
    )
    return retrospective_findings(panels, plan)


def _metrics(
    named: Iterable[str], primary: str, better: str | Mapping[str, str], limits: Mapping[str, float]
) -> dict[str, MetricPlan]:
    """Plan every metric that rows name, the primary first; BadPlan for one that none does."""
    names = tuple(dict.fromkeys(named))
    primary = primary or _only(names, limits)
    if strangers := [name for name in (primary, *limits) if name not in names]:
        raise BadPlan(
            f"no row has the metric {strangers[0]!r}", "analyze, primary and guardrails", f"name of {', '.join(names)}"
        )
    directions = {primary: better} if isinstance(better, str) else dict(better)
    return {name: _metric(name, primary, limits, directions) for name in (primary, *limits, *names)}


def _rows(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame as observations of periods; BadObservations with the first fault."""
    if missing := [name for name in _NEEDED if name not in frame.columns]:
        raise BadObservations(
            f"the frame has no column {missing[0]!r}",
            f"frame, columns {', '.join(map(str, frame.columns))}",
            f"rename one: frame.rename(columns={{'...': {missing[0]!r}}}); {', '.join(_NEEDED)} are needed",
        )
    if frame.empty:
        raise BadObservations("the frame has no rows", "frame", "give one row a host and metric")
    rows = with_names(frame.reset_index(drop=True), ("host", "arm", "metric"))
    rows["mean"] = _numbers(rows, "value")
    rows["kind"] = rows["kind"].astype(str) if "kind" in rows else "measure"
    if strange := sorted(set(rows["kind"]) - _KINDS):
        raise BadObservations(
            f"{strange[0]!r} is not a kind of period", "frame, column kind", "'baseline' or 'measure'"
        )
    _check_blocks(rows)
    rows["period"] = _numbers(rows, "period") if "period" in rows else 0.0
    if (twice := rows.duplicated([*_OF_PERIOD, "metric"])).any():
        row = first(twice)
        raise BadObservations(
            f"host {rows['host'][row]!r} has two values of {rows['metric'][row]!r}",
            f"frame, row {row}",
            "add a column 'period' that numbers them in the order of time, or drop the copy",
        )
    strata = rows["stratum"].astype(str) if "stratum" in rows else pd.Series("all", index=rows.index)
    for name in [name for name in ("arm", "block") if name in rows]:
        if (mixed := rows.groupby(_OF_PERIOD)[name].transform("nunique") > 1).any():
            host = rows["host"][first(mixed)]
            raise BadObservations(
                f"a period of host {host!r} is in more than one {name}", "frame, column period", "number each by itself"
            )
    if (mixed := strata.groupby(rows["host"]).nunique() > 1).any():
        raise BadObservations(
            f"host {mixed.idxmax()!r} is in two strata", "frame, column stratum", "name one for each host"
        )
    return pd.DataFrame(
        {
            "period_id": rows.groupby(_OF_PERIOD).ngroup() + 1,
            "host": rows["host"],
            "stratum": strata,
            "arm": rows["arm"],
            "kind": rows["kind"],
            "block": pd.factorize(rows["block"], sort=True)[0] if "block" in rows else -1,
            "attempt": 0,
            "position": pd.factorize(rows["period"], sort=True)[0],
            "seconds": _numbers(rows, "seconds") if "seconds" in rows else 1.0,
            "metric": rows["metric"],
            "mean": rows["mean"],
        }
    )


def _numbers(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return a column as numbers, NaN where it says nothing."""
    return numbers_of(rows[name], name, "give numbers, or NaN for none")


def _check_blocks(rows: pd.DataFrame) -> None:
    """Refuse hosts that change arms where nothing says when."""
    if "block" in rows:
        if "period" not in rows:
            raise BadObservations(
                "there are blocks, and nothing says in which order they held the arms",
                "frame, column block",
                "add a column 'period' that numbers each host's periods in the order of time",
            )
        return
    measured = rows[rows["kind"] == "measure"]
    if (changing := measured.groupby("host")["arm"].nunique() > 1).any():
        raise BadObservations(
            f"host {changing.idxmax()!r} was measured under two arms",
            "frame, columns host and arm",
            "add columns 'block' and 'period': which values were taken in turn, and their order in time",
        )


def _only(names: tuple[str, ...], limits: Mapping[str, float]) -> str:
    """Return the one metric that can be meant."""
    free = [name for name in names if name not in limits]
    if len(free) != 1:
        raise BadPlan(
            f"{len(free)} metrics could be the one that decides", "analyze, primary", f"name one of {', '.join(names)}"
        )
    return free[0]


def _metric(name: str, primary: str, limits: Mapping[str, float], directions: Mapping[str, str]) -> MetricPlan:
    role = Role.PRIMARY if name == primary else Role.GUARDRAIL if name in limits else Role.SECONDARY
    metric = known(name)
    said = directions.get(name) or (metric.better if metric is not None else None)
    if said is None and role is not Role.SECONDARY:
        raise BadPlan(
            f"nobody says which way {name} is better",
            f"analyze, metric {name}",
            f"say better={{{name!r}: 'increase'}}, or 'decrease'",
        )
    if said is not None and said not in set(Direction):
        raise BadPlan(f"{said!r} is not a direction", "analyze, better", "'increase' or 'decrease'")
    gauge = metric is not None and metric.kind is not MetricKind.COUNTER  # of a counter we don't know: total or rate
    unit = metric.unit if metric is not None and gauge else ""
    return MetricPlan(name=name, unit=unit, role=role, better=None if said is None else Direction(said))


def _guardrail(metric: MetricPlan, margin: float) -> GuardrailPlan:
    if not 0 <= margin <= 1:
        raise BadPlan(f"{margin!r} is not a share", f"analyze, guardrails, {metric.name}", "0.1 means 10 %")
    worse = Direction.DECREASE if metric.better is Direction.INCREASE else Direction.INCREASE
    return GuardrailPlan(metric=metric.name, worse=worse, margin=margin)


def _parts(ratio: Mapping[str, float], arms: tuple[str, ...]) -> tuple[float, ...]:
    if set(ratio) != set(arms):
        raise BadPlan("the ratio does not name each arm", "analyze, ratio", f"give a part for {', '.join(arms)}")
    return tuple(float(ratio[arm]) for arm in arms)
