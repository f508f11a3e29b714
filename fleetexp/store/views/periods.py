"""The views of periods: what each was measured to be, and how well it was measured."""

from __future__ import annotations

from fleetexp.store.views.definition import OF_PERIOD, View

PERIOD_METRICS = View(
    name="period_metrics",
    question="What did each metric come to in each period?",
    columns={
        **OF_PERIOD,
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
        "rise": "of a counter: last reading minus first, in the metric's unit; NULL for a gauge",
    },
    sql="""SELECT <period columns>, p.reason, p.started_at, <seconds:p.started_at:p.ended_at> AS seconds,
  o.metric, o.n, o.mean, o.variance, o.minimum, o.maximum, o.p50, o.p99, o.rise
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id""",
)

PERIOD_QUALITY = View(
    name="period_quality",
    question="Which periods may be used and which not, why, and was each sampled as planned?",
    columns={
        **OF_PERIOD,
        "reason": "why the period is invalid; empty otherwise",
        "broken_by": "what made it invalid: host, run or block; empty: nothing did, or not known",
        "planned_seconds": "planned length, seconds",
        "started_at": "when sampling began, UTC",
        "ended_at": "when sampling ended, UTC",
        "seconds": "how long it was sampled, seconds",
        "sample_every_seconds": "planned time between samples, seconds",
        "samples": "samples stored, count",
        "longest_gap_seconds": "longest time between two samples, seconds; NULL for fewer than two",
    },
    sql="""SELECT <period columns>, p.reason, p.broken_by, p.planned_seconds, p.started_at, p.ended_at,
  <seconds:p.started_at:p.ended_at> AS seconds,
  CAST(r.plan ->> 'sample_every_seconds' AS DOUBLE PRECISION) AS sample_every_seconds,
  (SELECT count(*) FROM sample s WHERE s.period_id = p.period_id) AS samples,
  (SELECT max(g.gap) FROM (
    SELECT s.boottime_seconds - lag(s.boottime_seconds) OVER (ORDER BY s.sequence) AS gap
    FROM sample s WHERE s.period_id = p.period_id) g) AS longest_gap_seconds
FROM <period tables>""",
)

METRIC_SERIES = View(
    name="metric_series",
    question="What was every single reading of a metric?",
    columns={
        **OF_PERIOD,
        "sequence": "order within the period",
        "taken_at": "when it was read or reported, UTC",
        "metric": "name of the metric; say which, or every reading is read",
        "value": "the value as read, in the metric's unit; of a counter, its total since boot",
    },
    sql="""SELECT <period columns>, s.sequence, s.taken_at, m.metric, <named value> AS value
FROM <period tables>
JOIN sample s ON s.period_id = p.period_id
JOIN <named metrics> m ON <named value> IS NOT NULL
UNION ALL
SELECT <period columns>, s.sequence, s.taken_at, x.key, CAST(x.value AS DOUBLE PRECISION)
FROM <period tables>
JOIN sample s ON s.period_id = p.period_id
CROSS JOIN <extra metrics> x
UNION ALL
SELECT <period columns>, s.sequence, s.taken_at, s.metric, s.value
FROM <period tables>
JOIN measurement s ON s.period_id = p.period_id""",
)

THP_BACKING = View(
    name="thp_backing",
    question="How much anonymous memory did huge pages of each size really back, in each period?",
    columns={
        **OF_PERIOD,
        "size_kib": "page size, KiB",
        "backed_bytes": "anonymous memory in pages of this size, mean, bytes",
        "backed_bytes_minimum": "the least seen, bytes",
        "backed_bytes_maximum": "the most seen, bytes",
        "anon_bytes": "all anonymous memory, mean, bytes; NULL where it was not read",
        "backed_share": "backed_bytes over anon_bytes, ratio",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>,
  CAST(replace(replace(o.metric, 'thp_', ''), 'kB_backed_bytes', '') AS BIGINT) AS size_kib,
  o.mean AS backed_bytes, o.minimum AS backed_bytes_minimum, o.maximum AS backed_bytes_maximum,
  m.mean AS anon_bytes, o.mean / nullif(m.mean, 0) AS backed_share, p.started_at
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND o.metric LIKE 'thp~_%kB~_backed~_bytes' ESCAPE '~'
LEFT JOIN observation m ON m.period_id = p.period_id AND m.metric = 'anon_bytes'""",
)

SPLIT_RATES = View(
    name="split_rates",
    question="How often were huge pages split, of which size, in each period?",
    columns={
        **OF_PERIOD,
        "metric": "the kernel's counter",
        "size_kib": "page size, KiB; NULL for a counter over all sizes",
        "splits_per_second": "splits a second over the period",
        "splits": "splits in the period, count",
        "backed_bytes": "memory in pages of that size meanwhile, mean, bytes; NULL for a counter over all sizes",
        "started_at": "when sampling began, UTC",
    },
    sql="""SELECT <period columns>, o.metric,
  CASE WHEN o.metric LIKE 'thp~_%kB~_split%' ESCAPE '~'
    THEN CAST(replace(replace(replace(o.metric, 'thp_', ''), 'kB_split_failed', ''), 'kB_split', '') AS BIGINT)
    END AS size_kib,
  o.mean AS splits_per_second, o.rise AS splits,
  b.mean AS backed_bytes, p.started_at
FROM <period tables>
JOIN observation o ON o.period_id = p.period_id AND (
  o.metric IN ('thp_split_page', 'thp_split_page_failed', 'thp_split_pmd', 'thp_split_pud')
  OR o.metric LIKE 'thp~_%kB~_split' ESCAPE '~' OR o.metric LIKE 'thp~_%kB~_split~_failed' ESCAPE '~')
LEFT JOIN observation b ON b.period_id = p.period_id
  AND b.metric = replace(replace(o.metric, '_split_failed', '_split'), 'kB_split', 'kB_backed_bytes')
  AND b.metric <> o.metric""",
)
