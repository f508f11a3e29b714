"""The queries behind a report's numbers: what the report reads is what its appendix prints, on both databases alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.traced_calls import COUNTED_AS
from analysis.results import EstimateKind

_USED = "kind = 'measure' AND state = 'complete'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """A range of a circumstance: from `least` on, and below `most`; `last`: up to it."""

    least: float
    most: float
    last: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstance:
    """What may decide whether a big page is to be had: a metric of the host, or ('' as metric) its uptime."""

    name: str
    metric: str
    unit: str


CIRCUMSTANCES = (
    Circumstance(name="free memory", metric="memory_free_bytes", unit="bytes"),
    Circumstance(name="free memory in blocks that hold a huge page", metric="free_huge_bytes", unit="bytes"),
    Circumstance(name="uptime at the start", metric="", unit="seconds"),
)


def effects(run_id: int) -> str:
    return f"""SELECT metric, treatment, unit, control_mean, treatment_mean, lift_percent, lift_low_percent,
  lift_high_percent, difference, difference_low, difference_high, p_value, p_adjusted
FROM effects WHERE run_id = {run_id} AND kind = 'headline' ORDER BY metric, treatment"""


def guardrails(run_id: int) -> str:
    return f"""SELECT g.metric, g.treatment, g.worse, g.margin, g.tripwire, g.verdict, g.reason, s.unit,
  s.lift_percent, s.lift_low_percent, s.lift_high_percent, s.difference, s.difference_low, s.difference_high
FROM guardrail_check g LEFT JOIN effects s ON s.run_id = g.run_id AND s.metric = g.metric
  AND s.treatment = g.treatment AND s.kind = 'headline'
WHERE g.run_id = {run_id} AND g.stage IS NULL AND g.host_id IS NULL ORDER BY g.guardrail_check_id"""


def document(run_id: int, part: str) -> str:
    """The part of the findings that has no rows of its own: 'checks' or 'trades', as JSON."""
    return f"SELECT findings ->> '{part}' AS {part} FROM run WHERE run_id = {run_id}"


def estimates(run_id: int) -> str:
    return f"""SELECT metric, treatment, role, stratum, stage, kind, method, estimand, unit, control_mean,
  treatment_mean, difference, difference_low, difference_high, lift, lift_low, lift_high, level, p_value, p_adjusted,
  n_control, n_treatment
FROM estimate WHERE run_id = {run_id} ORDER BY estimate_id"""


def doses(run_id: int) -> str:
    kinds = ", ".join(f"'{kind.value}'" for kind in (EstimateKind.COMPLIERS, EstimateKind.DOSE_RESPONSE))
    return f"""SELECT s.treatment, s.estimand, s.method, s.unit, s.difference, s.difference_low, s.difference_high,
  s.p_value, (
    SELECT x.difference FROM estimate x WHERE x.run_id = s.run_id AND x.treatment = s.treatment
      AND x.role = 'exposure' AND x.kind = 'headline' ORDER BY x.estimate_id LIMIT 1
  ) AS dose_gained
FROM estimate s
WHERE s.run_id = {run_id} AND s.kind IN ({kinds})
ORDER BY s.estimate_id"""


def estimates_of(run_id: int, *kinds: EstimateKind) -> str:
    """The rows of these kinds: strata, pairs of treatments, what an arm leaves behind, halves of the time."""
    among = ", ".join(f"'{kind.value}'" for kind in kinds)
    return f"""SELECT metric, treatment, control, stratum, unit, control_mean, treatment_mean, lift, lift_low,
  lift_high, difference, difference_low, difference_high, level, p_value, p_adjusted, n_control, n_treatment
FROM estimate WHERE run_id = {run_id} AND kind IN ({among}) ORDER BY estimate_id"""


def exposure(run_id: int, sizes_kib: Iterable[int]) -> str:
    """One row an arm and size: pages given, fallbacks, splits (sums over the periods used), memory backed (mean)."""
    parts = []
    for size in sizes_kib:
        sums = [
            f"sum(CASE WHEN metric = 'thp_{size}kB_{counter}' THEN rise END) AS {name}"
            for counter, name in (
                ("anon_fault_alloc", "faulted"),
                ("anon_fault_fallback", "fallbacks"),
                ("split", "splits"),
            )
        ]
        parts.append(
            f"""  SELECT arm, {size} AS page_size_kib, {sums[0]},
    {sums[1]},
    {sums[2]},
    avg(CASE WHEN metric = 'thp_{size}kB_backed_bytes' THEN mean END) AS backed_bytes
  FROM period_metrics WHERE run_id = {run_id} AND {_USED} GROUP BY arm"""
        )
    return (
        "SELECT arm, page_size_kib, faulted, fallbacks, faulted + fallbacks AS asked,\n"
        "  100 * faulted / nullif(faulted + fallbacks, 0) AS given_percent, splits, backed_bytes\nFROM (\n"
        + "\n  UNION ALL\n".join(parts)
        + "\n) sums ORDER BY arm, page_size_kib"
    )


def measured_seconds(run_id: int) -> str:
    return f"""SELECT arm, sum(seconds) AS seconds FROM (
  SELECT DISTINCT period_id, arm, seconds FROM period_metrics WHERE run_id = {run_id} AND {_USED}
) used GROUP BY arm ORDER BY arm"""


def splits(run_id: int, sizes_kib: Iterable[int]) -> str:
    names = ", ".join(f"'thp_{size}kB_split'" for size in sizes_kib)
    return f"""SELECT arm, metric, seconds, splits, splits / seconds * 3600 AS per_host_and_hour, backed_bytes,
  splits / seconds * 3600 / nullif(backed_bytes / 1073741824.0, 0) AS per_gib_backed
FROM (
  SELECT s.arm, s.metric, sum(s.seconds) AS seconds, sum(s.rise) AS splits, avg(b.mean) AS backed_bytes
  FROM period_metrics s LEFT JOIN period_metrics b ON b.period_id = s.period_id
    AND b.metric = replace(s.metric, '_split', '_backed_bytes')
  WHERE s.run_id = {run_id} AND s.kind = 'measure' AND s.state = 'complete' AND s.metric IN ({names})
  GROUP BY s.arm, s.metric
) sums ORDER BY arm, metric"""


def mapping_splits(run_id: int) -> str:
    names = ", ".join(f"'{metric}'" for metric in COUNTED_AS.values())
    return f"""SELECT arm, metric, sum(rise) AS splits, sum(rise) / sum(seconds) * 3600 AS per_host_and_hour
FROM period_metrics WHERE run_id = {run_id} AND {_USED} AND metric IN ({names})
GROUP BY arm, metric ORDER BY arm, metric"""


def split_causes(run_id: int) -> str:
    return f"""SELECT arm, metric, cause, program, sum(splits) AS splits, sum(splits_timed) AS splits_timed,
  sum(seconds_lost) AS seconds_lost
FROM split_causes WHERE run_id = {run_id} AND {_USED}
GROUP BY arm, metric, cause, program ORDER BY arm, metric, sum(splits) DESC, cause, program"""


def splits_counted(run_id: int) -> str:
    """What the kernel's own counters rose by in the periods in which splits were traced, and what was traced."""
    return f"""SELECT arm, metric, sum(traced) AS traced, sum(counted) AS counted
FROM (
  SELECT arm, metric, period_id, sum(splits) AS traced, max(splits_counted) AS counted
  FROM split_causes WHERE run_id = {run_id} AND {_USED} GROUP BY arm, metric, period_id
) periods GROUP BY arm, metric ORDER BY arm, metric"""


def stalls(run_id: int) -> str:
    return f"""SELECT arm, function, program, sum(calls) AS calls, sum(seconds_lost) AS seconds_lost,
  max(longest_seconds) AS longest_seconds
FROM stalls WHERE run_id = {run_id} AND {_USED}
GROUP BY arm, function, program ORDER BY arm, function, sum(seconds_lost) DESC, program"""


def latencies(run_id: int, metrics: Sequence[str]) -> str:
    names = ", ".join(f"'{name}'" for name in metrics)
    return f"""SELECT metric, arm, sum(n) AS readings, avg(p50) AS p50, avg(p99) AS p99, max(maximum) AS maximum
FROM period_metrics WHERE run_id = {run_id} AND {_USED} AND metric IN ({names})
GROUP BY metric, arm ORDER BY metric, arm"""


def supply(run_id: int) -> str:
    """What workloads say themselves of the big pages that they asked for, and what their host used, by arm."""
    columns = {
        "asked": ("sum", "pages_asked", "n * mean"),
        "given": ("sum", "pages_granted", "n * mean"),
        "p50": ("avg", "fault_latency_seconds", "p50"),
        "p99": ("avg", "fault_latency_seconds", "p99"),
        "maximum": ("max", "fault_latency_seconds", "maximum"),
        "region_seconds": ("avg", "fault_seconds", "mean"),
        "memory_used_bytes": ("avg", "memory_used_bytes", "mean"),
    }
    sums = ",\n  ".join(
        f"{how}(CASE WHEN metric = '{metric}' THEN {value} END) AS {name}"
        for name, (how, metric, value) in columns.items()
    )
    return f"""SELECT arm,
  {sums}
FROM period_metrics WHERE run_id = {run_id} AND {_USED}
GROUP BY arm ORDER BY arm"""


def asked_and_given(run_id: int, size_kib: int, circumstance: Circumstance) -> str:
    """One row a period: its host, big pages asked for, big pages given, and the circumstance."""
    if circumstance.metric:
        value = "m.mean"
        where = f"JOIN period_metrics m ON m.period_id = a.period_id AND m.metric = '{circumstance.metric}'"
    else:
        value = "u.uptime"
        where = """JOIN (
    SELECT f.run_id, h.name AS host, min(CAST(f.facts ->> 'uptime_seconds' AS DOUBLE PRECISION)) AS uptime
    FROM host_facts f JOIN host h ON h.host_id = f.host_id GROUP BY f.run_id, h.name) u
    ON u.run_id = a.run_id AND u.host = a.host"""
    return f"""SELECT a.host, a.period_id, a.rise + f.rise AS asked, a.rise AS given, {value} AS value
  FROM period_metrics a
  JOIN period_metrics f ON f.period_id = a.period_id AND f.metric = 'thp_{size_kib}kB_anon_fault_fallback'
  {where}
  WHERE a.run_id = {run_id} AND a.metric = 'thp_{size_kib}kB_anon_fault_alloc' AND a.kind = 'measure'
    AND a.state = 'complete' AND a.rise + f.rise > 0"""


def success(run_id: int, bands: Sequence[tuple[int, Circumstance, Band]], cluster: str) -> str:
    """One row a band, in the order given: what was asked for and given while the circumstance lay in it.

    `cluster` ('host' or 'period_id') is what goes alike; its sums of squares and products make the interval.
    """
    parts = [
        f"""SELECT {place} AS place, {size} AS page_size_kib, '{what.name}' AS circumstance, {band.least!r} AS least,
  {band.most!r} AS most, sum(periods) AS periods, sum(asked) AS asked, sum(given) AS given,
  100 * sum(given) / sum(asked) AS given_percent, count(*) AS clusters, sum(asked * asked) AS asked_squared,
  sum(given * given) AS given_squared, sum(asked * given) AS product
FROM (
  SELECT {cluster}, count(*) AS periods, sum(asked) AS asked, sum(given) AS given
  FROM ({asked_and_given(run_id, size, what)}) p
  WHERE value >= {band.least!r} AND value {"<=" if band.last else "<"} {band.most!r} GROUP BY {cluster}
) c"""
        for place, (size, what, band) in enumerate(bands)
    ]
    return "\nUNION ALL\n".join(parts) + "\nORDER BY place"


def blocks(run_id: int, metrics: Sequence[str]) -> str:
    names = ", ".join(f"'{name}'" for name in metrics)
    return f"""SELECT metric, host, block, arm, mean, p99 FROM period_metrics
WHERE run_id = {run_id} AND {_USED} AND metric IN ({names}) ORDER BY metric, host, block, arm"""


def stages(run_id: int) -> str:
    return f"""SELECT s.stage, s.hosts, e.at AS opened_at, r.started_at, r.created_at, r.plan ->> 'stages' AS planned
FROM (
  SELECT stage, sum(count(*)) OVER (ORDER BY stage) AS hosts FROM assignment WHERE run_id = {run_id} GROUP BY stage
) s JOIN run r ON r.run_id = {run_id}
LEFT JOIN (
  SELECT stage, min(at) AS at FROM event WHERE run_id = {run_id} AND kind = 'stage_opened' GROUP BY stage
) e ON e.stage = s.stage ORDER BY s.stage"""


def assigned(run_id: int) -> str:
    return f"""SELECT a.stage, a.stratum, coalesce(a.arm, 'every arm in turn') AS arm, count(*) AS hosts,
  count(m.host_id) AS measured
FROM assignment a LEFT JOIN (
  SELECT DISTINCT host_id FROM period WHERE run_id = {run_id} AND {_USED}
) m ON m.host_id = a.host_id
WHERE a.run_id = {run_id} GROUP BY a.stage, a.stratum, a.arm ORDER BY a.stage, a.stratum, a.arm"""


def changes(run_id: int) -> str:
    return f"""SELECT changed_at, host, knob, before, wanted, after, reason, error FROM knob_audit
WHERE run_id = {run_id} ORDER BY changed_at"""


def events(run_id: int) -> str:
    return f"""SELECT e.at, h.name AS host, e.kind, e.detail FROM event e LEFT JOIN host h ON h.host_id = e.host_id
WHERE e.run_id = {run_id} ORDER BY e.at"""


def excluded(run_id: int) -> str:
    return f"""SELECT h.name AS host, p.arm, p.block, p.attempt, p.started_at, p.broken_by, p.reason
FROM period p JOIN host h ON h.host_id = p.host_id
WHERE p.run_id = {run_id} AND p.state = 'invalid' ORDER BY p.period_id"""


def central(run_id: int) -> str:
    return f"""SELECT metric, server, promql, start_at, end_at, step_seconds, outcome, detail, series, sha256
FROM central_answer WHERE run_id = {run_id} AND metric <> '' ORDER BY central_answer_id"""


def central_gaps(run_id: int) -> str:
    return f"""SELECT v.metric, v.gap, count(*) AS periods FROM central_value v
JOIN period p ON p.period_id = v.period_id WHERE p.run_id = {run_id}
GROUP BY v.metric, v.gap ORDER BY v.metric, v.gap"""
