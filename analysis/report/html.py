"""Renders a report as one HTML file: nothing is loaded, no script is needed, all foreign text is escaped."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

from jinja2 import Environment
from markupsafe import Markup

from analysis.plan import Direction, GuardrailPlan, Role
from analysis.quantities import MINUS
from analysis.report.charts.blocks import block_chart
from analysis.report.charts.doses import dose_chart
from analysis.report.charts.lifts import MOST_ROWS as MOST_LIFTS
from analysis.report.charts.lifts import Lift, lift_chart
from analysis.report.charts.series import series_chart
from analysis.report.charts.svg import Colour, arm_colours
from analysis.report.charts.timeline import timeline, timeline_chart
from analysis.report.comparison import comparison_page
from analysis.report.content import ReportInput, SeriesRow
from analysis.report.effects import estimate_row, smallest_lift
from analysis.report.escaping import visible
from analysis.report.instants import instant
from analysis.report.page import ReportPage
from analysis.report.sections import page
from analysis.report.tables import directions
from analysis.report.templating import strict_environment
from analysis.results import BlockContrast, Estimate

REPORT_MARK = Markup('<meta name="generator" content="fleetexp report">')  # early in a file: it is one of ours
MOST_BLOCK_CHARTS = 12
MOST_BLOCKS = 200
MOST_SERIES = 6
FEWEST_DOSES, MOST_DOSES = 4, 600


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """An SVG with its caption: a heading, legend entries (arm, css class), and a remark."""

    svg: Markup
    heading: str = ""
    legend: tuple[tuple[str, str], ...] = ()
    remark: str = ""


def render_html(content: ReportInput) -> str:
    """Render the report as one self-contained HTML document. Equal input gives equal text."""
    colours = arm_colours(tuple(arm.name for arm in content.arms), content.control)
    charts = {
        "blocks": _block_charts(content, colours),
        "lifts": _lift_charts(content, colours),
        "doses": _dose_charts(content, colours),
        "series": _series_charts(content, colours),
        "timeline": _timeline_charts(content, colours),
    }
    return page_as_html(page(content), charts)


def render_comparison_html(first: ReportInput, second: ReportInput) -> str:
    """Render two runs beside each other as one self-contained HTML document."""
    return page_as_html(comparison_page(first, second), {})


def page_as_html(shown: ReportPage, charts: Mapping[str, tuple[Chart, ...]]) -> str:
    """Fill the template with a page; `charts` are keyed by the section they stand in."""
    return _environment().get_template("report.html.j2").render(page=shown, charts=charts, mark=REPORT_MARK)


_BREAKS = re.compile(f"([_/]|[+{MINUS}]?\\d[\\d.,]* %)")
_PIECES = {"_": Markup("{}<wbr>"), "/": Markup("{}<wbr>"), "%": Markup('<span class="figure">{}</span>')}


@cache
def _environment() -> Environment:
    environment = strict_environment(_shown)
    environment.filters["breakable"] = _breakable
    return environment


def _shown(value: object) -> object:
    """Spell out what can't be seen in any text that reaches the page; markup made by us passes."""
    return value if isinstance(value, Markup) else visible(str(value))


def _breakable(text: str) -> Markup:
    """Let a long name break after '_' and '/', and keep a number beside its '%': no letter of the text changes."""
    parts = _BREAKS.split(visible(text))  # every other one is what was split at
    return Markup("").join(_PIECES[part[-1]].format(part) if place % 2 else part for place, part in enumerate(parts))


def _block_charts(content: ReportInput, colours: dict[str, Colour]) -> tuple[Chart, ...]:
    found: dict[tuple[str, str], list[BlockContrast]] = {}
    for row in content.findings.contrasts:
        found.setdefault((row.metric, row.treatment), []).append(row)
    estimates = {(row.metric, row.treatment): row for row in content.findings.estimates if _is_result(row)}
    units = {row.metric: row.unit for row in content.findings.estimates}
    order = {key: place for place, key in enumerate(estimates)}
    keys = sorted((key for key in found if not _flat(found[key])), key=lambda key: order.get(key, len(order)))
    charts = []
    for place, (metric, arm) in enumerate(keys[:MOST_BLOCK_CHARTS]):
        rows = sorted(found[metric, arm], key=lambda row: (row.host, row.block))
        estimate = estimates.get((metric, arm))
        colour = colours.get(arm, Colour.ARM_1)
        cut = f"The first {MOST_BLOCKS} of {len(rows):,} blocks. " if len(rows) > MOST_BLOCKS else ""
        svg = block_chart(
            rows[:MOST_BLOCKS],
            estimate,
            unit=units.get(metric, ""),
            control=content.control,
            colour=colour,
            key=f"blocks-{place}",
        )
        legend = ((content.control, "control"), (arm, _css(colour)))
        charts.append(Chart(svg=svg, heading=metric, legend=legend, remark=cut))
    return tuple(charts)


def _flat(rows: list[BlockContrast]) -> bool:
    """Whether nothing was counted under either arm: the table says 0, and a picture of it says no more."""
    return all(row.control_value == row.treatment_value == 0 for row in rows)


def _is_result(row: Estimate) -> bool:
    return row.headline and not row.stratum


def _lift_charts(content: ReportInput, colours: dict[str, Colour]) -> tuple[Chart, ...]:
    better = directions(content)
    order = list(Role)
    estimates = [row for row in content.findings.estimates if _is_result(row) and row.lift is not None]
    estimates.sort(key=lambda row: order.index(row.role))
    margins = {(rail.plan.metric, rail.treatment): rail.plan for rail in content.findings.guardrails}
    lifts = [
        Lift(
            estimate=row,
            row=estimate_row(row, content.findings.alpha, better.get(row.metric)),
            colour=colours.get(row.treatment, Colour.ARM_1),
            margin=_margin(margins.get((row.metric, row.treatment))),
            mde=smallest_lift(row, content.findings.alpha),
        )
        for row in estimates
        if row.role not in {Role.OBSERVER, Role.EXPOSURE}
    ]
    if not lifts:
        return ()
    cut = f"The first {MOST_LIFTS} of {len(lifts)}." if len(lifts) > MOST_LIFTS else ""
    arms = {lift.estimate.treatment for lift in lifts}
    said = "A pale bar is what would have gone unseen: a change within it shows in fewer than 4 of 5 such experiments. "
    if any(lift.margin is not None for lift in lifts):
        said += "A red mark is a guardrail's margin. "
    return (Chart(svg=lift_chart(lifts, "lifts", name_arms=len(arms) > 1), remark=said + cut),)


def _margin(guardrail: GuardrailPlan | None) -> float | None:
    if guardrail is None or guardrail.margin is None:
        return None
    return guardrail.margin if guardrail.worse is Direction.INCREASE else -guardrail.margin


def _dose_charts(content: ReportInput, colours: dict[str, Colour]) -> tuple[Chart, ...]:
    doses = content.doses
    if doses is None or len(doses.hosts) < FEWEST_DOSES:
        return ()
    cut = f"{MOST_DOSES} of {len(doses.hosts):,} hosts, evenly chosen." if len(doses.hosts) > MOST_DOSES else ""
    every = -(-len(doses.hosts) // MOST_DOSES)
    shown = replace(doses, hosts=doses.hosts[::every])
    return (Chart(svg=dose_chart(shown, content.control, colours, "doses"), legend=_legend(colours), remark=cut),)


def _series_charts(content: ReportInput, colours: dict[str, Colour]) -> tuple[Chart, ...]:
    by_metric: dict[str, list[SeriesRow]] = {}
    for row in content.series:
        by_metric.setdefault(row.metric, []).append(row)
    return tuple(
        Chart(
            svg=series_chart(rows, content.stages, colours, f"series-{place}"),
            heading=metric,
            legend=_legend({row.arm: colours.get(row.arm, Colour.ARM_1) for row in rows}),
        )
        for place, (metric, rows) in enumerate(list(by_metric.items())[:MOST_SERIES])
    )


def _legend(colours: Mapping[str, Colour]) -> tuple[tuple[str, str], ...]:
    return tuple((arm, _css(colour)) for arm, colour in colours.items())


def _timeline_charts(content: ReportInput, colours: dict[str, Colour]) -> tuple[Chart, ...]:
    shown = timeline(content)
    if shown is None:
        return ()
    remark = f"From {instant(shown.start)}. A lane has the colour of the arm whose value it holds; "
    remark += "pale is as found, red is a value that no arm asks for, a dashed box is a period that was not used. "
    if any(host.events for host in shown.hosts):
        remark += "A dashed line with a triangle is an event. "
    if shown.left_off:
        remark += f"{shown.left_off:,} more hosts are not drawn; the view host_timeline in the store has them."
    return (Chart(svg=timeline_chart(content, shown, colours, "timeline"), legend=_legend(colours), remark=remark),)


def _css(colour: Colour) -> str:
    return colour.name.lower().replace("_", "-")
