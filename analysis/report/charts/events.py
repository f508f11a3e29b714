"""The chart of an event study: the effect by time since the change, each with its interval and the band for all."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.quantities import quantity, scale_for
from analysis.report.charts.axes import plain_axes
from analysis.report.charts.svg import Colour, draw, label
from analysis.results import Interval
from analysis.retrospective.event_study import BASE_EVENT
from analysis.retrospective.verdicts import EventPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 480.0, 250.0


def event_chart(metric: str, unit: str, points: Sequence[EventPoint], key: str) -> Markup:
    """Draw effects before the change hollow, after it filled; the base, where the effect is 0 by definition, as +."""
    ends = [end for one in points for end in (*_ends(one.band), *_ends(one.interval), one.effect)]
    scale = scale_for(unit, ends)

    def build(figure: Figure) -> None:
        axes = figure.add_axes((0.13, 0.18, 0.85, 0.68))
        for one in points:
            colour = Colour.ARM_1 if one.event >= 0 else Colour.CONTROL
            for interval, width, shade in ((one.band, 5.0, Colour.RULE), (one.interval, 1.6, colour)):
                if _ends(interval):
                    low, high = (end * scale.factor for end in _ends(interval))
                    axes.vlines(one.event, low, high, colors=shade, linewidths=width)
            face = colour if one.event >= 0 else Colour.PAPER
            axes.scatter([one.event], [one.effect * scale.factor], s=22, facecolors=face, edgecolors=colour, zorder=3)
        axes.scatter([BASE_EVENT], [0.0], marker="+", s=40, color=Colour.QUIET, zorder=3)
        plain_axes(axes)
        axes.axhline(0.0, color=Colour.INK, linewidth=1.0, zorder=1)
        axes.axvline(-0.5, color=Colour.INK, linewidth=0.9, linestyle=":", zorder=1)
        axes.set_xlabel("periods since the change", color=Colour.QUIET, labelpad=2)
        figure.text(0, 0.94, label(scale.suffix.strip() or scale.spelled or "effect"), color=Colour.QUIET, va="center")

    told = "; ".join(f"{one.event:+d}: {quantity(one.effect, unit)}" for one in points)
    return draw(
        build,
        width=WIDTH,
        height=HEIGHT,
        key=key,
        title=f"{metric}: effect by periods since the change, not randomised",
        description=f"{told}.",
    )


def _ends(interval: Interval | None) -> tuple[float, ...]:
    if interval is None or interval.low is None or interval.high is None:
        return ()
    return interval.low, interval.high
