"""The sections on what the data show: effects, blocks, lifts, guardrails, every estimate."""

from __future__ import annotations

from dataclasses import replace

from analysis.plan import Role
from analysis.quantities import DASH, number, quantity
from analysis.report.content import ReportInput
from analysis.report.effects import EffectOutcome, EffectRow, effect_rows, estimate_row, pair_rows
from analysis.report.page import Cell, ReportSection, Table
from analysis.report.tables import (
    MOST_ROWS,
    change_header,
    control_header,
    directions,
    effect_cells,
    left_off_note,
    p_text,
)
from analysis.results import HALVES, Estimate, EstimateKind, GuardrailResult, Verdict

_RESULTS = (Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL, Role.EXPLORATORY)
_HALF = {EstimateKind.EARLIER_HALF: "earlier", EstimateKind.LATER_HALF: "later"}


def effects(content: ReportInput) -> ReportSection:
    """Put the effects in a table for each treatment arm, and name what could not be measured."""
    rows = effect_rows(content.findings, content.unavailable, directions(content))
    shown = [row for row in rows if row.role in _RESULTS]
    missing = [row for row in rows if row.outcome is EffectOutcome.UNAVAILABLE]
    tables = [_effect_table(content, arm, shown, missing) for arm in _treatments(content, shown)]
    paragraphs = [
        "An interval is that of the relative change from the control, and a minus is a decrease. "
        "Where it holds 0 the row says that there is no clear change, with the numbers beside it."
    ]
    if not tables:
        paragraphs = ["No effect could be estimated."]
        tables = [_unavailable_table(missing)] if missing else []
    tables += _pairs(content)
    tables += _halves(content)
    return ReportSection(key="effects", title="What changed", paragraphs=tuple(paragraphs), tables=tuple(tables))


def _treatments(content: ReportInput, rows: list[EffectRow]) -> list[str]:
    """The treatment arms that have rows, in the experiment's order."""
    found = dict.fromkeys(row.treatment_arm for row in rows)
    named = [arm.name for arm in content.arms if arm.name in found]
    return named + [name for name in found if name not in named]


def _effect_table(content: ReportInput, arm: str, rows: list[EffectRow], missing: list[EffectRow]) -> Table:
    mine = [row for row in rows if row.treatment_arm == arm]
    return Table(
        caption=f"{_arm(content, arm)} against {_arm(content, content.control)}",
        headers=("metric", control_header(content), arm, change_header(mine)),
        rows=tuple(effect_cells(content, row) for row in mine) + tuple(_unavailable_cells(row) for row in missing),
        align="lrrl",
        key="effects",
    )


def _pairs(content: ReportInput) -> list[Table]:
    """Compare the treatments with each other; nothing where there is one."""
    rows = list(pair_rows(content.findings, directions(content)))
    if not rows:
        return []
    return [
        Table(
            caption="Treatments against each other",
            headers=("metric", "arm", "its value", "against", "its value", change_header(rows)),
            rows=tuple(
                (cells[0], Cell(text=row.treatment_arm), cells[2], Cell(text=row.control_arm), cells[1], cells[3])
                for row, cells in ((row, effect_cells(content, row)) for row in rows[:MOST_ROWS])
            ),
            align="llrlrl",
            key="pairs",
        )
    ]


def _halves(content: ReportInput) -> list[Table]:
    """Set effects in the earlier half of the measured time beside those in the later; what is counted stands above."""
    rows = [row for row in content.findings.estimates if row.kind in HALVES]
    if not rows:
        return []
    alpha, better = content.findings.alpha, directions(content)
    shown = [(row, estimate_row(row, alpha, better.get(row.metric))) for row in rows[:MOST_ROWS]]
    change = change_header([one for _, one in shown])
    return [
        Table(
            caption="Does it last? Each half of the measured time alone",
            headers=("metric", "half", control_header(content), "arm", "its value", change),
            rows=tuple(
                (replace(cells[0], note=""), Cell(text=_HALF[row.kind]), cells[1], Cell(text=row.treatment), *cells[2:])
                for row, cells in ((row, effect_cells(content, one)) for row, one in shown)
            ),
            align="llrlrl",
            key="halves",
        )
    ]


def _unavailable_cells(row: EffectRow) -> tuple[Cell, ...]:
    return (Cell(text=row.metric, code=True), Cell(text=DASH), Cell(text=DASH), Cell(text=row.change, tone="quiet"))


def _unavailable_table(rows: list[EffectRow]) -> Table:
    return Table(
        caption="Not measured",
        headers=("metric", "why"),
        rows=tuple((Cell(text=row.metric, code=True), Cell(text=row.change)) for row in rows),
        align="ll",
    )


def _arm(content: ReportInput, name: str) -> str:
    knobs = next((arm.knobs for arm in content.arms if arm.name == name), None)
    if knobs is None:
        return name
    return f"{name} ({', '.join(f'{knob} = {value}' for knob, value in knobs.items()) or 'as found'})"


def blocks(content: ReportInput) -> ReportSection:
    """Introduce the charts of blocks and list the values behind them."""
    contrasts = content.findings.contrasts
    if not contrasts:
        return ReportSection(
            key="blocks", title="Block by block", paragraphs=("There are no blocks to show in this design.",)
        )
    units = {row.metric: row.unit for row in content.findings.estimates}
    rows = tuple(
        (
            Cell(text=row.metric, code=True),
            Cell(text=row.treatment),
            Cell(text=row.host),
            Cell(text=str(row.block)),
            Cell(text=quantity(row.control_value, units.get(row.metric, ""))),
            Cell(text=quantity(row.treatment_value, units.get(row.metric, ""))),
        )
        for row in contrasts[:MOST_ROWS]
    )
    headers = ("metric", "arm", "host", "block", control_header(content), "arm's value")
    values = Table(
        caption="Values behind the charts", headers=headers, rows=rows, align="lllrrr", folded=True, key="blocks"
    )
    paragraphs = (
        "Each block holds every arm once, close together in time, so what drifts slowly touches both alike. "
        "The estimate rests on the differences within blocks.",
        *left_off_note(len(contrasts)),
    )
    return ReportSection(key="blocks", title="Block by block", paragraphs=paragraphs, tables=(values,))


def lifts(content: ReportInput) -> ReportSection:
    """Introduce the chart of lifts."""
    if not any(row.lift is not None and row.headline for row in content.findings.estimates):
        return ReportSection(key="lifts", title="Against zero", paragraphs=("No relative change could be estimated.",))
    text = "Relative change of each metric with its interval. A line that crosses zero shows no clear change."
    return ReportSection(key="lifts", title="Against zero", paragraphs=(text,))


def guardrails(content: ReportInput) -> ReportSection:
    """Set each guardrail's limit against what was seen."""
    results = content.findings.guardrails
    if not results:
        return ReportSection(key="guardrails", title="Guardrails", paragraphs=("The experiment names no guardrails.",))
    table = Table(
        caption="Limits that must hold",
        headers=("metric", "limit", "arm", "change [interval]", "verdict", "reason"),
        rows=tuple(_guardrail_cells(content, row) for row in results),
        align="llnlnl",
        key="guardrails",
    )
    return ReportSection(key="guardrails", title="Guardrails", tables=(table,))


def _guardrail_cells(content: ReportInput, result: GuardrailResult) -> tuple[Cell, ...]:
    tone = {Verdict.PASS: "good", Verdict.FAIL: "bad"}.get(result.verdict, "quiet")
    seen = Cell(text="not measured", tone="quiet")
    unit = ""
    if result.estimate is not None:
        row = estimate_row(result.estimate, content.findings.alpha)
        seen, unit = Cell(text=row.change, note=row.figures), result.estimate.unit
    return (
        Cell(text=result.plan.metric, note="watched in every run" if result.built_in else "", code=True),
        Cell(text=_limit(result, unit)),
        Cell(text=result.treatment),
        seen,
        Cell(text=result.verdict.value, tone=tone),
        Cell(text=result.reason),
    )


def _limit(result: GuardrailResult, unit: str) -> str:
    plan, limits = result.plan, []
    if plan.margin is not None:
        limits.append(f"no {plan.worse.value} above {number(plan.margin * 100)} %")
    if plan.tripwire is not None:
        limits.append(f"halts at {quantity(plan.tripwire, unit)}")
    return "; ".join(limits) or "no limit given"


def estimates(content: ReportInput) -> ReportSection:
    """List every estimate with its method, sensitivity and subgroup rows too."""
    alpha = content.findings.alpha
    rows = tuple(_estimate_cells(row, alpha, content.control) for row in content.findings.estimates[:MOST_ROWS])
    if not rows:
        return ReportSection(key="estimates", title="Every estimate", paragraphs=("There are none.",))
    headers = ("metric", "arm", "role", "change [interval]", "p", "adjusted p", "n", "method and remarks")
    table = Table(
        caption="Every estimate and how it was made", headers=headers, rows=rows, align="lnllrrrl", key="estimates"
    )
    text = f"Error rate {number(alpha * 100)} %. A sensitivity or subgroup row is a check, never the result."
    left_off = left_off_note(len(content.findings.estimates))
    return ReportSection(key="estimates", title="Every estimate", paragraphs=(text, *left_off), tables=(table,))


def _estimate_cells(estimate: Estimate, alpha: float, control: str) -> tuple[Cell, ...]:
    row = estimate_row(estimate, alpha)
    told = estimate.kind in {EstimateKind.HEADLINE, EstimateKind.STRATUM}  # the stratum is named
    kind = [] if told else [estimate.kind.value.replace("_", " ")]
    kind += [f"stratum {estimate.stratum}"] if estimate.stratum else []
    if estimate.control != control:
        kind.append(f"against {estimate.control}")
    kind += [f"stage {estimate.stage}"] if estimate.stage is not None else []
    count = f"{estimate.n_control} + {estimate.n_treatment}"
    return (
        Cell(text=estimate.metric, code=True),
        Cell(text=estimate.treatment),
        Cell(text=estimate.role.value, note=", ".join(kind)),
        Cell(text=row.change, note=row.figures),
        Cell(text=DASH if estimate.p_value is None else p_text(estimate.p_value)),
        Cell(text=DASH if estimate.p_adjusted is None else p_text(estimate.p_adjusted)),
        Cell(text=count),
        Cell(text=estimate.method, note="; ".join(part for part in (estimate.estimand, row.remark) if part)),
    )
