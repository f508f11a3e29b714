"""Decisions have parts: an arm's decision is a row, an estimate says of which kind it is, a period what broke it.

Rows and documents of before are told in the new words. What was written as a sentence only is read here, once: the
kind of an estimate from its method, the arms that a decision was for from its reason. What broke an old period is not
known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql, sqlite

revision = "0006"
down_revision = "0005"

TEXT = sa.Text()
WHOLE = sa.BigInteger().with_variant(sqlite.INTEGER(), "sqlite")
REAL = sa.Double().with_variant(sqlite.REAL(), "sqlite")
FLAG = sa.Boolean().with_variant(sqlite.INTEGER(), "sqlite")
DOCUMENT = postgresql.JSON(none_as_null=True).with_variant(sqlite.TEXT(), "sqlite")
LENGTH = {
    "sqlite": "(julianday(ended_at) - julianday(started_at)) * 86400.0",
    "postgresql": "CAST(extract(epoch FROM ended_at - started_at) AS DOUBLE PRECISION)",
}
# How the method of a row that is not the headline began, or what it held; any other compared plain means.
METHODS = (
    ("randomisation test", "randomisation"),
    ("paired t on matched pairs", "matched_pairs"),
    ("difference in differences", "difference_in_differences"),
    ("Hodges-Lehmann", "hodges_lehmann"),
    ("winsorised", "winsorised"),
    ("BCa bootstrap", "bootstrap"),
    ("within the stratum", "stratum"),
    ("strata combined", "strata_combined"),
    ("random effects", "random_effects"),
    ("worst-case bounds", "worst_case"),
    ("2SLS", "compliers"),
    ("dose-response", "dose_response"),
)
BUILT_IN = "hosts_lost"  # the one guardrail that nobody had to ask for
LISTS = ("about", "host_names", "strata", "without", "harmed", "missing", "overturn")


def upgrade() -> None:
    op.add_column("period", sa.Column("broken_by", TEXT, nullable=False, server_default=""))
    op.add_column("estimate", sa.Column("kind", TEXT, nullable=False, server_default=""))
    op.add_column("guardrail_check", sa.Column("built_in", FLAG, nullable=False, server_default=sa.text("false")))
    op.create_table(
        "finding",
        sa.Column("run_id", WHOLE, sa.ForeignKey("run.run_id", name="fk_finding_run_id_run"), nullable=False),
        sa.Column("arm", TEXT, nullable=False),
        sa.Column("decision", TEXT, nullable=False),
        sa.Column("cause", TEXT, nullable=False),
        sa.Column("about", DOCUMENT, nullable=False),
        sa.Column("hosts", WHOLE, nullable=False),
        sa.Column("periods", WHOLE, nullable=False),
        sa.Column("seconds", REAL, nullable=False),
        sa.Column("host_names", DOCUMENT, nullable=False),
        sa.Column("strata", DOCUMENT, nullable=False),
        sa.Column("without", DOCUMENT, nullable=False),
        sa.Column("harmed", DOCUMENT, nullable=False),
        sa.Column("missing", DOCUMENT, nullable=False),
        sa.Column("overturn", DOCUMENT, nullable=False),
        sa.Column("preferred", FLAG, nullable=True),
        sa.Column("sentence", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("run_id", "arm", name="pk_finding"),
        sqlite_strict=True,
    )
    connection = op.get_bind()
    _name_kinds(connection)
    connection.execute(sa.text("UPDATE guardrail_check SET built_in = true WHERE metric = :own"), {"own": BUILT_IN})
    connection.execute(sa.text("UPDATE run SET decision = 'do_not_ship' WHERE decision = 'do not ship'"))
    decided = sa.text("SELECT run_id FROM run WHERE findings IS NOT NULL ORDER BY run_id")
    for (run_id,) in connection.execute(decided).all():
        _retell(connection, run_id)


def _name_kinds(connection: sa.Connection) -> None:
    found = connection.execute(sa.text("SELECT DISTINCT method, headline FROM estimate")).all()
    for method, headline in found:
        connection.execute(
            sa.text("UPDATE estimate SET kind = :kind WHERE method = :method AND headline = :headline"),
            {"kind": kind_of(method, is_headline=bool(headline)), "method": method, "headline": headline},
        )


def kind_of(method: str, *, is_headline: bool) -> str:
    """Return the kind of an estimate that was made before kinds were."""
    if is_headline:
        return "headline"
    return next((kind for words, kind in METHODS if words in method), "unadjusted")


def _retell(connection: sa.Connection, run_id: int) -> None:
    """Bring one run's document into the new shape, and enter its arms as rows."""
    row = connection.execute(
        sa.text("SELECT findings, plan, control_arm FROM run WHERE run_id = :run"), {"run": run_id}
    ).one()
    old, plan = _parsed(row.findings), _parsed(row.plan)
    treatments = [arm["name"] for arm in plan["arms"] if arm["name"] != row.control_arm]
    new = {
        **old,
        "decision": old["decision"].replace(" ", "_"),
        "estimates": [_estimate(one) for one in old["estimates"]],
        "guardrails": [_guardrail(one) for one in old["guardrails"]],
    }
    new["arms"] = [
        _arm(arm, new, _scope(connection, run_id, arm, row.control_arm), alone=len(treatments) == 1)
        for arm in treatments
    ]
    new["preference"] = None
    run = sa.table("run", sa.column("run_id"), sa.column("findings", DOCUMENT))
    connection.execute(run.update().where(run.c.run_id == run_id).values(findings=_written(connection, new)))
    for one in new["arms"]:
        parts = {**one, **one["scope"]}
        rows = {name: _written(connection, parts.pop(name)) for name in LISTS}
        del parts["scope"]
        names = [*parts, *rows, "run_id"]
        into = sa.table("finding", *(sa.column(name, DOCUMENT if name in LISTS else None) for name in names))
        connection.execute(into.insert(), {**parts, **rows, "run_id": run_id})


def _parsed(document: Any) -> Any:
    return json.loads(document) if isinstance(document, str) else document


def _written(connection: sa.Connection, value: object) -> object:
    return json.dumps(value, separators=(",", ":")) if connection.dialect.name == "sqlite" else value


def _estimate(old: Mapping[str, Any]) -> dict[str, Any]:
    new = {name: value for name, value in old.items() if name != "headline"}
    return {**new, "kind": kind_of(old["method"], is_headline=old["headline"])}


def _guardrail(old: Mapping[str, Any]) -> dict[str, Any]:
    estimate = None if old["estimate"] is None else _estimate(old["estimate"])
    return {**old, "estimate": estimate, "built_in": old["plan"]["metric"] == BUILT_IN}


def _scope(connection: sa.Connection, run_id: int, arm: str, control: str) -> dict[str, Any]:
    """Count the hosts that were assigned, and what was measured on them under the two arms."""
    words = {"run": run_id, "arm": arm, "control": control}
    hosts = connection.execute(
        sa.text(
            "SELECT count(*) FROM assignment WHERE run_id = :run AND (arm IS NULL OR arm = :arm OR arm = :control)"
        ),
        words,
    ).scalar_one()
    length = LENGTH[connection.dialect.name]
    periods, seconds = connection.execute(
        sa.text(
            f"SELECT count(*), coalesce(sum({length}), 0.0) FROM period WHERE run_id = :run "  # noqa: S608 - ours
            "AND kind = 'measure' AND state = 'complete' AND (arm = :arm OR arm = :control)"
        ),
        words,
    ).one()
    return {
        "hosts": hosts,
        "periods": periods,
        "seconds": round(float(seconds), 3),
        "host_names": [],
        "strata": [],
        "without": [],
        "harmed": [],
    }


def _arm(arm: str, found: Mapping[str, Any], scope: Mapping[str, Any], *, alone: bool) -> dict[str, Any]:
    """What was decided for one arm. Of several, the reason named those that the run's decision was for."""
    reason = found["reason"]
    meant = alone or f"; {arm}: " in f"; {reason}"
    rails = [one for one in found["guardrails"] if one["treatment"] == arm]
    failed = [one["plan"]["metric"] for one in rails if one["verdict"] == "fail"]
    doubted = [one["name"] for one in found["checks"] if one["passed"] is False]
    decision = found["decision"]
    if not meant:  # an inconclusive run named every arm but those that were not to ship
        decision = "do_not_ship" if failed or decision == "inconclusive" else "inconclusive"
    causes = {
        "ship": ("better", []),
        "do_not_ship": ("guardrail_failed", failed) if failed else ("worse", []),
        "inconclusive": ("check_failed", doubted) if doubted else ("not_clear", []),
    }
    cause, about = causes[decision]
    return {
        "arm": arm,
        "decision": decision,
        "cause": cause,
        "about": about,
        "scope": dict(scope),
        "missing": [],
        "overturn": [],
        "sentence": reason if meant else "",
    }
