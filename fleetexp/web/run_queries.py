"""What the live pages ask of the store, by way of the read-only `query`: on both databases alike.

Only numbers go into a question. A name from an address is compared here, with the names that the store answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fleetexp.store.read_only.query import query
from fleetexp.store.url import StoreUrl, parse_url

MOST_ROWS = 500
HOSTS_READ = 20_000

Row = Sequence[Any]

RUNS = """SELECT run_id, experiment, state, decision, hosts, periods, periods_complete, periods_invalid, started_at,
  created_at, launched_by FROM run_summary ORDER BY run_id DESC"""


class RunQueries:
    """A store's answers, each asked anew and read-only; StoreErrors come through."""

    def __init__(self, url: StoreUrl) -> None:
        self._url = parse_url(url)

    def rows(self, sql: str, most: int = MOST_ROWS) -> list[Row]:
        return list(query(self._url, sql, most)[1])

    def runs(self) -> list[Row]:
        return self.rows(RUNS)

    def run(self, run_id: int) -> Row | None:
        """experiment, hypothesis, design, state, reason, decision, its reason, launched_by, fleet, origin, instants."""
        found = self.rows(
            f"""SELECT experiment, hypothesis, design, state, reason, decision, decision_reason, launched_by, fleet,
  origin, created_at, started_at, ended_at, hosts, periods, periods_complete, periods_invalid, knob_writes
FROM run_summary WHERE run_id = {run_id:d}"""
        )
        return found[0] if found else None

    def stages(self, run_id: int) -> list[Row]:
        """stage, hosts that have joined by its end, when it opened (None: not yet)."""
        return self.rows(
            f"""SELECT s.stage, s.hosts, e.at FROM (
  SELECT stage, sum(count(*)) OVER (ORDER BY stage) AS hosts FROM assignment WHERE run_id = {run_id:d} GROUP BY stage
) s LEFT JOIN (
  SELECT stage, min(at) AS at FROM event WHERE run_id = {run_id:d} AND kind = 'stage_opened' GROUP BY stage
) e ON e.stage = s.stage ORDER BY s.stage"""
        )

    def host_id(self, run_id: int, name: str) -> int | None:
        """Return the number of a run's host, None where the run has none of that name."""
        rows = self.rows(
            f"""SELECT h.host_id, h.name FROM assignment a JOIN host h ON h.host_id = a.host_id
WHERE a.run_id = {run_id:d}""",
            most=HOSTS_READ,
        )
        return next((int(number) for number, found in rows if found == name), None)

    def hosts(self, run_id: int, host: int | None = None) -> list[Row]:
        """host, stratum, arm, stage, kind of the running period, last word on the host, complete, invalid, planned."""
        only = "" if host is None else f" AND h.host_id = {host:d}"
        return self.rows(
            f"""SELECT h.name, a.stratum, coalesce(a.arm, 'every arm in turn') AS arm, a.stage, p.running, w.kind,
  p.complete, p.invalid, p.planned
FROM assignment a JOIN host h ON h.host_id = a.host_id
LEFT JOIN (
  SELECT host_id, max(CASE WHEN state = 'running' THEN kind END) AS running,
    sum(CASE WHEN state = 'complete' THEN 1 ELSE 0 END) AS complete,
    sum(CASE WHEN state = 'invalid' THEN 1 ELSE 0 END) AS invalid,
    sum(CASE WHEN state = 'planned' THEN 1 ELSE 0 END) AS planned
  FROM period WHERE run_id = {run_id:d} GROUP BY host_id
) p ON p.host_id = a.host_id
LEFT JOIN (
  SELECT host_id, kind, row_number() OVER (PARTITION BY host_id ORDER BY at DESC, event_id DESC) AS place
  FROM event WHERE run_id = {run_id:d}
    AND kind IN ('host_lost', 'host_back', 'host_failed', 'restore_failed', 'tripwire')
) w ON w.host_id = a.host_id AND w.place = 1
WHERE a.run_id = {run_id:d}{only} ORDER BY h.name""",
            most=HOSTS_READ,
        )

    def guardrails(self, run_id: int) -> list[Row]:
        return self.rows(
            f"""SELECT metric, treatment, stage, look, host, checked_at, margin_percent, tripwire, verdict, reason
FROM guardrail_looks WHERE run_id = {run_id:d} ORDER BY checked_at DESC, metric"""
        )

    def rates(self, run_id: int) -> list[Row]:
        """For each running period: host, when it began, its readings so far, when the last was taken."""
        return self.rows(
            f"""SELECT h.name, p.started_at, (
    SELECT max(s.sequence) FROM sample s WHERE s.period_id = p.period_id
  ) AS readings, (
    SELECT s.taken_at FROM sample s WHERE s.period_id = p.period_id ORDER BY s.sequence DESC LIMIT 1
  ) AS last_at
FROM period p JOIN host h ON h.host_id = p.host_id WHERE p.run_id = {run_id:d} AND p.state = 'running'""",
            most=HOSTS_READ,
        )

    def events(self, run_id: int, host: int | None = None) -> list[Row]:
        only = "" if host is None else f" AND host = {_name(host)}"
        return self.rows(
            f"""SELECT at, host, what, detail FROM host_timeline WHERE run_id = {run_id:d}{only}
ORDER BY at DESC""",
            most=100,
        )

    def periods(self, run_id: int, host: int) -> list[Row]:
        return self.rows(
            f"""SELECT p.arm, p.kind, p.stage, p.block, p.attempt, p.state, p.reason, p.started_at, p.ended_at
FROM period p JOIN host h ON h.host_id = p.host_id
WHERE p.run_id = {run_id:d} AND h.host_id = {host:d} ORDER BY p.position, p.attempt"""
        )

    def knobs(self, run_id: int, host: int) -> list[Row]:
        return self.rows(
            f"""SELECT changed_at, knob, before, wanted, after, reason, error, restored FROM knob_audit
WHERE run_id = {run_id:d} AND host = {_name(host)} ORDER BY changed_at"""
        )

    def facts(self, run_id: int, host: int) -> Row | None:
        found = self.rows(
            f"""SELECT f.kernel, f.cpu_model, f.cpus, f.memory_total_bytes, f.taken_at FROM host_facts f
JOIN host h ON h.host_id = f.host_id WHERE f.run_id = {run_id:d} AND h.host_id = {host:d}
ORDER BY f.taken_at DESC""",
            most=1,
        )
        return found[0] if found else None

    def metrics(self, run_id: int, host: int) -> list[Row]:
        return self.rows(
            f"""SELECT metric, arm, kind, mean, p99, n FROM period_metrics
WHERE run_id = {run_id:d} AND host = {_name(host)} AND kind <> 'washout' AND metric IN (
  SELECT metric FROM effects WHERE run_id = {run_id:d}
) ORDER BY metric, position"""
        )


def _name(host: int) -> str:
    return f"(SELECT name FROM host WHERE host_id = {host:d})"
