"""The views of hosts: what was written to each, whether it was put back, where it stands, what happened on it."""

from __future__ import annotations

from fleetexp.store.views.definition import OF_RUN, View

KNOB_AUDIT = View(
    name="knob_audit",
    question="What was written to which kernel setting, and was each put back as it was found?",
    columns={
        **OF_RUN,
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

HOST_RESTORES = View(
    name="host_restores",
    question="Does each host read as it was found, since when, and how long did putting it back take?",
    columns={
        **OF_RUN,
        "host": "name of the host",
        "restored": "yes where every setting last read as it was found, else no",
        "knobs_written": "settings written by the run, count",
        "knobs_not_restored": "settings that last read differently, count",
        "failed_writes": "writes that the kernel refused, count",
        "last_reason": "what made the last write: apply, revert, reapply, guardian or restore",
        "first_written_at": "when the run first wrote a setting, UTC",
        "measured_until": "when the host's last period ended, UTC",
        "restored_at": "when the last write that puts back was made, UTC; NULL: none was",
        "restore_seconds": "from measured_until to restored_at, seconds",
    },
    sql="""SELECT w.run_id, w.experiment, w.host, w.restored, w.knobs_written, w.knobs_not_restored, w.failed_writes,
  w.last_reason, w.first_written_at, w.measured_until, w.restored_at,
  <seconds:w.measured_until:w.restored_at> AS restore_seconds
FROM (
  SELECT k.run_id, k.experiment, k.host, min(k.restored) AS restored, count(DISTINCT k.knob) AS knobs_written,
    count(DISTINCT CASE WHEN k.restored = 'no' THEN k.knob END) AS knobs_not_restored,
    count(k.error) AS failed_writes,
    (SELECT c.reason FROM knob_change c JOIN host h ON h.host_id = c.host_id
     WHERE c.run_id = k.run_id AND h.name = k.host ORDER BY c.changed_at DESC, c.knob_change_id DESC LIMIT 1)
      AS last_reason,
    min(k.changed_at) AS first_written_at,
    (SELECT max(p.ended_at) FROM period p JOIN host h ON h.host_id = p.host_id
     WHERE p.run_id = k.run_id AND h.name = k.host) AS measured_until,
    max(CASE WHEN k.reason IN ('revert', 'guardian', 'restore') THEN k.changed_at END) AS restored_at
  FROM knob_audit k GROUP BY k.run_id, k.experiment, k.host
) w""",
)

HOST_STATE = View(
    name="host_state",
    question="Where does each host of a run stand, and which arm was it given?",
    columns={
        **OF_RUN,
        "run_state": "where the run is or how it ended",
        "host": "name of the host",
        "stratum": "what the randomisation kept together",
        "arm": "arm of the host; NULL in a switchback, where it has every arm",
        "stage": "stage at which the host joins, from 0",
        "state": "not restored, lost, failed, restore failed, measuring, washing out, waiting, between periods, "
        "stopped or done; the first that holds",
        "detail": "why it is lost or failed, in words; empty otherwise",
        "periods_planned": "periods that have not begun, count",
        "periods_complete": "periods measured whole, count",
        "periods_invalid": "periods not to be used, count",
        "knobs_not_restored": "settings that last read differently from what was found, count",
        "last_written_at": "when a setting was last written by this run, UTC; NULL: never",
    },
    sql="""SELECT w.run_id, w.experiment, w.run_state, w.host, w.stratum, w.arm, w.stage,
  CASE WHEN w.knobs_not_restored > 0 AND w.ended_at IS NOT NULL THEN 'not restored'
    WHEN t.kind = 'host_lost' THEN 'lost'
    WHEN t.kind = 'host_failed' THEN 'failed'
    WHEN t.kind = 'restore_failed' THEN 'restore failed'
    WHEN w.running = 'washout' THEN 'washing out'
    WHEN w.running IS NOT NULL THEN 'measuring'
    WHEN w.ended_at IS NOT NULL AND w.periods_planned > 0 THEN 'stopped'
    WHEN w.periods_complete + w.periods_invalid = 0 THEN 'waiting'
    WHEN w.periods_planned > 0 THEN 'between periods'
    ELSE 'done' END AS state,
  CASE WHEN t.kind = 'host_back' THEN '' ELSE coalesce(t.detail, '') END AS detail,
  w.periods_planned, w.periods_complete, w.periods_invalid, w.knobs_not_restored, w.last_written_at
FROM (
  SELECT a.run_id, e.name AS experiment, r.state AS run_state, r.ended_at, h.name AS host, a.stratum, a.arm, a.stage,
    (SELECT min(p.kind) FROM period p WHERE p.run_id = a.run_id AND p.host_id = a.host_id AND p.state = 'running')
      AS running,
    (SELECT count(*) FROM period p WHERE p.run_id = a.run_id AND p.host_id = a.host_id AND p.state = 'planned')
      AS periods_planned,
    (SELECT count(*) FROM period p WHERE p.run_id = a.run_id AND p.host_id = a.host_id AND p.state = 'complete')
      AS periods_complete,
    (SELECT count(*) FROM period p WHERE p.run_id = a.run_id AND p.host_id = a.host_id AND p.state = 'invalid')
      AS periods_invalid,
    coalesce(k.knobs_not_restored, 0) AS knobs_not_restored,
    (SELECT max(c.changed_at) FROM knob_change c WHERE c.run_id = a.run_id AND c.host_id = a.host_id)
      AS last_written_at,
    (SELECT max(v.event_id) FROM event v WHERE v.run_id = a.run_id AND v.host_id = a.host_id
      AND v.kind IN ('host_lost', 'host_failed', 'host_back', 'restore_failed')) AS trouble
  FROM assignment a
  JOIN run r ON r.run_id = a.run_id
  JOIN experiment e ON e.experiment_id = r.experiment_id
  JOIN host h ON h.host_id = a.host_id
  LEFT JOIN host_restores k ON k.run_id = a.run_id AND k.host = h.name
) w
LEFT JOIN event t ON t.event_id = w.trouble""",
)

HOST_TIMELINE = View(
    name="host_timeline",
    question="What happened on a host, in the order of time?",
    columns={
        **OF_RUN,
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
