"""The report of a rollout already made: the same pages as for runs, below a banner that it was not randomised."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.plan import Direction
from analysis.quantities import DASH, Scale, counted, number, scale_for
from analysis.report.charts.events import event_chart
from analysis.report.effects import estimate_row
from analysis.report.html import Chart, page_as_html
from analysis.report.markdown import page_as_markdown
from analysis.report.notebook import page_fragment
from analysis.report.page import Cell, ReportPage, ReportSection, Table
from analysis.report.tables import MOST_ROWS, p_text
from analysis.report.text import page_as_text
from analysis.results import Interval
from analysis.retrospective.verdicts import (
    BesideRow,
    GuardrailStanding,
    MarginStanding,
    MetricFindings,
    RetrospectiveFindings,
    RetrospectiveVerdict,
    RowKind,
)
from analysis.retrospective.wording import NOT_RANDOMISED, passed_word, robustness_words, verdict_label
from analysis.wording import interval_text

_TONES = {
    RetrospectiveVerdict.CONSISTENT_WITH_BENEFIT: "qualified",  # never 'good': nobody drew the hosts
    RetrospectiveVerdict.CONSISTENT_WITH_HARM: "bad",
    RetrospectiveVerdict.NOT_DISTINGUISHABLE: "quiet",
    RetrospectiveVerdict.ASSUMPTIONS_CONTRADICTED: "bad",
}
_KINDS = {
    RowKind.OTHER_CONTROLS: "other hosts to compare with",
    RowKind.BALANCED: "others weighted to resemble the changed before",
    RowKind.TWO_WAY: "one regression, host and period effects",
    RowKind.LEVEL: "less what the level before foretells",
    RowKind.RATIOS: "told in ratios",
    RowKind.LATER: "in the later half of the time since",
    RowKind.MIDDLE: "the middle half of the changed hosts",
    RowKind.GROUP: "changed in period",
}
_STANDINGS = {
    MarginStanding.WITHIN: ("within its margin, if the comparison is fair", ""),
    MarginStanding.BEYOND: ("beyond its margin", "bad"),
    MarginStanding.OPEN: ("harm is not ruled out", "quiet"),
}
_SHORT = "not randomised"
_KICKER = "Report on a rollout already made"


def retrospective_page(findings: RetrospectiveFindings) -> ReportPage:
    """Write the whole report as sections."""
    primary = findings.metric(findings.primary)
    sections = (
        _effects(findings),
        _guardrails(findings),
        _events(findings),
        _checks(findings),
        _placebos(findings, primary),
        _sensitivity(primary),
        _beside(findings, primary),
        _method(findings),
    )
    return ReportPage(
        title=findings.changed,
        hypothesis="",
        about=(
            ("Design", f"retrospective, {_SHORT}"),
            ("Hosts", f"{findings.hosts_changed:,} changed, {findings.hosts_not_changed:,} not"),
            ("Periods", f"{findings.periods:,}, changes in {counted(len(findings.starts), 'of them')}".rstrip("s")),
        ),
        decision=verdict_label(findings.verdict),
        tone=_TONES[findings.verdict],
        reason=f"{findings.reason}.",
        alarms=(NOT_RANDOMISED,),
        warnings=findings.warnings,
        sections=tuple(section for section in sections if section.paragraphs or section.tables),
        kicker=_KICKER,
        answer="Verdict",
    )


def render_retrospective_html(findings: RetrospectiveFindings) -> str:
    """Render the report as one self-contained HTML document. Equal input gives equal text."""
    charts = tuple(
        Chart(
            svg=event_chart(one.plan.name, one.plan.unit, one.events, f"events-{place}"),
            heading=one.plan.name,
            remark=f"{_SHORT.capitalize()}. Hollow marks are before the change: they would lie on 0 had hosts moved "
            "alike. A thin line is an interval for one time, the pale bar behind it holds for all times at once.",
        )
        for place, one in enumerate(findings.metrics)
        if one.events
    )
    return page_as_html(retrospective_page(findings), {"events": charts})


def render_retrospective_markdown(findings: RetrospectiveFindings) -> str:
    """Render the report's words and tables as Markdown."""
    return page_as_markdown(retrospective_page(findings))


def as_text(findings: RetrospectiveFindings) -> str:
    """Render the verdict and the tables that matter most for a terminal."""
    return page_as_text(retrospective_page(findings), sections=("effects", "guardrails", "checks", "sensitivity"))


def fragment(findings: RetrospectiveFindings) -> str:
    """Show banner, verdict and effects in a notebook."""
    return page_fragment(retrospective_page(findings), sections=("effects",))


def _effects(findings: RetrospectiveFindings) -> ReportSection:
    rows = [row for one in findings.metrics for row in _effect_cells(one, findings.alpha)]
    table = Table(
        caption=f"Since {findings.changed}: what hosts measured, and what they would have without it ({_SHORT})",
        headers=("metric", "without", "measured", f"change [{_level(findings)} interval]", "verdict"),
        rows=tuple(rows),
        align="lrrll",
    )
    text = (
        f"{_SHORT.capitalize()}: 'without' is what hosts that were not changed would make one expect. It is right if "
        "the changed hosts would have moved as those did, which no data can show."
    )
    return ReportSection(key="effects", title="What moved with the change", paragraphs=(text,), tables=(table,))


def _effect_cells(found: MetricFindings, alpha: float) -> Iterator[tuple[Cell, ...]]:
    name = Cell(text=found.plan.name, code=True, note=found.plan.unit)
    verdict = Cell(text=DASH)
    if found.verdict is not None:
        verdict = Cell(text=verdict_label(found.verdict), tone=_TONES[found.verdict])
    if found.headline is None:
        why = next(iter(found.warnings), "no estimate")
        yield name, Cell(text=DASH), Cell(text=DASH), Cell(text=why, tone="quiet"), verdict
        return
    row = estimate_row(found.headline, alpha, found.plan.better)
    note = "; ".join(part for part in (row.figures or "no interval", row.remark) if part)
    yield name, Cell(text=row.control), Cell(text=row.treatment), Cell(text=row.change, note=note), verdict


def _guardrails(findings: RetrospectiveFindings) -> ReportSection:
    rows = tuple(_guardrail_cells(one, findings.alpha) for one in findings.guardrails)
    if not rows:
        return ReportSection(key="guardrails", title="Guardrails", paragraphs=("No guardrail was set.",))
    table = Table(
        caption=f"Margins that harm must not reach ({_SHORT})",
        headers=("metric", "margin", "change", "stands"),
        rows=rows,
        align="lrll",
    )
    return ReportSection(key="guardrails", title="Guardrails", tables=(table,))


def _guardrail_cells(one: GuardrailStanding, alpha: float) -> tuple[Cell, ...]:
    text, tone = _STANDINGS[one.standing]
    sign = "+" if one.plan.worse is Direction.INCREASE else "−"  # noqa: RUF001
    margin = DASH if one.plan.margin is None else f"{sign}{number(100 * one.plan.margin)} %"
    row = None if one.estimate is None else estimate_row(one.estimate, alpha)
    change = Cell(text="no estimate") if row is None else Cell(text=row.change, note=row.figures)
    return Cell(text=one.plan.metric, code=True), Cell(text=margin), change, Cell(text=text, tone=tone)


def _events(findings: RetrospectiveFindings) -> ReportSection:
    tables = tuple(
        Table(
            caption=f"{_named(one)} by periods since the change ({_SHORT})",
            headers=("periods", "hosts", "effect", f"{_level(findings)} interval", "band for all times"),
            rows=tuple(
                (
                    Cell(text=f"{point.event:+d}"),
                    Cell(text=f"{point.hosts:,}"),
                    Cell(text=_shown(one, point.effect)),
                    Cell(text=_interval(one, point.interval)),
                    Cell(text=_interval(one, point.band)),
                )
                for point in one.events[:MOST_ROWS]
            ),
            align="rrrll",
            folded=True,
        )
        for one in findings.metrics
        if one.events
    )
    text = (
        "Each effect is counted from the last period before the change, which is -1. Only times are shown that at "
        "least half of the changed hosts have."
        if tables
        else "No time before or after the change has enough hosts."
    )
    return ReportSection(key="events", title="Before and after", paragraphs=(text,), tables=tables)


def _checks(findings: RetrospectiveFindings) -> ReportSection:
    rows = tuple(
        (
            Cell(text=check.name),
            Cell(text=passed_word(check), tone="bad" if check.passed is False else ""),
            Cell(text=DASH if check.p_value is None else p_text(check.p_value)),
            Cell(text=check.detail),
        )
        for one in findings.metrics
        for check in one.checks
    )
    text = (
        "A pre-trend that was not found may still be there: how large one would have to be is told under sensitivity. "
        "Placebo hosts hold where few sets of hosts that were not changed moved as much as those that were."
    )
    table = Table(
        caption="What the comparison assumes, as far as it can be tested",
        headers=("check", "holds", "p", "what was seen"),
        rows=rows,
        align="lnrl",
    )
    return ReportSection(
        key="checks", title="Do the assumptions hold?", paragraphs=(text,), tables=(table,) if rows else ()
    )


def _placebos(findings: RetrospectiveFindings, primary: MetricFindings) -> ReportSection:
    rows = tuple(
        (
            Cell(text=number(one.earlier)),
            Cell(text=_shown(primary, one.effect)),
            Cell(text=_interval(primary, one.interval)),
            Cell(text=DASH if one.p_adjusted is None else p_text(one.p_adjusted)),
        )
        for one in primary.placebo_dates
    )
    if not rows:
        why = "The time before the change is too short for placebo dates."
        return ReportSection(key="placebos", title="Changes that never were", paragraphs=(why,))
    table = Table(
        caption=f"{_named(primary)}: what a change would have seemed to do so many periods earlier ({_SHORT})",
        headers=("periods earlier", "effect", f"{_level(findings)} interval", "p (Holm)"),
        rows=rows,
        align="rrlr",
    )
    return ReportSection(key="placebos", title="Changes that never were", tables=(table,))


def _sensitivity(primary: MetricFindings) -> ReportSection:
    title = "An influence that nobody saw"
    found = primary.robustness
    if found is None:
        why = next(iter(primary.warnings), "The sensitivity could not be computed")
        return ReportSection(key="sensitivity", title=title, paragraphs=(f"{why.rstrip('.')}.",))
    rows = tuple(
        (
            Cell(text=f"{size:g}"),
            Cell(text=_interval(primary, interval)),
            Cell(text="0 is outside" if _outside(interval) else "0 is inside"),
        )
        for size, interval in found.magnitudes
    )
    text = (
        f"Suppose that without the change hosts had drifted apart, from each {counted(found.block, 'period')} to the "
        "next by at most so many times the furthest step seen before the change (Rambachan and Roth 2023). "
        f"Then: {robustness_words(primary)}."
    )
    table = Table(
        caption=f"{_named(primary)}: the effect that such a drift leaves possible ({_SHORT})",
        headers=("times", "effect", "leaves"),
        rows=rows,
        align="rll",
    )
    return ReportSection(key="sensitivity", title=title, paragraphs=(text,), tables=(table,))


def _beside(findings: RetrospectiveFindings, primary: MetricFindings) -> ReportSection:
    if not primary.beside:
        return ReportSection(key="beside", title="The same question asked otherwise")
    table = Table(
        caption=f"{primary.plan.name}, estimated in other ways ({_SHORT})",
        headers=("how", "without", "measured", f"change [{_level(findings)} interval]"),
        rows=tuple(_beside_cells(one, primary, findings.alpha) for one in primary.beside),
        align="lrrl",
    )
    text = "None of these is the result. Where they lie far from it, it hangs on how the comparison is made."
    return ReportSection(key="beside", title="The same question asked otherwise", paragraphs=(text,), tables=(table,))


def _beside_cells(one: BesideRow, primary: MetricFindings, alpha: float) -> tuple[Cell, ...]:
    how = Cell(text=_KINDS[one.kind], note=one.about)
    if one.estimate is None:
        return how, Cell(text=DASH), Cell(text=DASH), Cell(text=f"unavailable: {one.reason}", tone="quiet")
    row = estimate_row(one.estimate, alpha, primary.plan.better)
    note = "; ".join(part for part in (row.figures, row.remark) if part)
    return how, Cell(text=row.control), Cell(text=row.treatment), Cell(text=row.change, note=note)


def _method(findings: RetrospectiveFindings) -> ReportSection:
    methods = dict.fromkeys(one.headline.method for one in findings.metrics if one.headline is not None)
    starts = ", ".join(findings.starts[:12]) + (" and later" if len(findings.starts) > 12 else "")
    return ReportSection(
        key="method",
        title="How this was made",
        paragraphs=(
            f"{'; '.join(methods) or 'No effect could be estimated'}. Each host's change from its last period before "
            "is set against the mean change of the others over the same periods, then averaged over the hosts that "
            "were changed. Errors are clustered by host: values of one host may go alike in time in any way, hosts "
            "are taken as independent. What struck all changed hosts at once besides the change counts as its effect. "
            "Where hosts share their load, what one takes over another loses, and the difference counts both.",
            f"Hosts were changed in: {starts}.",
        ),
    )


def _level(findings: RetrospectiveFindings) -> str:
    return f"{number(100 * (1 - findings.alpha))} %"


def _scale(found: MetricFindings) -> Scale:
    """The one scale of a metric's differences, so that the column of a table has one."""
    return scale_for(found.plan.unit, [point.effect for point in found.events] or (_estimated(found),))


def _estimated(found: MetricFindings) -> float | None:
    return None if found.headline is None else found.headline.difference


def _shown(found: MetricFindings, value: float) -> str:
    return _scale(found).show_difference(value)


def _interval(found: MetricFindings, interval: Interval | None) -> str:
    return DASH if interval is None else interval_text(interval, _scale(found).show_difference)


def _named(found: MetricFindings) -> str:
    """The metric, with the unit where its numbers do not carry one."""
    spelled = _scale(found).spelled
    return f"{found.plan.name} ({spelled})" if spelled else found.plan.name


def _outside(interval: Interval) -> bool:
    return (interval.low is not None and interval.low > 0) or (interval.high is not None and interval.high < 0)
