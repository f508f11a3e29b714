"""The views: one for each question people ask of a store, with the same columns on SQLite and PostgreSQL.

They hold no data, so migrations need not keep their history: they are made anew after the last step.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view: its question, its columns in order (name -> meaning with unit), and the SELECT.

    In `sql`, `<seconds:a:b>` stands for the seconds from instant a to instant b, `<period columns>` and
    `<period tables>` for what every view of periods has.
    """

    name: str
    question: str
    columns: Mapping[str, str]
    sql: str


_OF_RUN = {"run_id": "number of the run", "experiment": "name of the experiment"}
_OF_PERIOD = {
    **_OF_RUN,
    "period_id": "number of the period",
    "host": "name of the host",
    "stratum": "what the randomisation kept together",
    "arm": "the arm whose knobs held",
    "kind": "baseline, washout or measure",
    "stage": "stage of the ramp, from 0",
    "block": "pair or set of arms, from 0; -1 outside any",
    "attempt": "how often the block had been tried before",
    "position": "place in the host's schedule, from 0",
    "state": "planned, running, complete or invalid",
}
_PERIOD_COLUMNS = (
    "r.run_id, e.name AS experiment, p.period_id, h.name AS host, a.stratum, p.arm, p.kind, p.stage, p.block, "
    "p.attempt, p.position, p.state"
)
_PERIOD_TABLES = """period p
JOIN run r ON r.run_id = p.run_id
JOIN experiment e ON e.experiment_id = r.experiment_id
JOIN host h ON h.host_id = p.host_id
JOIN assignment a ON a.run_id = p.run_id AND a.host_id = p.host_id"""

_RUN_SUMMARY = View(
    name="run_summary",
    question="Which runs were there, how did each end, and what was decided?",
    columns={
        **_OF_RUN,
        "hypothesis": "what the experimenter expected",
        "design": "switchback or parallel",
        "control_arm": "the arm that the others are compared with",
        "state": "where the run is or how it ended",
        "reason": "why it is in this state",
        "decision": "ship, do not ship, inconclusive; NULL before the analysis",
        "decision_reason": "the decision's reason in one sentence",
        "hosts": "hosts assigned, count",
        "periods": "periods planned, repeats included, count",
        "periods_complete": "periods measured whole, count",
        "periods_invalid": "periods not to be used, count",
        "knob_writes": "writes to kernel settings, count",
        "fleet": "kind of fleet",
        "launched_by": "user@host pid of the orchestrator",
        "created_at": "when it was entered, UTC",
        "started_at": "when it first ran, UTC",
        "ended_at": "when it ended, UTC",
        "seconds": "from start to end, seconds; NULL while it goes on",
    },
    sql="""SELECT r.run_id, e.name AS experiment, e.hypothesis, r.design, r.control_arm, r.state, r.reason,
  r.decision, r.decision_reason,
  (SELECT count(*) FROM assignment a WHERE a.run_id = r.run_id) AS hosts,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id) AS periods,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id AND p.state = 'complete') AS periods_complete,
  (SELECT count(*) FROM period p WHERE p.run_id = r.run_id AND p.state = 'invalid') AS periods_invalid,
  (SELECT count(*) FROM knob_change k WHERE k.run_id = r.run_id) AS knob_writes,
  r.fleet, r.launched_by, r.created_at, r.started_at, r.ended_at, <seconds:r.started_at:r.ended_at> AS seconds
FROM run r JOIN experiment e ON e.experiment_id = r.experiment_id""",
)

_PERIOD_METRICS = View(
    name="period_metrics",
    question="What did each metric come to in each period?",
    columns={
        **_OF_PERIOD,
        "reason": "why the period is invalid",
        "started_at": "when sampling began, UTC",
        "seconds": "how long it was sampled, seconds",
        "metric": "name of the metric",
        "n": "readings summarised, count",
        "mean": "mean, in the metric's unit; of a counter, per second",
        "variance": "variance of the readings, unit squared",
        "minimum": "smallest reading, unit as the mean",
        "maximum": "largest reading, unit as the mean",
        "p50": "median, unit as the mean",
        "p99": "99th percentile, unit as the mean",
    },
    sql="""SELECT <period columns>, p.reason, p.started_at, <seconds:p.started_at:p.ended_at> AS seconds,
  o.metric, o.n, o.mean, o.variance, o.minimum, o.maximum, o.p50, o.p99
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id""",
)

_EFFECTS = View(
    name="effects",
    question="What did each arm change against the control, and how sure is that?",
    columns={
        **_OF_RUN,
        "metric": "name of the metric",
        "unit": "unit of means and differences",
        "role": "primary, secondary, guardrail, exploratory, exposure or observer",
        "treatment": "the arm",
        "control": "the arm that it is compared with",
        "control_mean": "mean under control, in `unit`",
        "treatment_mean": "mean under the arm, in `unit`",
        "difference": "arm minus control, in `unit`",
        "difference_low": "lower end of its interval, in `unit`; NULL: none or unbounded",
        "difference_high": "upper end of its interval, in `unit`; NULL: none or unbounded",
        "lift_percent": "difference relative to control, percent",
        "lift_low_percent": "lower end of its interval, percent; NULL: none or unbounded",
        "lift_high_percent": "upper end of its interval, percent; NULL: none or unbounded",
        "lift_excludes": "1: the set is what lies outside of the two ends; else 0",
        "p_value": "p-value, two-sided",
        "p_adjusted": "p-value adjusted for the number of metrics",
        "n_control": "units under control, count",
        "n_treatment": "units under the arm, count",
        "method": "how it was estimated",
        "stratum": "stratum; empty for all",
        "headline": "1: the result; 0: a sensitivity or subgroup row",
        "guardrail": "pass, fail or inconclusive where the metric is a guardrail; else NULL",
        "decision": "what was decided for the whole run",
    },
    sql="""SELECT r.run_id, x.name AS experiment, s.metric, s.unit, s.role, s.treatment, s.control, s.control_mean,
  s.treatment_mean, s.difference, s.difference_low, s.difference_high, 100 * s.lift AS lift_percent,
  100 * s.lift_low AS lift_low_percent, 100 * s.lift_high AS lift_high_percent,
  CAST(s.lift_excludes AS INTEGER) AS lift_excludes, s.p_value, s.p_adjusted, s.n_control, s.n_treatment, s.method,
  s.stratum, CAST(s.headline AS INTEGER) AS headline,
  (SELECT min(g.verdict) FROM guardrail_check g
   WHERE g.run_id = s.run_id AND g.metric = s.metric AND g.treatment = s.treatment AND g.stage IS NULL) AS guardrail,
  r.decision
FROM estimate s JOIN run r ON r.run_id = s.run_id JOIN experiment x ON x.experiment_id = r.experiment_id""",
)

_GUARDRAIL_LOOKS = View(
    name="guardrail_looks",
    question="What did each guardrail say, at the end of each stage, at the end, and on which host at once?",
    columns={
        **_OF_RUN,
        "metric": "name of the metric",
        "treatment": "the arm; of a host, the one it had, which may be the control",
        "stage": "the stage at whose end, or in which, from 0; NULL: at the end of the run",
        "look": "which planned look it was, from 0; NULL: at no planned moment",
        "host": "the host that crossed its tripwire; empty: over all hosts",
        "checked_at": "when, UTC",
        "worse": "the direction that hurts: increase or decrease",
        "margin_percent": "largest tolerable change, percent of control; NULL where there is none",
        "tripwire": "absolute limit, in the metric's unit; NULL where there is none",
        "verdict": "pass, fail or inconclusive",
        "reason": "why, in one sentence",
    },
    sql="""SELECT g.run_id, e.name AS experiment, g.metric, g.treatment, g.stage, g.look,
  coalesce(h.name, '') AS host, g.checked_at, g.worse, 100 * g.margin AS margin_percent, g.tripwire, g.verdict,
  g.reason
FROM guardrail_check g
JOIN run r ON r.run_id = g.run_id
JOIN experiment e ON e.experiment_id = r.experiment_id
LEFT JOIN host h ON h.host_id = g.host_id""",
)

_THP_BACKING = View(
    name="thp_backing",
    question="How much anonymous memory did huge pages of each size really back, in each period?",
    columns={
        **_OF_PERIOD,
        "size_kib": "page size, KiB",
        "backed_bytes": "anonymous memory in pages of this size, mean, bytes",
        "backed_bytes_minimum": "the least seen, bytes",
        "backed_bytes_maximum": "the most seen, bytes",
        "anon_bytes": "all anonymous memory, mean, bytes; NULL where it was not read",
        "backed_share": "backed_bytes over anon_bytes, ratio",
    },
    sql="""SELECT <period columns>,
  CAST(replace(replace(o.metric, 'thp_', ''), 'kB_backed_bytes', '') AS BIGINT) AS size_kib,
  o.mean AS backed_bytes, o.minimum AS backed_bytes_minimum, o.maximum AS backed_bytes_maximum,
  m.mean AS anon_bytes, o.mean / nullif(m.mean, 0) AS backed_share
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND o.metric LIKE 'thp~_%kB~_backed~_bytes' ESCAPE '~'
LEFT JOIN observation m ON m.period_id = p.period_id AND m.metric = 'anon_bytes'""",
)

_SPLIT_RATES = View(
    name="split_rates",
    question="How often were huge pages split, of which size, in each period?",
    columns={
        **_OF_PERIOD,
        "metric": "the kernel's counter",
        "size_kib": "page size, KiB; NULL for a counter over all sizes",
        "splits_per_second": "splits a second over the period",
        "splits": "splits in the period, count",
        "backed_bytes": "memory in pages of that size meanwhile, mean, bytes; NULL for a counter over all sizes",
    },
    sql="""SELECT <period columns>, o.metric,
  CASE WHEN o.metric LIKE 'thp~_%kB~_split%' ESCAPE '~'
    THEN CAST(replace(replace(replace(o.metric, 'thp_', ''), 'kB_split_failed', ''), 'kB_split', '') AS BIGINT)
    END AS size_kib,
  o.mean AS splits_per_second,
  o.mean * <seconds:p.started_at:p.ended_at> AS splits,
  b.mean AS backed_bytes
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND (
  o.metric IN ('thp_split_page', 'thp_split_page_failed', 'thp_split_pmd', 'thp_split_pud')
  OR o.metric LIKE 'thp~_%kB~_split' ESCAPE '~' OR o.metric LIKE 'thp~_%kB~_split~_failed' ESCAPE '~')
LEFT JOIN observation b ON b.period_id = p.period_id
  AND b.metric = replace(replace(o.metric, '_split_failed', '_split'), 'kB_split', 'kB_backed_bytes')
  AND b.metric <> o.metric""",
)

_KNOB_AUDIT = View(
    name="knob_audit",
    question="What was written to which kernel setting, and was each put back as it was found?",
    columns={
        **_OF_RUN,
        "host": "name of the host",
        "knob": "name of the setting",
        "changed_at": "when it was written, UTC",
        "reason": "apply, revert, reapply, guardian or restore",
        "before": "what was read before the write",
        "wanted": "what was written",
        "after": "what was read back",
        "error": "why the write failed; NULL where it did not",
        "found": "what the setting held before the run's first write to it on this host",
        "last": "what it held after the run's last write to it on this host",
        "restored": "yes where last equals found, else no",
    },
    sql="""SELECT w.run_id, w.experiment, w.host, w.knob, w.changed_at, w.reason, w.before, w.wanted, w.after, w.error,
  w.found, w.last, CASE WHEN w.last = w.found THEN 'yes' ELSE 'no' END AS restored
FROM (
  SELECT k.run_id, e.name AS experiment, h.name AS host, k.knob, k.changed_at, k.reason, k.before, k.wanted, k.after,
    k.error,
    first_value(k.before) OVER (PARTITION BY k.run_id, k.host_id, k.knob
      ORDER BY k.changed_at, k.knob_change_id) AS found,
    first_value(k.after) OVER (PARTITION BY k.run_id, k.host_id, k.knob
      ORDER BY k.changed_at DESC, k.knob_change_id DESC) AS last
  FROM knob_change k
  JOIN host h ON h.host_id = k.host_id
  JOIN run r ON r.run_id = k.run_id
  JOIN experiment e ON e.experiment_id = r.experiment_id
) w""",
)

_HOST_TIMELINE = View(
    name="host_timeline",
    question="What happened on a host, in the order of time?",
    columns={
        **_OF_RUN,
        "host": "name of the host; empty for what concerns the whole run",
        "at": "when, UTC",
        "what": "period started, period ended, knob written, or the kind of an event",
        "detail": "the particulars, in words",
        "period_id": "the period that it belongs to; NULL outside any",
    },
    sql="""SELECT t.run_id, e.name AS experiment, coalesce(h.name, '') AS host, t.at, t.what, t.detail, t.period_id
FROM (
  SELECT run_id, host_id, started_at AS at, 'period started' AS what,
    arm || ', ' || kind || CASE WHEN block >= 0 THEN ', block ' || CAST(block AS TEXT) ELSE '' END AS detail, period_id
  FROM period WHERE started_at IS NOT NULL
  UNION ALL
  SELECT run_id, host_id, ended_at, 'period ended',
    arm || ', ' || kind || ', ' || state || CASE WHEN reason <> '' THEN ': ' || reason ELSE '' END, period_id
  FROM period WHERE ended_at IS NOT NULL
  UNION ALL
  SELECT run_id, host_id, changed_at, 'knob written',
    knob || ': ' || before || ' -> ' || after || ' (' || reason || ')' || coalesce(', failed: ' || error, ''), NULL
  FROM knob_change
  UNION ALL
  SELECT run_id, host_id, at, kind, detail, period_id FROM event
) t
JOIN run r ON r.run_id = t.run_id
JOIN experiment e ON e.experiment_id = r.experiment_id
LEFT JOIN host h ON h.host_id = t.host_id""",
)

VIEWS: tuple[View, ...] = (
    _RUN_SUMMARY,
    _PERIOD_METRICS,
    _EFFECTS,
    _GUARDRAIL_LOOKS,
    _THP_BACKING,
    _SPLIT_RATES,
    _KNOB_AUDIT,
    _HOST_TIMELINE,
)

_SECONDS = re.compile(r"<seconds:([\w.]+):([\w.]+)>")
_SECONDS_IN = {
    "sqlite": r"round((julianday(\2) - julianday(\1)) * 86400.0, 3)",  # SQLite computes dates in milliseconds
    "postgresql": r"CAST(extract(epoch FROM \2 - \1) AS DOUBLE PRECISION)",
}


def view_sql(dialect: str) -> dict[str, str]:
    """Return the SELECT of each view in a dialect ('sqlite' or 'postgresql'), in an order in which they can be made."""
    selects = {}
    for view in VIEWS:
        whole = view.sql.replace("<period columns>", _PERIOD_COLUMNS).replace("<period tables>", _PERIOD_TABLES)
        selects[view.name] = _SECONDS.sub(_SECONDS_IN[dialect], whole)
    return selects
