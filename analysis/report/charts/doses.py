"""The chart of doses: each host's outcome against what it received of the treatment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.quantities import scale_for
from analysis.report.charts.axes import plain_axes, with_room
from analysis.report.charts.svg import Colour, draw, label
from analysis.report.content import Doses

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 480.0, 290.0


def dose_chart(doses: Doses, control: str, colours: Mapping[str, Colour], key: str) -> Markup:
    """Draw one mark a host: hollow for the control, filled for treated ones. No line: doses were not drawn."""
    dose = scale_for(doses.dose_unit, [host.dose for host in doses.hosts])
    outcome = scale_for(doses.outcome_unit, [host.outcome for host in doses.hosts])

    def build(figure: Figure) -> None:
        axes = figure.add_axes((0.13, 0.17, 0.84, 0.72))
        size = 26 if len(doses.hosts) < 200 else 9
        for arm in dict.fromkeys(host.arm for host in doses.hosts):
            own = [host for host in doses.hosts if host.arm == arm]
            colour = colours.get(arm, Colour.ARM_1)
            axes.scatter(
                [host.dose * dose.factor for host in own],
                [host.outcome * outcome.factor for host in own],
                s=size,
                facecolors=Colour.PAPER if arm == control else colour,
                edgecolors=colour,
                linewidths=1.3,
                clip_on=False,
            )
        with_room(axes, [host.outcome * outcome.factor for host in doses.hosts])
        plain_axes(axes)
        unit = dose.suffix.strip() or dose.spelled
        axes.set_xlabel(label(f"{doses.dose_metric}, {unit}", 60), color=Colour.QUIET, labelpad=2)
        above = outcome.suffix.strip() or outcome.spelled
        figure.text(0, 0.95, label(f"{doses.outcome_metric}, {above}", 60), color=Colour.QUIET, va="center")

    return draw(
        build,
        width=WIDTH,
        height=HEIGHT,
        key=key,
        title=f"{doses.outcome_metric} against {doses.dose_metric}, one mark a host",
        description=f"{len(doses.hosts)} hosts; the table of effects per unit says what the marks show.",
    )
