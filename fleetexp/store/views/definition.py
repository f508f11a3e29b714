"""A view: its question, its columns, its SELECT; and what several views have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from agents.catalogue import CATALOGUE
from fleetexp.store.values import ColumnKind


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """A view: its question, its columns in order (name -> meaning with unit), and the SELECT.

    In `sql`, these marks stand for what several views have, or what databases put differently:
    `<seconds:a:b>`      the seconds from instant a to instant b
    `<period columns>`, `<period tables>`   what every view of periods has
    `<mean:m:METRIC>`    the join that gives a metric's observation of the period `p` the alias m
    `<named metrics>`, `<named value>`      the metrics m with a column of their own in the sample `s`; its value
    `<extra metrics>`    the others, as rows (key, value)
    """

    name: str
    question: str
    columns: Mapping[str, str]
    sql: str

    def kind(self, column: str) -> ColumnKind:
        """Return what a column holds. It follows from the name: the same name means the same in every view."""
        for kind, names in _KINDS:
            if names.fullmatch(column):
                return kind
        return ColumnKind.REAL


_TEXTS = re.compile(
    "after|arm|before|broken_by|cause|command|control|control_arm|decision|decision_reason|design|detail|"
    "error|experiment|fleet|found|function|guardrail|host|hypothesis|kind|knob|last|last_reason|launched_by|"
    "method|metric|origin|program|reason|restored|role|run_state|sentence|state|stratum|treatment|unit|verdict|"
    "wanted|what|worse"
)
_WHOLES = re.compile(
    "attempt|block|built_in|calls|cut_extents|extents|failed_writes|forked_children|headline|hosts|knob_writes|"
    "knobs_not_restored|knobs_written|lift_excludes|look|n|n_control|n_treatment|period_id|periods|"
    "periods_complete|periods_invalid|periods_planned|position|preferred|processes|processes_seen|run_id|"
    "samples|sequence|share|size_kib|stage|whole"
)
_DOCUMENTS = re.compile("about|harmed|host_names|missing|overturn|strata|without")
_INSTANTS = re.compile(r"at|\w+_at|\w+_until")
_KINDS = (
    (ColumnKind.TEXT, _TEXTS),
    (ColumnKind.WHOLE, _WHOLES),
    (ColumnKind.DOCUMENT, _DOCUMENTS),
    (ColumnKind.INSTANT, _INSTANTS),
)

OF_RUN = {"run_id": "number of the run", "experiment": "name of the experiment"}
OF_PERIOD = {
    **OF_RUN,
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

_SECONDS = re.compile(r"<seconds:([\w.]+):([\w.]+)>")
_SECONDS_IN = {
    "sqlite": r"round((julianday(\2) - julianday(\1)) * 86400.0, 3)",  # SQLite computes dates in milliseconds
    "postgresql": r"CAST(extract(epoch FROM \2 - \1) AS DOUBLE PRECISION)",
}
_EXTRA_METRICS = {"sqlite": "json_each(s.extra)", "postgresql": "jsonb_each_text(s.extra)"}
_MEAN = re.compile(r"<mean:(\w+):(\w+)>")
_MEAN_IN = r"LEFT JOIN observation \1 ON \1.period_id = p.period_id AND \1.metric = '\2'"
_NAMED = [name for name, metric in CATALOGUE.items() if metric.column]
_NAMED_METRICS = "(" + " UNION ALL ".join(f"SELECT '{name}' AS metric" for name in _NAMED) + ")"
_NAMED_VALUE = "CASE m.metric " + " ".join(f"WHEN '{name}' THEN s.{name.lower()}" for name in _NAMED) + " END"


def select_of(view: View, dialect: str) -> str:
    """Return the SELECT of a view in a dialect ('sqlite' or 'postgresql')."""
    sql = view.sql
    for mark, meaning in (
        ("<period columns>", _PERIOD_COLUMNS),
        ("<period tables>", _PERIOD_TABLES),
        ("<named metrics>", _NAMED_METRICS),
        ("<named value>", _NAMED_VALUE),
        ("<extra metrics>", _EXTRA_METRICS[dialect]),
    ):
        sql = sql.replace(mark, meaning)
    return _MEAN.sub(_MEAN_IN, _SECONDS.sub(_SECONDS_IN[dialect], sql))
