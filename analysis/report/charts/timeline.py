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
_LEFT, _RIGHT = 0.0, 8.0
_HOST, _STRIP, _KNOB, _GAP, _AXIS = 26.0, 12.0, 42.0, 16.0, 36.0
_BAR = 18.0
_MOST_TICKS = 8
# Seconds between ticks: what clocks and calendars divide into.
_STEPS = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200,
    86400, 2 * 86400, 7 * 86400, 14 * 86400, 28 * 86400,
)  # fmt: skip
_LETTER = 6.6  # CSS pixels that a letter takes at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """One knob of one host: the value it was found with, and (from, to, value) in seconds from the start."""

    knob: str
    found: str
    spans: tuple[tuple[float, float, str], ...]


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
    askers = {
        (knob, value): colours.get(arm.name, Colour.QUIET)
        for arm in reversed(content.arms)  # of two arms with the same value the first gives the colour
        for knob, value in arm.knobs.items()
    }

    def build(figure: Figure) -> None:
        axes = figure.add_axes((_LEFT / WIDTH, 0.0, 1 - (_LEFT + _RIGHT) / WIDTH, 1.0))
        axes.patch.set_visible(False)
        axes.set_axis_off()
        axes.set_xlim(0, shown.seconds)
        axes.set_ylim(height, 0)
        sheet = _Sheet(axes=axes, start=shown.start, seconds=shown.seconds, colours=colours, askers=askers)
        top = 0.0
        for host in shown.hosts:
            _draw_host(sheet, host, top)
            top += host.height
        _draw_axis(sheet, top - _GAP / 2)

    return draw(
        build,
        width=WIDTH,
        height=height,
        key=key,
        title="Knob states over time",
        description="; ".join(_describe(host) for host in shown.hosts) + ".",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sheet:
    """What everything is drawn on: x in seconds from `start`, y in CSS pixels from the top."""

    axes: Axes
    start: datetime
    seconds: float
    colours: Mapping[str, Colour]
    askers: Mapping[tuple[str, str], Colour]  # (knob, value) -> the colour of the arm that sets it

    def at(self, instant: datetime | None) -> float:
        """Where an instant stands; what has not happened yet stands at the right edge."""
        if instant is None:
            return self.seconds
        return min(max(seconds_between(self.start, instant), 0.0), self.seconds)

    def fits(self, text: str, left: float, right: float) -> bool:
        """Whether `text` has room between two places."""
        pixels = (right - left) * (WIDTH - _LEFT - _RIGHT) / self.seconds
        return bool(text) and len(text) * _LETTER + 6 <= pixels

    def pixels(self, count: float) -> float:
        """How many seconds that many pixels are."""
        return count * self.seconds / (WIDTH - _LEFT - _RIGHT)


def _host(content: ReportInput, name: str, start: datetime, seconds: float) -> HostLanes:
    changes: dict[str, list[KnobRow]] = {}
    for row in sorted(content.knob_changes, key=lambda row: row.changed_at):
        if row.host == name:
            changes.setdefault(row.knob, []).append(row)
    periods = [row for row in content.periods if row.host == name and row.started_at is not None]
    return HostLanes(
        host=name,
        periods=tuple(periods[: MOST_MARKS // 2]),
        lanes=tuple(
            Lane(knob=knob, found=rows[0].before, spans=_spans(rows, start, seconds)) for knob, rows in changes.items()
        ),
        events=tuple(row for row in content.events if row.host == name),
    )


def _spans(rows: Sequence[KnobRow], start: datetime, seconds: float) -> tuple[tuple[float, float, str], ...]:
    """Join what a knob read between its writes; writes that changed nothing leave no mark."""
    spans: list[tuple[float, float, str]] = []
    since, value = 0.0, rows[0].before
    for row in rows:
        at = seconds_between(start, row.changed_at)
        for reads in (row.before, row.after):  # `before` differs where somebody else wrote in between
            if reads != value:
                spans.append((since, at, value))
                since, value = at, reads
    spans.append((since, seconds, value))
    return tuple(span for span in spans if span[1] > span[0])


def _draw_host(sheet: _Sheet, host: HostLanes, top: float) -> None:
    axes = sheet.axes
    axes.text(0, top + _HOST / 2, label(host.host, 80), color=Colour.INK, fontweight="bold", va="center")
    strip = top + _HOST
    bottom = top + host.height - _GAP
    for period in host.periods:
        _draw_period(sheet, period, strip, bottom)
    lane_top = strip + (_STRIP + 6) * bool(host.periods)
    for lane in host.lanes:
        axes.text(0, lane_top + 9, label(lane.knob, 80), color=Colour.QUIET, va="center")
        for span in lane.spans:
            _draw_span(sheet, lane, lane_top + 18, span)
        lane_top += _KNOB
    for event in host.events:
        at = sheet.at(event.at)
        axes.plot([at, at], [strip - 3, bottom], color=Colour.ALARM, linewidth=1, linestyle=(0, (2, 2)))
        axes.scatter([at], [strip - 4], marker="v", s=26, color=Colour.ALARM, linewidths=0, clip_on=False)


def _draw_period(sheet: _Sheet, period: PeriodRow, top: float, bottom: float) -> None:
    """Shade one period: a bar in its arm's colour, a tint over the lanes below; dashed where it is not used."""
    left, right = sheet.at(period.started_at), sheet.at(period.ended_at)
    invalid, measured = period.state == "invalid", period.kind == "measure"
    colour = sheet.colours.get(period.arm, Colour.QUIET)
    axes, edge = sheet.axes, top + _STRIP
    if invalid:
        corners = [left, right, right, left], [top, top, edge, edge]
        axes.fill(*corners, fill=False, edgecolor=Colour.ALARM, linewidth=1.2, linestyle=(0, (3, 2)))
    else:
        axes.fill_between([left, right], top, edge, color=colour, alpha=0.4 if measured else 0.14, linewidth=0)
    if measured:
        axes.fill_between([left, right], edge, bottom, color=colour, alpha=0.07, linewidth=0)


def _draw_span(sheet: _Sheet, lane: Lane, top: float, span: tuple[float, float, str]) -> None:
    """Draw one value of a knob in the colour of the arm that asks for it; as found is pale, nobody's is an alarm."""
    left, right, value = span
    as_found = value == lane.found
    fill = Colour.RULE if as_found else sheet.askers.get((lane.knob, value), Colour.ALARM)
    sheet.axes.fill_between([left, right], top, top + _BAR, color=fill, linewidth=0)
    text = label(value, 40)
    if sheet.fits(text, left, right):
        ink = Colour.INK if as_found else Colour.PAPER
        sheet.axes.text(left + sheet.pixels(4), top + _BAR / 2 + 0.5, text, color=ink, va="center", fontsize=11)


def _draw_axis(sheet: _Sheet, top: float) -> None:
    axes, seconds = sheet.axes, sheet.seconds
    axes.plot([0, seconds], [top, top], color=Colour.RULE, linewidth=0.8)
    step = next((size for size in _STEPS if seconds / size <= _MOST_TICKS), seconds / _MOST_TICKS)
    for count in range(int(seconds / step) + 1):
        at = count * step
        axes.plot([at, at], [top, top + 4], color=Colour.QUIET, linewidth=0.8)
        side = "left" if at == 0 else "right" if at > 0.95 * seconds else "center"
        text = "start" if at == 0 else length(at)
        axes.text(at, top + 15, text, color=Colour.QUIET, ha=side, va="center")


def _describe(host: HostLanes) -> str:
    lanes = [
        f"{lane.knob} "
        + ", then ".join(f"{value} for {length(right - left)}" for left, right, value in lane.spans[:12])
        for lane in host.lanes[:4]
    ]
    begun = [row.started_at for row in host.periods if row.started_at is not None]
    since = f" from {clock(min(begun))} UTC" if begun else ""
    return f"{host.host}{since}: {len(host.periods)} period{'' if len(host.periods) == 1 else 's'}; " + "; ".join(lanes)
