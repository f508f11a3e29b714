"""Observations of a parallel design to one number per host and metric: all that the arms are compared by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import BadObservations
from analysis.frame import measurable
from analysis.plan import AnalysisPlan, AssignedUnit, MetricPlan

_Floats = NDArray[np.float64]
FLEET_RATIO = "fleet ratio"


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
    """Observations by host, looked up by metric; only the units of the plan (or those seen, where it names none)."""

    def __init__(self, rows: pd.DataFrame, plan: AnalysisPlan, periods: pd.DataFrame | None = None) -> None:
        self.units: tuple[AssignedUnit, ...] = plan.units or _units_seen(rows, periods)
        self._control = plan.control
        self._by_host = {unit.host: unit for unit in self.units}
        if len(self._by_host) != len(self.units):
            raise BadObservations("a host is assigned twice", "plan.units", "name every unit once")
        relevant = rows[rows["kind"].isin(["measure", "baseline"]) & rows["host"].isin(list(self._by_host))]
        attempts = relevant.groupby(["host", "kind", "block"])["attempt"].transform("max")
        kept = relevant[relevant["attempt"] == attempts]
        self._of = {
            (str(metric), str(kind)): part for (metric, kind), part in kept.groupby(["metric", "kind"], observed=True)
        }
        self.reporting = frozenset(kept.loc[kept["kind"] == "measure", "host"].astype(str))
        self._measured_under = _measured_under(kept)
        self.misplaced = tuple(
            sorted(host for host, arm in self._measured_under.items() if self._by_host[host].arm != arm)
        )
        self._begun = _begun(kept, periods)
        self._due = self.reporting | _due(self.units, self.reporting, plan, periods)

    def two_arms(self, metric: MetricPlan, treatment: str, control: str | None = None) -> TwoArms:
        """Gather the hosts of two arms that have the metric, in the order of their names."""
        top = self.values(metric.name, metric.statistic, "measure")
        bottom = None if metric.denominator is None else self.values(metric.denominator, "mean", "measure")
        y = top if bottom is None else (top / bottom).where(bottom > 0).dropna()
        control = control or self._control
        wanted = (control, treatment)
        hosts = sorted(host for host in y.index if self._by_host[host].arm in wanted)
        units = [self._by_host[host] for host in hosts]
        before = self.before(metric)
        return TwoArms(
            control=control,
            treatment=treatment,
            hosts=np.array(hosts, dtype=np.str_),
            treated=np.array([unit.arm == treatment for unit in units], dtype=np.bool_),
            strata=np.array([unit.stratum for unit in units], dtype=np.str_),
            y=y.reindex(hosts).to_numpy(dtype=np.float64),
            before=before.reindex(hosts).to_numpy(dtype=np.float64),
            numerator=top.reindex(hosts).to_numpy(dtype=np.float64),
            denominator=np.ones(len(hosts)) if bottom is None else bottom.reindex(hosts).to_numpy(dtype=np.float64),
        )

    def values(self, metric: str, statistic: str, kind: str) -> pd.Series:
        """One value per host: its periods of that kind, weighed by their seconds."""
        part = self._of.get((metric, kind))
        if part is None:
            return pd.Series(dtype=np.float64)
        if statistic not in part.columns:
            raise BadObservations(f"observations lack {statistic}", f"metric {metric}", "use 'mean', or add the column")
        part = part[measurable(part[statistic].to_numpy(dtype=np.float64))]
        if not part["host"].duplicated().any():
            return pd.Series(part[statistic].to_numpy(dtype=np.float64), index=part["host"].astype(str))
        share = part["seconds"] / part["seconds"].max()  # equal periods weigh exactly 1: no rounding comes in
        weighed = pd.DataFrame({"host": part["host"].astype(str), "sum": part[statistic] * share, "share": share})
        sums = weighed.groupby("host")[["sum", "share"]].sum()
        return sums["sum"] / sums["share"]

    def before(self, metric: MetricPlan) -> pd.Series:
        """One value per host before the arms differed."""
        top = self.values(metric.name, metric.statistic, "baseline")
        if metric.denominator is None:
            return top
        bottom = self.values(metric.denominator, "mean", "baseline")
        return (top / bottom).where(bottom > 0).dropna()

    def assigned(self, arm: str) -> int:
        """Hosts of an arm that should have reported by now."""
        return sum(unit.arm == arm and unit.host in self._due for unit in self.units)

    def lost(self, arm: str) -> int:
        """Those of them without one complete measured period."""
        return sum(unit.arm == arm and unit.host in self._due - self.reporting for unit in self.units)

    def due_hosts(self, arm: str) -> list[str]:
        """Hosts of an arm that should have reported by now, in the order of their names."""
        return sorted(unit.host for unit in self.units if unit.arm == arm and unit.host in self._due)

    def shares(self, metric: MetricPlan) -> pd.Series:
        """Share of each host's begun measure periods that are whole and have the metric; without any it is absent."""
        parts = [self._of.get((name, "measure")) for name in (metric.name, metric.denominator) if name is not None]
        if any(part is None for part in parts):
            return pd.Series(dtype=np.float64)
        have = None
        for part, column in zip(parts, (metric.statistic, "mean"), strict=False):
            assert part is not None  # noqa: S101 - looked at above
            known = part[measurable(part[column].to_numpy(dtype=np.float64))]
            if column == "mean" and metric.denominator is not None and part is parts[-1]:
                known = known[known["mean"] > 0]
            ids = frozenset(known["period_id"])
            have = ids if have is None else have & ids
        first = parts[0]
        assert first is not None and have is not None  # noqa: S101
        whole = first[first["period_id"].isin(list(have))].groupby("host")["period_id"].nunique()
        begun = self._begun.reindex(whole.index)
        share = (whole / begun).fillna(1.0).clip(upper=1.0)
        share.index = share.index.astype(str)
        return share

    def counts(self, arms: Sequence[str]) -> dict[str, tuple[list[int], Sequence[str]]]:
        """Reporting hosts per arm that was read back: of the whole ('') and of each stratum and stage."""
        reporting = [
            replace(unit, arm=self._measured_under.get(unit.host, unit.arm))
            for unit in self.units
            if unit.host in self.reporting
        ]
        parts: dict[str, list[AssignedUnit]] = {"": reporting}
        strata, stages = {unit.stratum for unit in self.units}, {unit.stage for unit in self.units}
        if len(strata) > 1:
            parts |= {f"stratum {name}": [u for u in reporting if u.stratum == name] for name in sorted(strata)}
        if len(stages) > 1:
            parts |= {f"stage {number}": [u for u in reporting if u.stage == number] for number in sorted(stages)}
        return {name: ([sum(u.arm == arm for u in units) for arm in arms], arms) for name, units in parts.items()}


def _units_seen(rows: pd.DataFrame, periods: pd.DataFrame | None) -> tuple[AssignedUnit, ...]:
    """The hosts that were measured, or should have been, where the plan names none."""
    columns = [name for name in ("host", "arm", "stratum") if name in rows.columns]
    seen = rows.loc[rows["kind"] == "measure", columns]
    if periods is not None:
        due = periods.loc[(periods["kind"] == "measure") & (periods["state"] != "planned")]
        seen = pd.concat((seen, due[[name for name in columns if name in due.columns]]), ignore_index=True)
    measured = seen.assign(host=seen["host"].astype(str)).drop_duplicates(["host", "arm"]).sort_values("host")
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


def _begun(kept: pd.DataFrame, periods: pd.DataFrame | None) -> pd.Series:
    """Count each host's measure periods that began and should have become whole, repeated ones each time."""
    measured = kept[kept["kind"] == "measure"].drop_duplicates("period_id")
    if periods is None:  # an attempt's number says how often it was tried before
        tried = (
            measured.groupby(["host", "block"])["attempt"].max()
            + measured.groupby(["host", "block"])["period_id"].nunique()
        )
        return tried.groupby("host").sum()
    begun = periods[(periods["kind"] == "measure") & ~periods["state"].isin(["planned", "running"])]
    if "broken_by" in begun.columns:
        begun = begun[~begun["broken_by"].isin(["run", "block"])]
    return begun.groupby(begun["host"].astype(str))["period_id"].nunique()


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


def _measured_under(rows: pd.DataFrame) -> dict[str, str]:
    """The arm that each host was last measured under."""
    seen = rows[rows["kind"] == "measure"].sort_values("position", kind="stable").drop_duplicates("host", keep="last")
    return dict(zip(seen["host"].astype(str), seen["arm"].astype(str), strict=True))
