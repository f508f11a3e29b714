"""From a frame of measurements to one panel a metric: who was changed when, in which of the periods."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.errors import BadObservations
from analysis.odd_series import refuse_unit_jump, rising_warnings, unmeasured_warnings
from analysis.plain_columns import first, numbers_of, with_names
from analysis.retrospective.panel import Panel

_Clock = tuple[NDArray[np.datetime64], NDArray[np.datetime64]]  # when each period began, and when it ended
NEEDED = ("host", "period", "metric", "value", "treated_from")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panels:
    """One panel a metric, of the same hosts and periods; `warnings` say what was left out, or is not as it seems."""

    by_metric: dict[str, Panel]
    hosts: tuple[str, ...]
    periods: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def panels_of(frame: pd.DataFrame) -> Panels:
    """Read a frame of host, period (whole numbers), metric, value and treated_from: one row a host, period and metric.

    `treated_from` is missing for hosts that were never changed; else it is the period, or the instant (then the
    periods' `started_at` says when each began, and `ended_at` when it ended, where the next one does not), of the
    change. Values of a host from then until `settled_from`, where that is given, are left out. Raises BadObservations
    with the column, the row and the remedy.
    """
    if missing := [name for name in NEEDED if name not in frame.columns]:
        raise BadObservations(
            f"the frame has no column {missing[0]!r}",
            f"frame, columns {', '.join(map(str, frame.columns))}",
            f"{', '.join(NEEDED)} are needed; treated_from is missing (None) for hosts that were never changed",
        )
    if frame.empty:
        raise BadObservations("the frame has no rows", "frame", "give one row a host, period and metric")
    rows = with_names(frame.reset_index(drop=True), ("host", "metric"))
    rows = rows.assign(
        period=_whole(rows["period"]),
        value=_number(rows["value"], "value"),
    )
    if (twice := rows.duplicated(["host", "period", "metric"])).any():
        row = first(twice)
        raise BadObservations(
            f"host {rows['host'][row]!r} has two values of {rows['metric'][row]!r} in period {rows['period'][row]}",
            f"frame, row {row}",
            "sum them up to one a period, or drop the copy",
        )
    periods = np.unique(rows["period"].to_numpy())
    clock = _clock(rows, periods)
    starts, said = _starts(rows, periods, clock)
    said.extend(unmeasured_warnings(*(at.astype(np.int64) for at in clock)) if clock is not None else ())
    later = _settled(rows, starts, clock)
    every = starts.index[starts.to_numpy() == 0]
    if len(every):
        said.append(f"left out, changed before the first period: {_listed(list(every))}")
    kept = starts[starts.to_numpy() > 0]
    if kept.empty:
        raise BadObservations(
            "every host was changed before the first period", "frame, column treated_from", "give the time before too"
        )
    panels = {}
    start = kept.to_numpy().astype(np.int64)
    settled = later.reindex(kept.index).to_numpy().astype(np.int64)
    hosts = tuple(map(str, kept.index))
    labels = _labels(rows, periods)
    for metric, mine in rows.groupby("metric", sort=False):
        matrix = mine.pivot(index="host", columns="period", values="value")
        values = matrix.reindex(index=kept.index, columns=periods).to_numpy(dtype=np.float64, copy=True)
        refuse_unit_jump(str(metric), values, hosts, labels, "frame, column value")
        panel = Panel(values=values, start=start, settled=settled)
        values[panel.settling] = np.nan
        panels[str(metric)] = panel
    said.extend(rising_warnings((metric, panel.values) for metric, panel in panels.items()))
    return Panels(
        by_metric=panels,
        hosts=hosts,
        periods=labels,
        warnings=tuple(said),
    )


def _starts(rows: pd.DataFrame, periods: NDArray[np.int64], clock: _Clock | None) -> tuple[pd.Series[int], list[str]]:
    """Each host's first period under the change, counted from 0; the number of periods for never."""
    told = rows.groupby("host")["treated_from"]
    if (unlike := told.nunique(dropna=False) > 1).any():
        raise BadObservations(
            f"host {unlike.idxmax()!r} was changed at two times",
            "frame, column treated_from",
            "say one time a host, in each of its rows; hosts that were changed back are not analysed here",
        )
    when = told.first()
    never = when.isna()
    said: list[str] = []
    if never.all():
        raise BadObservations("no host was changed", "frame, column treated_from", "say when each changed host was")
    if _are_times(when[~never]):
        began, ended = _given(clock)
        at = pd.to_datetime(when[~never], utc=True).to_numpy(dtype="datetime64[ns]")
        place = np.searchsorted(began, at, side="left")  # the first period that began at the change or after
        inside = (place > 0) & (at != began[np.minimum(place, began.size - 1)]) & (at < ended[place - 1])
        place = np.where(inside, place - 1, place)
        if inside.any():
            said.append(
                f"{int(inside.sum())} hosts were changed in the middle of a period, which counts as changed: "
                "the effect in it is smaller than it was"
            )
    else:
        at_period = _number(when[~never], "treated_from").to_numpy()
        place = np.searchsorted(periods, at_period, side="left")
    out = pd.Series(periods.size, index=when.index, dtype=np.int64)
    out[~never] = place
    late = int((place >= periods.size).sum())
    if late:
        said.append(f"{late} hosts were changed after the last period: they count as not changed")
    return out, said


def _settled(rows: pd.DataFrame, starts: pd.Series[int], clock: _Clock | None) -> pd.Series[int]:
    """Each host's first period that counts after its start, counted from 0; the start itself where none is said."""
    if "settled_from" not in rows:
        return starts
    at = pd.to_datetime(rows.groupby("host")["settled_from"].first().reindex(starts.index), utc=True)
    place = np.searchsorted(_given(clock)[0], at.to_numpy(dtype="datetime64[ns]"), side="left")
    later = np.where(at.isna(), starts, np.maximum(starts, place))
    return pd.Series(later, index=starts.index, dtype=np.int64)


def _clock(rows: pd.DataFrame, periods: NDArray[np.int64]) -> _Clock | None:
    """When each period began, and when it ended: after as long as one usually is, where nothing says it; None: not."""
    if "started_at" not in rows or rows["started_at"].isna().all():
        return None
    began = _by_period(rows, "started_at", periods)
    if np.isnat(began).any() or (np.diff(began) <= np.timedelta64(0)).any():
        raise BadObservations(
            "periods are not in the order in which they began",
            "frame, columns period and started_at",
            "number the periods in the order of time, and give each its start",
        )
    if "ended_at" in rows:
        return began, _by_period(rows, "ended_at", periods)
    length = np.median(np.diff(began).astype(np.int64)) if began.size > 1 else 0
    return began, np.append(began[1:], began[-1] + np.timedelta64(int(length), "ns"))


def _by_period(rows: pd.DataFrame, name: str, periods: NDArray[np.int64]) -> NDArray[np.datetime64]:
    times = pd.to_datetime(rows[name], utc=True).groupby(rows["period"])
    return times.min().reindex(periods).to_numpy(dtype="datetime64[ns]")


def _given(clock: _Clock | None) -> _Clock:
    if clock is None:
        raise BadObservations(
            "treated_from is an instant, and nothing says when periods began",
            "frame, column treated_from",
            "add a column started_at, or give the period's number",
        )
    return clock


def _are_times(values: pd.Series[Any]) -> bool:
    """Whether instants were given: times, or text that reads as such; numbers are periods."""
    if pd.api.types.is_datetime64_any_dtype(values):
        return True
    if pd.api.types.is_numeric_dtype(values) or pd.to_numeric(values, errors="coerce").notna().all():
        return False
    if pd.to_datetime(values, errors="coerce", utc=True, format="ISO8601").isna().any():
        raise BadObservations(
            f"{values.iloc[0]!r} is neither a period nor an instant",
            "frame, column treated_from",
            "give the number of the period, or a time like 2026-11-26T09:00:00Z; None for never",
        )
    return True


def _whole(column: pd.Series[Any]) -> pd.Series[int]:
    numbers = _number(column, "period")
    if (broken := ~(numbers % 1 == 0)).any():
        row = first(broken)
        raise BadObservations(
            f"{column[row]!r} is not the number of a period",
            f"frame, column period, row {row}",
            "number the periods in the order of time: 0, 1, 2",
        )
    return numbers.astype(np.int64)


def _number(column: pd.Series[Any], name: str) -> pd.Series[float]:
    return numbers_of(column, name, "give numbers, or NaN for none", finite=True)


def _labels(rows: pd.DataFrame, periods: NDArray[np.int64]) -> tuple[str, ...]:
    if "started_at" not in rows or rows["started_at"].isna().all():
        return tuple(str(period) for period in periods)
    began = pd.to_datetime(rows["started_at"], utc=True).groupby(rows["period"]).min().reindex(periods)
    return tuple(f"{period} ({at:%Y-%m-%d %H:%M})" for period, at in zip(periods, began, strict=True))


def _listed(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
