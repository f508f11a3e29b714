"""What a notebook shows of findings and reports: a few lines of HTML that look as the page around them does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from markupsafe import Markup

from analysis.plan import Direction, Role
from analysis.report.content import ReportInput
from analysis.report.effects import EffectOutcome, EffectRow, effect_rows
from analysis.report.escaping import visible
from analysis.report.page import ReportPage
from analysis.report.tables import directions
from analysis.results import Findings
from analysis.wording import decision_label

_DECIDE = {Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL}
_MOST_ROWS, _MOST_NOTES = 12, 5
_HEAD = ("metric", "arm", "control", "treatment", "change", "interval")
_LINE, _ITEM = Markup("<p>{}</p>"), Markup("<li>{}</li>")
_WORD = Markup('<td style="text-align:left;padding:.2em .8em;white-space:nowrap">{}</td>')
_FIGURE = Markup('<td style="text-align:right;padding:.2em .8em;white-space:nowrap">{}</td>')
_HEAD_OF_WORDS = Markup('<th scope="col" style="text-align:left;padding:.2em .8em;white-space:nowrap">{}</th>')
_HEAD_OF_FIGURES = Markup('<th scope="col" style="text-align:right;padding:.2em .8em;white-space:nowrap">{}</th>')


def findings_fragment(findings: Findings, better: Mapping[str, Direction] | None = None, title: str = "") -> str:
    """Show the decision, its reason, the effects that it is made from, and what is in doubt. All text is escaped."""
    rows = [row for row in effect_rows(findings, better=better) if row.role in _DECIDE]
    more = len(findings.estimates) - len(rows[:_MOST_ROWS])
    failed = [f"{check.name}: {check.detail}" for check in findings.checks if check.passed is False]
    notes = [*failed, *findings.warnings]
    left = [f"{len(notes) - _MOST_NOTES} more in .checks and .warnings"] if len(notes) > _MOST_NOTES else []
    parts = (
        _each(_LINE, [title] if title else []),
        Markup("<p><strong>{}</strong> — {}</p>").format(decision_label(findings.decision), visible(findings.reason)),
        _table(rows[:_MOST_ROWS]) if rows else Markup("<p>No effect could be estimated.</p>"),
        _each(_LINE, [f"{more} more rows in .estimates"] if more else []),
        Markup("<ul>{}</ul>").format(_each(_ITEM, [*notes[:_MOST_NOTES], *left])) if notes else Markup(),
    )
    return str(Markup('<div style="max-width:60em">{}</div>').format(Markup().join(parts)))


def report_fragment(content: ReportInput) -> str:
    """Show a run's findings below its name; the whole report is a page of its own."""
    hosts = len({period.host for period in content.periods})
    title = f"Run {content.run_id}, {content.experiment}: {content.design}, {hosts} hosts, {content.state}"
    return findings_fragment(content.findings, directions(content), title)


def page_fragment(page: ReportPage, *, sections: tuple[str, ...]) -> str:
    """Show a page's alarms, its answer and these sections' tables. All text is escaped."""
    parts = [Markup('<p role="alert"><strong>{}</strong></p>').format(visible(text)) for text in page.alarms]
    parts.append(Markup("<p><strong>{}</strong> — {}</p>").format(page.decision, visible(page.reason)))
    for table in (table for section in page.sections if section.key in sections for table in section.tables):
        lines = [_each(_WORD, [f"{cell.text} {cell.note}".strip() for cell in row]) for row in table.rows]
        parts.append(_each(_LINE, [table.caption]) + _grid(_each(_HEAD_OF_WORDS, table.headers), lines))
    parts.append(Markup("<ul>{}</ul>").format(_each(_ITEM, page.warnings)) if page.warnings else Markup())
    return str(Markup('<div style="max-width:60em">{}</div>').format(Markup().join(parts)))


def _table(rows: Iterable[EffectRow]) -> Markup:
    lines = [_each(_WORD, texts[:2]) + _each(_FIGURE, texts[2:]) for texts in map(_texts, rows)]
    return _grid(_each(_HEAD_OF_WORDS, _HEAD[:2]) + _each(_HEAD_OF_FIGURES, _HEAD[2:]), lines)


def _grid(head: Markup, lines: Iterable[Markup]) -> Markup:
    body = Markup().join(Markup("<tr>{}</tr>").format(line) for line in lines)
    return Markup(
        '<div style="overflow-x:auto"><table><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(head, body)


def _texts(row: EffectRow) -> tuple[str, ...]:
    metric = f"{row.metric} ({row.unit})" if row.unit else row.metric
    change = (
        f"{row.change} ({row.outcome})" if row.outcome in {EffectOutcome.BETTER, EffectOutcome.WORSE} else row.change
    )
    return metric, row.treatment_arm, row.control, row.treatment, change, row.figures


def _each(form: Markup, texts: Iterable[str]) -> Markup:
    return Markup().join(form.format(visible(text)) for text in texts)
