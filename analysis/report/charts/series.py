"""The chart of a metric over time: a line an arm, a vertical line for each stage that opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.quantities import number, quantity, scale_for
from analysis.report.charts.axes import plain_axes, with_room
from analysis.report.charts.svg import Colour, draw, label
from analysis.report.content import SeriesRow, StageRow

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 640.0, 230.0
_LEFT, _RIGHT = 0.09, 0.98
_LONG = 2.5  # usual steps: beyond, nothing was read


def series_chart(
    rows: Sequence[SeriesRow], stages: Sequence[StageRow], colours: Mapping[str, Colour], key: str
) -> Markup:
    """Draw the arms of one metric; where nothing was read for long, the line has a gap."""
    first = rows[0]
    scale = scale_for(first.unit, [value for row in rows for value in row.means])
    time = scale_for("seconds", [second for row in rows for second in row.seconds])
    opened = [stage for stage in stages if stage.opened_seconds is not None and stage.index > 0]

    def build(figure: Figure) -> None:
        axes = figure.add_axes((_LEFT, 0.17, _RIGHT - _LEFT, 0.68))
        every: list[float] = []
        for row in rows:
            values = [value * scale.factor for value in row.means]
            every += values
            places = [second * time.factor for second in row.seconds]
            colour = colours.get(row.arm, Colour.ARM_1)
            for start, end in _stretches(places):
                axes.plot(places[start:end], values[start:end], color=colour, linewidth=1.8)
                if end - start == 1:
                    axes.scatter(places[start:end], values[start:end], color=colour, s=14, linewidths=0)
        for stage in opened:
            axes.axvline((stage.opened_seconds or 0.0) * time.factor, color=Colour.INK, linewidth=0.9)
        with_room(axes, every)
        plain_axes(axes)
        axes.set_xlabel(f"time since the start, {time.suffix.strip()}", color=Colour.QUIET, labelpad=2)
        unit = scale.suffix.strip() or scale.spelled or "value"
        figure.text(0, 0.93, label(unit), color=Colour.QUIET, va="center")

    return draw(
        build,
        width=WIDTH,
        height=HEIGHT,
        key=key,
        title=f"{first.metric} over time",
        description=_description(rows, opened),
    )


def _stretches(places: Sequence[float]) -> list[tuple[int, int]]:
    """Cut the points where the step to the next is much longer than usual: [start, end) of each piece."""
    steps = [later - earlier for earlier, later in pairwise(places)]
    usual = sorted(steps)[len(steps) // 2] if steps else 0.0
    cuts = [0, *(place + 1 for place, step in enumerate(steps) if step > _LONG * usual), len(places)]
    return list(pairwise(cuts))


def _description(rows: Sequence[SeriesRow], opened: Sequence[StageRow]) -> str:
    lines = [
        f"{row.arm}: from {quantity(row.means[0], row.unit)} to {quantity(row.means[-1], row.unit)}, "
        f"between {quantity(min(row.means), row.unit)} and {quantity(max(row.means), row.unit)}"
        for row in rows
    ]
    lines += [
        f"stage {stage.index + 1} opened after {number((stage.opened_seconds or 0.0) / 60)} minutes" for stage in opened
    ]
    return "; ".join(lines) + "."
