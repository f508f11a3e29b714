"""Two runs beside each other: what each found on the metrics that both estimated, and whether they agree."""

from __future__ import annotations

import math

from scipy import stats

from analysis.quantities import DASH, decimals_for, percentage
from analysis.report.content import ReportInput
from analysis.report.effects import estimate_row
from analysis.report.page import Cell, ReportPage, ReportSection, Table, decision_tone
from analysis.report.tables import directions, p_text
from analysis.results import Estimate, Interval
from analysis.wording import decision_label, interval_text


def comparison_page(first: ReportInput, second: ReportInput) -> ReportPage:
    """Set two runs side by side. Runs are different hosts at different times: nothing here is a randomised contrast."""
    pairs = _pairs(first, second)
    same = [row for row in (_agreement(one, other) for one, other in pairs) if row is not None]
    differ = sum(1 for p, *_ in same if p * len(same) < first.findings.alpha)  # Bonferroni: several are looked at
    if not same:
        reason = "no metric has a lift with an interval in both runs"
    elif differ:
        reason = f"{differ} of {len(same)} lifts differ by more than chance explains"
    else:
        reason = f"no sign that any of {len(same)} lifts differs"
    return ReportPage(
        title=f"Run {first.run_id} and run {second.run_id}",
        hypothesis="",
        about=tuple((f"Run {content.run_id}", _about(content)) for content in (first, second)),
        decision="comparison",
        tone="quiet",
        reason=f"{reason}.",
        alarms=tuple(
            f"SIMULATED: every host of run {content.run_id} was a model."
            for content in (first, second)
            if content.simulated
        ),
        warnings=("The runs were not drawn against each other: hosts, time and load may differ between them as well.",),
        sections=(_decisions(first, second), _effects(first, second, pairs), _only_in_one(first, second)),
    )


def _about(content: ReportInput) -> str:
    return f"{content.experiment}, {content.design}, {content.state.replace('_', ' ')}"


def _results(content: ReportInput) -> dict[tuple[str, str], Estimate]:
    return {(row.metric, row.treatment): row for row in content.findings.estimates if row.headline and not row.stratum}


def _pairs(first: ReportInput, second: ReportInput) -> list[tuple[Estimate, Estimate]]:
    one, other = _results(first), _results(second)
    return [(one[key], other[key]) for key in one if key in other]


def _agreement(one: Estimate, other: Estimate) -> tuple[float, float, Interval] | None:
    """Return p of equal lifts, their difference, its interval; normal, from the intervals' widths. None: not known."""
    spread = 0.0
    for row in (one, other):
        interval = row.lift_interval
        if (
            row.lift is None
            or interval is None
            or not interval.bounded
            or interval.low is None
            or interval.high is None
        ):
            return None
        half = (interval.high - interval.low) / 2
        quantile = stats.t.ppf(0.5 + interval.level / 2, row.df) if row.df else stats.norm.ppf(0.5 + interval.level / 2)
        spread += (half / float(quantile)) ** 2
    error = math.sqrt(spread)
    if error == 0 or one.lift is None or other.lift is None:
        return None
    level = one.lift_interval.level if one.lift_interval is not None else 0.95
    difference = other.lift - one.lift
    half = float(stats.norm.ppf(0.5 + level / 2)) * error
    p = float(2 * stats.norm.sf(abs(difference) / error))
    return p, difference, Interval(low=difference - half, high=difference + half, level=level)


def _decisions(first: ReportInput, second: ReportInput) -> ReportSection:
    rows = tuple(
        (
            Cell(text=content.run_id),
            Cell(text=decision_label(content.findings.decision), tone=decision_tone(content.findings.decision)),
            Cell(text=content.findings.reason),
        )
        for content in (first, second)
    )
    table = Table(caption="What each run decided", headers=("run", "decision", "reason"), rows=rows, align="lnl")
    return ReportSection(key="decisions", title="Decisions", tables=(table,))


def _effects(first: ReportInput, second: ReportInput, pairs: list[tuple[Estimate, Estimate]]) -> ReportSection:
    title = "The same metrics in both"
    if not pairs:
        return ReportSection(key="both", title=title, paragraphs=("No metric and arm was estimated in both runs.",))
    better = directions(first) | directions(second)
    rows = []
    for one, other in pairs:
        shown = [
            estimate_row(row, content.findings.alpha, better.get(row.metric))
            for row, content in ((one, first), (other, second))
        ]
        found = _agreement(one, other)
        apart = Cell(text=DASH)
        if found is not None:
            _, difference, interval = found
            ends = [100 * difference, *(100 * end for end in (interval.low, interval.high) if end is not None)]
            decimals = decimals_for(ends, abs(ends[2] - ends[1]) / 2)
            apart = Cell(
                text=f"{percentage(difference, decimals).removesuffix(' %')} points",
                note=interval_text(interval, lambda end, places=decimals: percentage(end, places)),  # type: ignore[misc]
            )
        rows.append(
            (
                Cell(text=one.metric, code=True),
                Cell(text=one.treatment),
                Cell(text=shown[0].change, note=shown[0].figures),
                Cell(text=shown[1].change, note=shown[1].figures),
                apart,
                Cell(text=DASH if found is None else p_text(found[0])),
            )
        )
    table = Table(
        caption="Lifts, and the second less the first",
        headers=("metric", "arm", f"run {first.run_id}", f"run {second.run_id}", "apart [interval]", "p"),
        rows=tuple(rows),
        align="llllrr",
    )
    text = "The difference takes the two runs as independent. It says whether they agree, not why they don't."
    return ReportSection(key="both", title=title, paragraphs=(text,), tables=(table,))


def _only_in_one(first: ReportInput, second: ReportInput) -> ReportSection:
    one, other = _results(first), _results(second)
    rows = [
        (Cell(text=metric, code=True), Cell(text=arm), Cell(text=content.run_id))
        for content, mine, theirs in ((first, one, other), (second, other, one))
        for metric, arm in mine
        if (metric, arm) not in theirs
    ]
    title = "In one of them only"
    if not rows:
        return ReportSection(key="one", title=title, paragraphs=("Both estimated the same metrics for the same arms.",))
    table = Table(caption="Estimated in one run", headers=("metric", "arm", "run"), rows=tuple(rows), align="lll")
    return ReportSection(key="one", title=title, tables=(table,))
