"""The chart of knob states: for each host the periods over time, and one lane for each knob with the values it held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from markupsafe import Markup

from analysis.report.charts.svg import Colour, draw, label
from analysis.report.content import EventRow, KnobRow, PeriodRow, ReportInput
from analysis.report.instants import clock, length, seconds_between

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 720.0
MOST_LANES = 24
MOST_MARKS = 600  # rectangles: keeps the chart well below the size of a photograph
_LEFT, _RIGHT = 12.0, 12.0
_HOST, _STRIP, _KNOB, _GAP, _AXIS = 24.0, 20.0, 38.0, 16.0, 34.0
_LETTER = 6.4  # CSS pixels that a letter takes at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One knob of one host: (from, to, value, changed) in seconds from the start."""

    knob: str
    spans: tuple[tuple[float, float, str, bool], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLanes:
    host: str
    periods: tuple[PeriodRow, ...]
    lanes: tuple[Lane, ...]
    events: tuple[EventRow, ...]

    @property
    def height(self) -> float:
        return _HOST + (_STRIP + 6) * bool(self.periods) + _KNOB * len(self.lanes) + _GAP

    @property
    def marks(self) -> int:
        return len(self.periods) * 2 + sum(len(lane.spans) for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """What the chart shows: the first hosts that fit, and how many it leaves off."""

    start: datetime
    seconds: float
    hosts: tuple[HostLanes, ...]
    left_off: int


def timeline(content: ReportInput) -> Timeline | None:
    """Lay the record of periods and knobs out by host; None where nothing has a time."""
    times = [row.changed_at for row in content.knob_changes]
    times += [at for row in content.periods for at in (row.started_at, row.ended_at) if at is not None]
    if not times:
        return None
    start = min(times)
    end = max(times)
    seconds = max(seconds_between(start, end), 1.0)
    names = sorted({row.host for row in content.knob_changes} | {row.host for row in content.periods})
    hosts: list[HostLanes] = []
    lanes = marks = 0
    for name in names:
        host = _host(content, name, start, seconds)
        lanes, marks = lanes + max(1, len(host.lanes)), marks + host.marks
        if hosts and (lanes > MOST_LANES or marks > MOST_MARKS):
            break
        hosts.append(host)
    return Timeline(start=start, seconds=seconds, hosts=tuple(hosts), left_off=len(names) - len(hosts))


def timeline_chart(content: ReportInput, shown: Timeline, colours: Mapping[str, Colour], key: str) -> Markup:
    """Draw the timeline."""
    height = sum(host.height for host in shown.hosts) + _AXIS

    def build(figure: Figure) -> None:
        axes = figure.add_axes((_LEFT / WIDTH, 0.0, 1 - (_LEFT + _RIGHT) / WIDTH, 1.0))
        axes.patch.set_visible(False)
        axes.set_axis_off()
        axes.set_xlim(0, shown.seconds)
        axes.set_ylim(height, 0)
        per_second = (WIDTH - _LEFT - _RIGHT) / shown.seconds
        top = 0.0
        for host in shown.hosts:
            _draw_host(axes, host, top, shown, colours, per_second)
            top += host.height
        _draw_axis(axes, top - _GAP / 2, shown)

    return draw(
        build,
        width=WIDTH,
        height=height,
        key=key,
        title="Knob states over time",
        description="; ".join(_describe(host) for host in shown.hosts) + ".",
    )


def _host(content: ReportInput, name: str, start: datetime, seconds: float) -> HostLanes:
    changes: dict[str, list[KnobRow]] = {}
    for row in sorted(content.knob_changes, key=lambda row: row.changed_at):
        if row.host == name:
            changes.setdefault(row.knob, []).append(row)
    periods = [row for row in content.periods if row.host == name and row.started_at is not None]
    return HostLanes(
        host=name,
        periods=tuple(periods[: MOST_MARKS // 2]),
        lanes=tuple(Lane(knob=knob, spans=_spans(rows, start, seconds)) for knob, rows in changes.items()),
        events=tuple(row for row in content.events if row.host == name),
    )


def _spans(rows: Sequence[KnobRow], start: datetime, seconds: float) -> tuple[tuple[float, float, str, bool], ...]:
    """Join what a knob read between its writes; writes that changed nothing leave no mark."""
    found = rows[0].before
    spans: list[tuple[float, float, str, bool]] = []
    since, value = 0.0, found
    for row in rows:
        at = seconds_between(start, row.changed_at)
        for reads in (row.before, row.after):  # `before` differs where somebody else wrote in between
            if reads != value:
                spans.append((since, at, value, value != found))
                since, value = at, reads
    spans.append((since, seconds, value, value != found))
    return tuple(span for span in spans if span[1] > span[0])


def _draw_host(
    axes: Axes, host: HostLanes, top: float, shown: Timeline, colours: Mapping[str, Colour], per_second: float
) -> None:
    axes.text(0, top + _HOST / 2, label(host.host, 80), color=Colour.INK, fontweight="bold", va="center", fontsize=11)
    strip = top + _HOST
    bottom = top + host.height - _GAP
    for period in host.periods:
        if period.started_at is None:
            continue
        left = seconds_between(shown.start, period.started_at)
        right = shown.seconds if period.ended_at is None else seconds_between(shown.start, period.ended_at)
        _draw_period(axes, period, (left, right), (strip, bottom), colours.get(period.arm, Colour.QUIET), per_second)
    lane_top = strip + (_STRIP + 6) * bool(host.periods)
    for lane in host.lanes:
        axes.text(0, lane_top + 8, label(lane.knob, 80), color=Colour.QUIET, va="center", fontsize=10)
        for left, right, value, changed in lane.spans:
            _draw_span(axes, (left, right), lane_top + 16, value, changed=changed, per_second=per_second)
        lane_top += _KNOB
    for event in host.events:
        at = min(max(seconds_between(shown.start, event.at), 0.0), shown.seconds)
        axes.plot([at, at], [strip - 3, bottom], color=Colour.ALARM, linewidth=1, linestyle=(0, (2, 2)))
        axes.scatter([at], [strip - 4], marker="v", s=26, color=Colour.ALARM, linewidths=0, clip_on=False)


def _draw_period(
    axes: Axes,
    period: PeriodRow,
    span: tuple[float, float],
    rows: tuple[float, float],
    colour: Colour,
    per_second: float,
) -> None:
    left, right = span
    top, bottom = rows
    invalid = period.state == "invalid"
    measured = period.kind == "measure"
    strength = 0.0 if invalid else 0.55 if measured else 0.18
    axes.fill_between([left, right], top, top + _STRIP, color=colour, alpha=strength, linewidth=0)
    if invalid:
        axes.fill(
            [left, right, right, left], [top, top, top + _STRIP, top + _STRIP],
            fill=False, edgecolor=Colour.ALARM, linewidth=1.2, linestyle=(0, (3, 2)),
        )  # fmt: skip
    elif measured:
        axes.fill_between([left, right], top + _STRIP, bottom, color=colour, alpha=0.07, linewidth=0)
    text = "×" if invalid else label(period.arm, 20) if measured else ""
    if text and len(text) * _LETTER + 4 <= (right - left) * per_second:
        axes.text((left + right) / 2, top + _STRIP / 2, text, color=Colour.INK, ha="center", va="center", fontsize=10)


def _draw_span(
    axes: Axes, span: tuple[float, float], top: float, value: str, *, changed: bool, per_second: float
) -> None:
    left, right = span
    height = 14.0
    axes.fill_between(
        [left, right], top, top + height, color=Colour.INK if changed else Colour.RULE, alpha=1, linewidth=0
    )
    text = label(value, 40)
    if len(text) * _LETTER + 6 <= (right - left) * per_second:
        axes.text(
            left + 4 / per_second, top + height / 2, text,
            color=Colour.PAPER if changed else Colour.INK, va="center", fontsize=10,
        )  # fmt: skip


def _draw_axis(axes: Axes, top: float, shown: Timeline) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.plot([0, shown.seconds], [top, top], color=Colour.RULE, linewidth=0.8)
    size, name = next(
        row for row in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")) if shown.seconds >= 2 * row[0] or row[0] == 1
    )
    for tick in MaxNLocator(nbins=8, min_n_ticks=2).tick_values(0, shown.seconds / size):
        at = tick * size
        if not 0 <= at <= shown.seconds:
            continue
        axes.plot([at, at], [top, top + 4], color=Colour.QUIET, linewidth=0.8)
        last = at > 0.96 * shown.seconds
        side = "left" if at == 0 else "right" if last else "center"
        axes.text(at, top + 14, f"{tick:g} {name}", color=Colour.QUIET, ha=side, va="center", fontsize=10.5)


def _describe(host: HostLanes) -> str:
    lanes = [
        f"{lane.knob} "
        + ", then ".join(f"{value} for {length(right - left)}" for left, right, value, _ in lane.spans[:12])
        for lane in host.lanes[:4]
    ]
    begun = [row.started_at for row in host.periods if row.started_at is not None]
    since = f" from {clock(min(begun))} UTC" if begun else ""
    return f"{host.host}{since}: {len(host.periods)} periods; " + "; ".join(lanes)
