"""Observations of a parallel design to one number per host and metric: all that the arms are compared by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import BadObservations
from analysis.frame import measurable
from analysis.halves import in_later_half
from analysis.plan import AnalysisPlan, AssignedUnit, MetricPlan

_Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoArms:
    """The reporting hosts of two arms: outcome, stratum, and the same metric before the arms differed (NaN: none)."""

    control: str
    treatment: str
    hosts: NDArray[np.str_]
    treated: NDArray[np.bool_]
    strata: NDArray[np.str_]
    y: _Floats
    before: _Floats
    numerator: _Floats  # of a ratio; else y and ones
    denominator: _Floats

    @property
    def sizes(self) -> tuple[int, int]:
        return int((~self.treated).sum()), int(self.treated.sum())

    def only(self, kept: NDArray[np.bool_]) -> TwoArms:
        """The sample of some of its hosts."""
        names = ("hosts", "treated", "strata", "y", "before", "numerator", "denominator")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def arms(self, values: _Floats) -> tuple[_Floats, _Floats]:
        """Split values by arm: control, treatment."""
        return values[~self.treated], values[self.treated]


class HostTable:
    """Observations by host, looked up by metric; only the units of the plan (or those seen, where it names none).

    `rows` are checked observations, `periods` checked periods. Of a block that was tried again the last attempt counts.
    """

    def __init__(self, rows: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame | None = None) -> None:
        self.units: tuple[AssignedUnit, ...] = plan.units or _units_seen(rows, periods)
        self._control = plan.control
        units = sorted(self.units, key=lambda unit: unit.host)
        self._hosts = pd.Index([unit.host for unit in units], dtype=rows["host"].dtype)
        if self._hosts.has_duplicates:
            raise BadObservations("a host is assigned twice", "plan.units", "name every unit once")
        self._names = np.array([unit.host for unit in units], dtype=np.str_)
        self._strata = np.array([unit.stratum for unit in units], dtype=np.str_)
        self._arms = np.array([unit.arm for unit in units], dtype=object)
        self._in = {arm: (self._arms == arm).astype(np.bool_) for arm in plan.arms}
        self._rows, self._periods = rows, periods
        self._host = _places(rows["host"], self._hosts)  # of each row, its host's place; -1: none of ours
        self._kept = _last_attempts(rows, self._host)
        kind, kinds = pd.factorize(rows["kind"])
        self._of = _by_metric_and_kind(rows["metric"], kind, kinds, np.flatnonzero(self._host >= 0))
        self._begun: dict[str, tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]] = {}
        measured = self._kept & (kind == kinds.get_indexer(pd.Index(["measure"]))[0])
        self.reporting = frozenset(self._named(self._host[measured]))
        arm, arms = pd.factorize(rows["arm"])
        elsewhere = arm[measured] != arms.get_indexer(pd.Index(self._arms))[self._host[measured]]
        self.misplaced = tuple(self._named(self._host[measured][elsewhere]))
        under = arms.take(arm[measured][elsewhere]).astype(str)
        self._measured_under = dict(zip(self._names[self._host[measured][elsewhere]].tolist(), under, strict=True))
        self._due = self.reporting | _due(self.units, self.reporting, plan, periods)

    def two_arms(
        self,
        metric: MetricPlan,
        treatment: str,
        control: str | None = None,
        *,
        among: NDArray[np.bool_] | None = None,
    ) -> TwoArms:
        """Gather the hosts of two arms (the control: the plan's) that have the metric, in the order of their names.

        `among`: of the rows measured only these count.
        """
        control = control or self._control
        y, top, bottom = self._outcome(metric, "measure", among)
        here = ~np.isnan(y) & (self._in[control] | self._in[treatment])
        return TwoArms(
            control=control,
            treatment=treatment,
            hosts=self._names[here],
            treated=self._in[treatment][here],
            strata=self._strata[here],
            y=y[here],
            before=self._outcome(metric, "baseline")[0][here],
            numerator=top[here],
            denominator=bottom[here],
        )

    def halves(self, metric: MetricPlan, treatment: str) -> tuple[TwoArms, TwoArms]:
        """Gather the hosts that have the metric in both halves of their measured time: in the earlier, in the later."""
        places = self._measured(metric.name, metric.statistic, "measure")[0]
        places = places[self._kept[places]]
        late = in_later_half(self._host[places], self._rows["position"].to_numpy()[places])
        period = self._rows["period_id"].to_numpy()
        earlier, later = (
            self.two_arms(metric, treatment, among=np.isin(period, period[places[part]])) for part in (~late, late)
        )
        return earlier.only(np.isin(earlier.hosts, later.hosts)), later.only(np.isin(later.hosts, earlier.hosts))

    def values(self, metric: str, statistic: str, kind: str) -> pd.Series:
        """One value per host: its periods of that kind, weighed by their seconds. Hosts without one are absent."""
        return self._series(self._means(metric, statistic, kind))

    def before(self, metric: MetricPlan) -> pd.Series:
        """One value per host before the arms differed. Hosts without one are absent."""
        return self._series(self._outcome(metric, "baseline")[0])

    def shares(self, metric: MetricPlan, kind: str = "measure") -> pd.Series:
        """The share (0 to 1) of each host's begun periods, all attempts, that are complete and have the metric.

        Planned and running periods have not come to an end, and one that the run or another host of its block broke
        (column `broken_by`: 'run', 'block') says nothing of its host: they are not counted. Without the plan's
        periods, those begun are the attempts at blocks of which any metric is known, and those before them that an
        attempt's number tells of. Hosts with nothing are absent.
        """
        if kind not in self._begun:
            self._begun[kind] = self._begun_periods(kind)
        period, counted, begun = self._begun[kind]
        found = self._measured(metric.name, metric.statistic, kind)[0]
        if metric.denominator is not None:
            below, amounts = self._measured(metric.denominator, "mean", kind)
            found = found[np.isin(period[found], period[below[amounts > 0]])]
        found = found[counted[found]]
        _, first = np.unique(period[found], return_index=True)
        whole = np.bincount(self._host[found[first]], minlength=len(self._names))
        return self._series(np.where(whole > 0, whole / np.maximum(begun, 1), np.nan))

    def due_hosts(self, arm: str) -> list[str]:
        """The hosts of an arm that should have reported by now, sorted."""
        return [host for host in self._names[self._in[arm]].tolist() if host in self._due]

    def assigned(self, arm: str) -> int:
        """How many hosts of an arm should have reported by now."""
        return len(self.due_hosts(arm))

    def lost(self, arm: str) -> int:
        """Those of them without one complete measured period."""
        return len(set(self.due_hosts(arm)) - self.reporting)

    def counts(self, arms: Sequence[str]) -> dict[str, tuple[list[int], Sequence[str]]]:
        """Reporting hosts per arm that was read back: of the whole ('') and of each stratum and stage."""
        seen = Counter(
            part
            for unit in self.units
            if unit.host in self.reporting
            for arm in (self._measured_under.get(unit.host, unit.arm),)
            for part in (("", arm), (f"stratum {unit.stratum}", arm), (f"stage {unit.stage}", arm))
        )
        parts = [""]
        for what, names in (
            ("stratum", sorted({unit.stratum for unit in self.units})),
            ("stage", sorted({unit.stage for unit in self.units})),
        ):
            parts += [f"{what} {name}" for name in names] if len(names) > 1 else []
        return {part: ([seen[part, arm] for arm in arms], arms) for part in parts}

    def by_stratum(self, arms: Sequence[str]) -> dict[str, list[int]]:
        """Reporting hosts of each stratum, by the arm that they were assigned."""
        seen = Counter((unit.stratum, unit.arm) for unit in self.units if unit.host in self.reporting)
        return {name: [seen[name, arm] for arm in arms] for name in sorted({stratum for stratum, _ in seen})}

    def _outcome(
        self, metric: MetricPlan, kind: str, among: NDArray[np.bool_] | None = None
    ) -> tuple[_Floats, _Floats, _Floats]:
        """The metric by host and its two parts; of a metric that is not a ratio itself and ones. NaN: not there."""
        top = self._means(metric.name, metric.statistic, kind, among)
        if metric.denominator is None:
            return top, top, np.ones(len(top))
        bottom = self._means(metric.denominator, "mean", kind, among)
        return np.divide(top, bottom, out=np.full(len(top), np.nan), where=bottom > 0), top, bottom

    def _means(self, metric: str, statistic: str, kind: str, among: NDArray[np.bool_] | None = None) -> _Floats:
        """One value for each host, NaN where it has none."""
        places, values = self._measured(metric, statistic, kind)
        kept = self._kept[places] if among is None else self._kept[places] & among[places]
        places, values = places[kept], values[kept]
        hosts = self._host[places]
        out = np.full(len(self._names), np.nan)
        if np.bincount(hosts, minlength=1).max() <= 1:
            out[hosts] = values
            return out
        seconds = self._rows["seconds"].to_numpy(dtype=np.float64)[places]
        share = seconds / seconds.max()  # equal periods weigh exactly 1: no rounding comes in
        weights = np.bincount(hosts, weights=share, minlength=out.size)
        sums = np.bincount(hosts, weights=values * share, minlength=out.size)
        np.divide(sums, weights, out=out, where=weights > 0)
        return out

    def _measured(self, metric: str, statistic: str, kind: str) -> tuple[NDArray[np.intp], _Floats]:
        """The places of the rows that have it, and what they have; of all attempts."""
        places = self._of.get((metric, kind))
        if places is None:
            return np.empty(0, dtype=np.intp), np.empty(0)
        if statistic not in self._rows.columns:
            raise BadObservations(f"observations lack {statistic}", f"metric {metric}", "use 'mean', or add the column")
        values = self._rows[statistic].to_numpy(dtype=np.float64)[places]
        usable = measurable(values)
        return places[usable], values[usable]

    def _named(self, hosts: NDArray[np.intp]) -> list[str]:
        """The names of the hosts at these places, each once, sorted."""
        seen: list[str] = self._names[np.bincount(hosts, minlength=len(self._names)) > 0].tolist()
        return seen

    def _series(self, by_host: _Floats) -> pd.Series:
        here = ~np.isnan(by_host)
        return pd.Series(by_host[here], index=self._hosts[here])

    def _begun_periods(self, kind: str) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
        """For each row its period's number and whether that was begun and is complete; for each host how many began."""
        if self._periods is None:
            own = (self._host >= 0) & (self._rows["kind"] == kind).to_numpy(dtype=np.bool_)
            period = _codes(self._host, self._rows["block"], self._rows["attempt"])
            block = _codes(self._host, self._rows["block"])
            tried = self._rows["attempt"].to_numpy(dtype=np.intp)[own] + 1
            last = np.lexsort((tried, block[own]))
            last = last[np.append(np.diff(block[own][last]) != 0, True)[: last.size]]
            attempts = np.bincount(self._host[own][last], weights=tried[last], minlength=len(self._names))
            return period, own, attempts.astype(np.intp)
        begun = self._periods[(self._periods["kind"] == kind) & ~self._periods["state"].isin(["planned", "running"])]
        if "broken_by" in begun.columns:
            begun = begun[~begun["broken_by"].isin(["run", "block"])]
        hosts = _places(begun["host"], self._hosts)
        complete = begun.loc[begun["state"] == "complete", "period_id"].to_numpy()
        period = self._rows["period_id"].to_numpy()
        return period, np.isin(period, complete), np.bincount(hosts[hosts >= 0], minlength=len(self._names))


def _places(hosts: pd.Series, known: pd.Index) -> NDArray[np.intp]:
    """The place of each host among those known, -1 for another."""
    codes, seen = pd.factorize(hosts)
    return np.asarray(known.get_indexer(seen), dtype=np.intp)[codes]


def _codes(*columns: NDArray[np.intp] | pd.Series) -> NDArray[np.intp]:
    """Number the combinations of columns from 0, with gaps."""
    out = np.zeros(len(columns[0]), dtype=np.intp)
    for column in columns:
        codes, seen = pd.factorize(np.asarray(column), use_na_sentinel=False)
        out = out * max(len(seen), 1) + codes
    return out


def _last_attempts(rows: pd.DataFrame, host: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Whether each row is of a known host and of the last attempt at its block."""
    ours = host >= 0
    attempt = rows["attempt"].to_numpy()[ours]
    if attempt.size and attempt.min() != attempt.max():
        block, _ = pd.factorize(_codes(host[ours], rows["kind"][ours], rows["block"][ours]))
        last = np.full(int(block.max()) + 1, attempt.min())
        np.maximum.at(last, block, attempt)
        ours[ours] = attempt == last[block]
    return ours


def _by_metric_and_kind(
    metric_names: pd.Series, kind: NDArray[np.intp], kinds: pd.Index, places: NDArray[np.intp]
) -> dict[tuple[str, str], NDArray[np.intp]]:
    """Which rows among these places hold each metric of each kind, in their order."""
    metric, metrics = pd.factorize(metric_names)
    both = (kind * len(metrics) + metric)[places]
    size = len(kinds) * len(metrics)
    if size <= np.iinfo(np.uint16).max:
        both = both.astype(np.uint16)  # sorted by radix
    ordered = places[np.argsort(both, kind="stable")]
    ends = np.cumsum(np.bincount(both, minlength=size))
    parts = np.split(ordered, ends[:-1]) if size else []
    names = ((str(one), str(of)) for of in kinds for one in metrics)
    return {name: part for name, part in zip(names, parts, strict=True) if part.size}


def _units_seen(rows: pd.DataFrame, periods: pd.DataFrame | None) -> tuple[AssignedUnit, ...]:
    """The hosts that were measured, or should have been, where the plan names none."""
    wanted = [name for name in ("host", "arm", "stratum") if name in rows.columns]
    seen = rows.loc[rows["kind"] == "measure", wanted]
    if periods is not None:
        begun = periods[(periods["kind"] == "measure") & (periods["state"] != "planned")]
        seen = pd.concat((seen, begun[[name for name in wanted if name in begun.columns]]), ignore_index=True)
    measured = seen.drop_duplicates(["host", "arm"]).sort_values("host")
    if (twice := measured["host"].duplicated()).any():
        raise BadObservations(
            f"host {measured[twice]['host'].iloc[0]!r} was measured under two arms",
            "observations",
            "name the units' arms in the plan; a host that changes arms is a switchback",
        )
    strata = measured["stratum"].fillna("all") if "stratum" in measured.columns else ["all"] * len(measured)
    return tuple(
        AssignedUnit(host=str(host), stratum=str(stratum), arm=str(arm))
        for host, stratum, arm in zip(measured["host"], strata, measured["arm"], strict=True)
    )


def _due(
    units: tuple[AssignedUnit, ...], reporting: frozenset[str], plan: AnalysisPlan, periods: pd.DataFrame | None
) -> frozenset[str]:
    """Hosts whose measurement should be in: those of the stages reached, at an early look less those still at it."""
    reached = max((unit.stage for unit in units if unit.host in reporting), default=None)
    due = frozenset(unit.host for unit in units if reached is None or unit.stage <= reached)
    early = plan.unplanned_look or plan.look < len(plan.information_fractions) - 1
    if not early or periods is None:
        return due
    measuring = periods[(periods["kind"] == "measure") & periods["state"].isin(["planned", "running"])]
    return due - frozenset(measuring["host"].astype(str))
