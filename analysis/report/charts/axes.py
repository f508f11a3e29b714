"""What the charts with two plain axes share: quiet ticks, a light grid, no frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.quantities import tick
from analysis.report.charts.svg import Colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plain_axes(axes: Axes) -> None:
    """Give both axes few round ticks in the reader's numbers and drop the frame."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    axes.patch.set_visible(False)
    for axis, most in ((axes.xaxis, 6), (axes.yaxis, 4)):
        axis.set_major_locator(MaxNLocator(nbins=most, min_n_ticks=2))
        axis.set_major_formatter(FuncFormatter(lambda value, _: tick(value)))
    axes.tick_params(colors=Colour.QUIET, labelcolor=Colour.QUIET, length=0, pad=4)
    axes.grid(axis="y", color=Colour.RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    for spine in axes.spines.values():
        spine.set_visible(False)


def with_room(axes: Axes, values: list[float]) -> None:
    """Set the y axis so that nothing touches its ends; from 0 where that costs little room."""
    low, high = min(values), max(values)
    pad = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    axes.set_ylim(0.0 if 0 <= low <= 0.5 * high else low - pad, high + pad)
