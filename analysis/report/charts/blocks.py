"""The chart of blocks: both values of each block joined by a line, and below them the differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.quantities import MINUS, Scale, scale_for, tick
from analysis.report.charts.svg import Colour, draw, label
from analysis.results import BlockContrast, Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 360.0, 310.0
_MOST_NAMED = 12  # blocks named one by one on the axis and in the description


def block_chart(
    contrasts: Sequence[BlockContrast], estimate: Estimate | None, *, unit: str, control: str, colour: Colour, key: str
) -> Markup:
    """Draw the blocks of one metric and one treatment arm, in the order given."""
    first = contrasts[0]
    values = [value for row in contrasts for value in (row.control_value, row.treatment_value)]
    scale = scale_for(unit, values)

    def build(figure: Figure) -> None:
        upper = figure.add_axes((0.16, 0.45, 0.82, 0.46))
        lower = figure.add_axes((0.16, 0.13, 0.82, 0.2))
        _values(upper, contrasts, scale, colour)
        _differences(lower, contrasts, estimate, scale, colour)
        _headings(figure, scale, control, first.treatment)

    return draw(
        build,
        width=WIDTH,
        height=HEIGHT,
        key=key,
        title=f"{first.metric} in each block, {first.treatment} against {control}",
        description=_description(contrasts, scale, control),
    )


def _headings(figure: Figure, scale: Scale, control: str, treatment: str) -> None:
    unit = scale.suffix.strip() or scale.spelled or "value"
    difference = f"difference, {label(treatment, 14)} {MINUS} {label(control, 14)}"
    if scale.difference_suffix:
        difference += f", {scale.difference_suffix.strip()}"
    figure.text(0, 0.955, label(unit), color=Colour.QUIET, va="center")
    figure.text(0, 0.37, difference, color=Colour.QUIET, va="center")


def _values(axes: Axes, contrasts: Sequence[BlockContrast], scale: Scale, colour: Colour) -> None:
    places = range(len(contrasts))
    controls = [row.control_value * scale.factor for row in contrasts]
    treatments = [row.treatment_value * scale.factor for row in contrasts]
    axes.vlines(places, controls, treatments, colors=Colour.RULE, linewidths=2, zorder=1)
    many = len(contrasts) > 40
    size = 9 if many else 34
    axes.scatter(
        places,
        controls,
        s=size,
        facecolors=Colour.PAPER,
        edgecolors=Colour.CONTROL,
        linewidths=1.6,
        zorder=2,
        clip_on=False,
    )
    axes.scatter(
        places, treatments, s=size, facecolors=colour, edgecolors=colour, linewidths=1.6, zorder=3, clip_on=False
    )
    _frame(axes, contrasts, labelled=False)
    low, high = min(*controls, *treatments), max(*controls, *treatments)
    pad = (high - low) * 0.12 or abs(high) * 0.1 or 1.0
    # From 0 where that costs little room: a small change must not look large.
    floor = 0.0 if 0 <= low <= 0.75 * high else low - pad
    axes.set_ylim(floor, high + pad)


def _differences(
    axes: Axes, contrasts: Sequence[BlockContrast], estimate: Estimate | None, scale: Scale, colour: Colour
) -> None:
    differences = [(row.treatment_value - row.control_value) * scale.factor for row in contrasts]
    places = range(len(contrasts))
    axes.axhline(0, color=Colour.INK, linewidth=0.9, zorder=2)
    ends = [0.0, *differences]
    interval = estimate.difference_interval if estimate is not None else None
    if estimate is not None and estimate.difference is not None:
        if interval is not None and interval.bounded and interval.low is not None and interval.high is not None:
            low, high = interval.low * scale.factor, interval.high * scale.factor
            axes.axhspan(low, high, color=colour, alpha=0.16, linewidth=0, zorder=0)
            ends += [low, high]
        axes.axhline(estimate.difference * scale.factor, color=colour, linewidth=1, zorder=1)
    axes.scatter(places, differences, s=9 if len(contrasts) > 40 else 22, color=colour, linewidths=0, zorder=3)
    _frame(axes, contrasts, labelled=True)
    pad = (max(ends) - min(ends)) * 0.15 or 1.0
    axes.set_ylim(min(ends) - pad, max(ends) + pad)


def _frame(axes: Axes, contrasts: Sequence[BlockContrast], *, labelled: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    axes.patch.set_visible(False)
    axes.set_xlim(-0.6, len(contrasts) - 0.4)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4 if not labelled else 3, min_n_ticks=2))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.tick_params(colors=Colour.QUIET, labelcolor=Colour.QUIET, length=0, pad=4)
    axes.grid(axis="y", color=Colour.RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)
    every = max(1, -(-len(contrasts) // _MOST_NAMED))
    places = list(range(0, len(contrasts), every)) if labelled else []
    one_host = len({row.host for row in contrasts}) == 1
    axes.set_xticks(places, [str(contrasts[place].block if one_host else place) for place in places])
    if labelled:
        name = "block" if one_host else "block, counted over all hosts"
        axes.set_xlabel(name, color=Colour.QUIET, labelpad=2)


def _description(contrasts: Sequence[BlockContrast], scale: Scale, control: str) -> str:
    rows = [
        f"block {row.block}: {control} {scale.show(row.control_value)}, "
        f"{row.treatment} {scale.show(row.treatment_value)}"
        for row in contrasts[:_MOST_NAMED]
    ]
    more = len(contrasts) - _MOST_NAMED
    return "; ".join(rows) + (f"; and {more} more blocks." if more > 0 else ".")
