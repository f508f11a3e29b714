"""The chart of lifts: each relative change with its interval, against zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.quantities import percentage, signed, tick
from analysis.report.charts.svg import Colour, draw, label
from analysis.report.effects import EffectOutcome, EffectRow
from analysis.results import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 400.0
MOST_ROWS = 40
_ROW, _MARGIN = 44.0, 30.0
_WIDEST = 4.0  # an interval is cut, with an arrow, where it is this many times wider than the largest lift


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """One line of the chart: an estimate that has a lift, and its row in words.

    `margin` is the relative change that a guardrail forbids, with its sign (0.1: no rise above 10 %). `mde` is the
    smallest lift that these data would have shown in 4 of 5 experiments.
    """

    estimate: Estimate
    row: EffectRow
    colour: Colour
    margin: float | None = None
    mde: float | None = None


def lift_chart(lifts: Sequence[Lift], key: str, *, name_arms: bool) -> Markup:
    """Draw at most MOST_ROWS lifts in the order given; `name_arms` adds the arm to each label."""
    shown = list(lifts[:MOST_ROWS])
    height = _MARGIN + _ROW * len(shown)

    def build(figure: Figure) -> None:
        bottom = _MARGIN / height
        axes = figure.add_axes((0.05, bottom, 0.93, 1 - bottom))
        reach = _reach(shown)
        for place, lift in enumerate(shown):
            _line(axes, place, lift, reach)
            name = label(lift.row.metric + (f", {lift.estimate.treatment}" if name_arms else ""), 52)
            ground = {"facecolor": Colour.PAPER, "linewidth": 0, "pad": 1}
            figure.text(0, 1 - (_ROW * place + 12) / height, name, color=Colour.INK, va="center", bbox=ground)
        _frame(axes, len(shown), reach)

    return draw(
        build,
        width=WIDTH,
        height=height,
        key=key,
        title="Relative changes with their intervals, against zero",
        description="; ".join(
            f"{lift.row.metric}, {lift.estimate.treatment}: {lift.row.change} {lift.row.figures}{_limits(lift)}"
            for lift in shown
        )
        + ".",
    )


def _limits(lift: Lift) -> str:
    said = "" if lift.mde is None else f", smallest change that would have shown {percentage(lift.mde, 1, sign=False)}"
    return said if lift.margin is None else f"{said}, margin {percentage(lift.margin, 1)}"


def _reach(lifts: Sequence[Lift]) -> tuple[float, float]:
    """The span of the axis in per cent: every lift, and the intervals as far as they leave the lifts readable."""
    points = [100 * (lift.estimate.lift or 0.0) for lift in lifts]
    most = max(10.0, _WIDEST * max(abs(point) for point in points))
    ends = [0.0, *points]
    for lift in lifts:
        interval = lift.estimate.lift_interval
        for end in () if interval is None or interval.excludes else (interval.low, interval.high):
            if end is not None:
                ends.append(min(most, max(-most, 100 * end)))
        for point in (lift.margin, lift.mde, None if lift.mde is None else -lift.mde):
            if point is not None and abs(100 * point) <= most:
                ends.append(100 * point)
    pad = (max(ends) - min(ends)) * 0.06 or 1.0
    return min(ends) - pad, max(ends) + pad


def _line(axes: Axes, place: int, lift: Lift, reach: tuple[float, float]) -> None:
    if lift.mde is not None:
        low, high = max(-100 * lift.mde, reach[0]), min(100 * lift.mde, reach[1])
        axes.hlines(place, low, high, colors=Colour.RULE, linewidths=11, zorder=0.5)
    if lift.margin is not None and reach[0] <= 100 * lift.margin <= reach[1]:
        axes.vlines(100 * lift.margin, place - 0.24, place + 0.24, colors=Colour.ALARM, linewidths=2.4, zorder=2)
    clear = lift.row.outcome is not EffectOutcome.UNCLEAR
    colour = lift.colour if clear else Colour.QUIET
    interval = lift.estimate.lift_interval
    if interval is not None and not interval.excludes:
        low = reach[0] if interval.low is None else 100 * interval.low
        high = reach[1] if interval.high is None else 100 * interval.high
        axes.hlines(place, max(low, reach[0]), min(high, reach[1]), colors=colour, linewidths=2.2)
        for beyond, end, marker in ((low <= reach[0], reach[0], "<"), (high >= reach[1], reach[1], ">")):
            if beyond:
                axes.scatter([end], [place], marker=marker, s=36, color=colour, linewidths=0, clip_on=False)
    axes.scatter(
        [100 * (lift.estimate.lift or 0.0)],
        [place],
        s=44,
        facecolors=colour if clear else Colour.PAPER,
        edgecolors=colour,
        linewidths=1.6,
        zorder=3,
    )


def _frame(axes: Axes, rows: int, reach: tuple[float, float]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    axes.patch.set_visible(False)
    axes.set_xlim(*reach)
    axes.set_ylim(rows - 0.68, -0.68)  # each line in the lower part of its row, below its name
    axes.set_yticks([])
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, min_n_ticks=3))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{signed(tick(value))} %"))
    axes.tick_params(colors=Colour.QUIET, labelcolor=Colour.QUIET, length=0, pad=5)
    axes.grid(axis="x", color=Colour.RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.axvline(0, color=Colour.INK, linewidth=1.1, zorder=1)
    for spine in axes.spines.values():
        spine.set_visible(False)
