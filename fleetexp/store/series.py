"""Metrics over time: means over the hosts of each arm in stretches of time, computed by the database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, text

from agents.catalogue import MetricKind, describe, find_derived, is_known
from agents.catalogue.derived import Terms
from fleetexp.domain import Origin
from fleetexp.store.tables import METRIC_COLUMNS, column_of

STRETCHES = 60

_SECONDS = {
    "sqlite": "(julianday({at}) - julianday({start})) * 86400.0",
    "postgresql": "CAST(extract(epoch FROM {at} - {start}) AS DOUBLE PRECISION)",
}
_EXTRA = {
    "sqlite": "CAST(s.extra ->> '$.\"{name}\"' AS REAL)",
    "postgresql": "CAST(s.extra ->> '{name}' AS DOUBLE PRECISION)",
}


def series(
    connection: Connection, run_id: int, metric: str, *, counter: bool = False
) -> list[tuple[str, float, float]]:
    """Return (arm, seconds since the run's start, mean over the arm's hosts) in order; [] where nothing was read.

    A counter is a rate per second within each stretch; a ratio of counters is the ratio of what they rose by.
    `counter`: it is one, though the catalogue doesn't know it.
    """
    if not metric.replace("_", "").isalnum():
        return []
    for inner in (
        _of_samples(connection.dialect.name, metric, counter),
        _of_measurements(metric),
        _of_sums(metric),
    ):
        rows = connection.execute(text(_over_hosts(inner, connection.dialect.name)), {"run": run_id}).all()
        found = [(str(arm), float(second), float(mean)) for arm, second, mean in rows if mean is not None]
        if found:
            return found
    return []


def _over_hosts(inner: str, dialect: str) -> str:
    """Cut the time from the first to the last reading into stretches, then average over hosts."""
    whole = _SECONDS[dialect].format(at="max(coalesce(p.ended_at, p.started_at))", start="min(p.started_at)")
    since = _SECONDS[dialect].format(at="s.taken_at", start="w.start")
    return f"""WITH w AS (
  SELECT min(p.started_at) AS start, {whole} AS seconds
  FROM period p WHERE p.run_id = :run AND p.started_at IS NOT NULL AND p.state <> 'invalid'
), read AS ({inner.replace("<seconds>", since)})
SELECT arm, (stretch + 0.5) * max(w.seconds) / {STRETCHES} AS second, avg(value) AS mean
FROM read CROSS JOIN w WHERE value IS NOT NULL GROUP BY arm, stretch ORDER BY arm, stretch"""


def _source(table: str) -> str:
    return f"""{table} s JOIN period p ON p.period_id = s.period_id
  JOIN assignment a ON a.run_id = p.run_id AND a.host_id = p.host_id CROSS JOIN w
  WHERE p.run_id = :run AND p.state <> 'invalid' AND p.kind <> 'washout'"""


def _stretch() -> str:
    return f"CAST(floor({STRETCHES} * <seconds> / nullif(w.seconds * 1.000001, 0)) AS INTEGER)"


def _of_measurements(metric: str) -> str:
    return f"""SELECT coalesce(a.arm, p.arm) AS arm, p.period_id, {_stretch()} AS stretch, avg(s.value) AS value
  FROM {_source("measurement")} AND s.metric = '{metric}' GROUP BY coalesce(a.arm, p.arm), p.period_id, 3"""


def _of_sums(metric: str) -> str:
    """What an import keeps: a sum a period, which stands where the period begins."""
    return f"""SELECT coalesce(a.arm, p.arm) AS arm, p.period_id, {_stretch()} AS stretch, s.mean AS value
  FROM (SELECT o.period_id, o.mean, q.started_at AS taken_at FROM observation o
    JOIN period q ON q.period_id = o.period_id JOIN run r ON r.run_id = q.run_id
    WHERE r.run_id = :run AND r.origin = '{Origin.IMPORT.value}' AND q.started_at IS NOT NULL
      AND o.metric = '{metric}') {_source("").lstrip()}"""


def _of_samples(dialect: str, metric: str, counter: bool) -> str:
    value = _value(dialect, metric, counter)
    return f"""SELECT coalesce(a.arm, p.arm) AS arm, p.period_id, {_stretch()} AS stretch, {value} AS value
  FROM {_source("sample")} GROUP BY coalesce(a.arm, p.arm), p.period_id, 3"""


def _value(dialect: str, metric: str, counter: bool) -> str:
    """What the samples of one period in one stretch come to."""
    derived = find_derived(metric)
    if derived is not None:
        top, bottom = _sum(dialect, derived.numerator), _sum(dialect, derived.denominator)
        if derived.kind is MetricKind.COUNTER:
            whole = _rise(top) if not derived.denominator else f"{_rise(top)} / nullif({_rise(bottom)}, 0)"
            if derived.per:
                factor = [_rise(_sum(dialect, terms)) for terms in (derived.times, derived.per)]
                whole = f"{whole} * {factor[0]} / nullif({factor[1]}, 0)"
            return f"({whole}) * {derived.scale!r}"
        whole = top if not derived.denominator else f"({top}) / nullif({bottom}, 0)"
        return f"avg({whole}) * {derived.scale!r}"
    column = _column(dialect, metric)
    if counter or (is_known(metric) and describe(metric).kind is MetricKind.COUNTER):
        return f"({_rise(column)}) / nullif(max(s.boottime_seconds) - min(s.boottime_seconds), 0)"
    return f"avg({column})"


def _rise(expression: str) -> str:
    return f"(max({expression}) - min({expression}))"


def _sum(dialect: str, terms: Terms) -> str:
    return " + ".join(f"{weight!r} * {_column(dialect, name)}" for name, weight in terms)


def _column(dialect: str, metric: str) -> str:
    columns: Sequence[str] = METRIC_COLUMNS
    return f"s.{column_of(metric)}" if metric in columns else _EXTRA[dialect].format(name=metric)
