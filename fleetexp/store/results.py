"""Rows of what was found: observations of a period, and the findings of a run."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from analysis.aggregate import FIGURES, Summary
from analysis.results import ArmDecision, Estimate, Findings, Interval, Preference
from fleetexp.store.checks import replace_checks
from fleetexp.store.documents import from_document, to_document
from fleetexp.store.inserts import chunks, insert_new
from fleetexp.store.runs import no_such_run
from fleetexp.store.tables import EstimateRow, FindingRow, Observation, Run


def replace_observations(connection: Connection, summaries: Mapping[int, Mapping[str, Summary]]) -> None:
    for piece in chunks(list(summaries)):
        connection.execute(delete(Observation).where(Observation.period_id.in_(piece)))
    add_observations(connection, summaries)


def add_observations(connection: Connection, summaries: Mapping[int, Mapping[str, Summary]]) -> None:
    """Enter summaries beside those that there are; one that is there stays as it is."""
    rows = [
        {
            "period_id": period_id,
            "metric": metric,
            **{figure: getattr(one, figure) for figure in FIGURES},
        }
        for period_id, of_period in summaries.items()
        for metric, one in of_period.items()
    ]
    insert_new(connection, Observation, rows)


def replace_findings(
    connection: Connection, run_id: int, findings: Findings, *, look: int | None, at: datetime
) -> None:
    """Enter the findings in place of those there are: whole, as a document; all that people ask about, as rows too."""
    values = {
        "findings": to_document(findings),
        "decision": findings.decision.value,
        "decision_reason": findings.reason,
    }
    if connection.execute(update(Run).where(Run.run_id == run_id).values(**values)).rowcount == 0:
        raise no_such_run(run_id)
    connection.execute(delete(EstimateRow).where(EstimateRow.run_id == run_id))
    if findings.estimates:
        connection.execute(insert(EstimateRow), [_estimate(run_id, estimate) for estimate in findings.estimates])
    replace_checks(connection, run_id, findings.guardrails, None, look, at)
    connection.execute(delete(FindingRow).where(FindingRow.run_id == run_id))
    if findings.arms:
        connection.execute(insert(FindingRow), [_finding(run_id, one, findings.preference) for one in findings.arms])


def _finding(run_id: int, one: ArmDecision, preference: Preference | None) -> dict[str, Any]:
    parts = to_document(one)
    scope = parts.pop("scope")
    return {"run_id": run_id, **parts, **scope, "preferred": _preferred(one.arm, preference)}


def _preferred(arm: str, preference: Preference | None) -> bool | None:
    """Whether an arm is the preferred one, or one that it is better than; None where they are not told apart."""
    if preference is None or preference.arm is None or arm not in {preference.arm, *preference.over}:
        return None
    return arm == preference.arm


def _estimate(run_id: int, estimate: Estimate) -> dict[str, Any]:
    difference, lift = estimate.difference_interval, estimate.lift_interval
    known = difference or lift
    return {
        "run_id": run_id,
        "metric": estimate.metric,
        "unit": estimate.unit,
        "role": estimate.role.value,
        "treatment": estimate.treatment,
        "control": estimate.control,
        "estimand": estimate.estimand,
        "method": estimate.method,
        "stratum": estimate.stratum,
        "stage": estimate.stage,
        "kind": estimate.kind.value,
        "headline": estimate.headline,
        "n_control": estimate.n_control,
        "n_treatment": estimate.n_treatment,
        "control_mean": estimate.control_mean,
        "treatment_mean": estimate.treatment_mean,
        "difference": estimate.difference,
        "difference_low": _low(difference),
        "difference_high": _high(difference),
        "lift": estimate.lift,
        "lift_low": _low(lift),
        "lift_high": _high(lift),
        "lift_excludes": lift.excludes if lift is not None else False,
        "level": known.level if known is not None else None,
        "standard_error": estimate.standard_error,
        "df": estimate.df,
        "p_value": estimate.p_value,
        "p_adjusted": estimate.p_adjusted,
    }


def _low(interval: Interval | None) -> float | None:
    return interval.low if interval is not None else None


def _high(interval: Interval | None) -> float | None:
    return interval.high if interval is not None else None


def findings_of(connection: Connection, run_id: int) -> Findings | None:
    row = connection.execute(select(Run.findings).where(Run.run_id == run_id)).first()
    if row is None:
        raise no_such_run(run_id)
    return from_document(Findings, row.findings) if row.findings is not None else None
