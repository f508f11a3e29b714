"""Rows of guardrails: what each said at the end of the run, at the end of each stage, and on which host at once."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select

from analysis.plan import Crossing, GuardrailPlan
from analysis.results import GuardrailResult, Verdict
from fleetexp.store.tables import GuardrailCheck, Host
from fleetexp.store.values import clean_text


def replace_checks(  # noqa: PLR0917 - the results, then what they are of
    connection: Connection,
    run_id: int,
    results: Iterable[GuardrailResult],
    stage: int | None,
    look: int | None,
    at: datetime,
) -> None:
    """Enter the answers at the end of a stage (None: of the run) in place of those there are."""
    row = GuardrailCheck
    same = row.stage.is_(None) if stage is None else row.stage == stage
    connection.execute(delete(row).where(row.run_id == run_id, row.host_id.is_(None), same))
    rows = [
        {
            **_limit(run_id, one.plan),
            "treatment": one.treatment,
            "verdict": one.verdict.value,
            "reason": one.reason,
            "stage": stage,
            "look": look,
            "checked_at": at,
            "built_in": one.built_in,
        }
        for one in results
    ]
    if rows:
        connection.execute(insert(row), rows)


def _limit(run_id: int, plan: GuardrailPlan) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "metric": plan.metric,
        "worse": plan.worse.value,
        "margin": plan.margin,
        "tripwire": plan.tripwire,
    }


def add_crossing(  # noqa: PLR0917 - whose it is, then what
    connection: Connection, run_id: int, host_id: int, plan: GuardrailPlan, crossing: Crossing, stage: int, at: datetime
) -> None:
    """Enter that a host crossed a tripwire; the same one at the same instant is entered once."""
    row = GuardrailCheck
    there = select(row.guardrail_check_id).where(
        row.run_id == run_id, row.host_id == host_id, row.metric == plan.metric, row.checked_at == at
    )
    if connection.execute(there).first() is not None:
        return
    values = {
        **_limit(run_id, plan),
        "treatment": crossing.arm,
        "verdict": Verdict.FAIL.value,
        "reason": clean_text(crossing.detail),
        "stage": stage,
        "host_id": host_id,
        "checked_at": at,
        "built_in": False,
    }
    connection.execute(insert(row).values(**values))


def crossings(connection: Connection, run_id: int) -> tuple[Crossing, ...]:
    """Return the tripwires that hosts of a run crossed, in the order of time."""
    row = GuardrailCheck
    statement = (
        select(row.metric, row.treatment, Host.name, row.reason)
        .join(Host, Host.host_id == row.host_id)
        .where(row.run_id == run_id)
        .order_by(row.checked_at, row.guardrail_check_id)
    )
    return tuple(
        Crossing(metric=found.metric, arm=found.treatment, host=found.name, detail=found.reason)
        for found in connection.execute(statement)
    )
