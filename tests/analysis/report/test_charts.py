"""Charts draw what they are given, in the page's colours, and stay small."""

from __future__ import annotations

import re
import threading
from dataclasses import replace
from datetime import timedelta
from types import ModuleType

import pytest

from analysis.plan import Role
from analysis.report import EventRow, KnobRow, PeriodRow, ReportInput, render_html
from analysis.report.charts.blocks import block_chart
from analysis.report.charts.lifts import Lift, lift_chart
from analysis.report.charts.svg import Colour, arm_colours, draw, label
from analysis.report.charts.timeline import MOST_LANES, timeline, timeline_chart
from analysis.report.effects import estimate_row
from analysis.results import BlockContrast, Interval


def contrasts(count: int, hosts: int = 1, control: float = 0.134) -> list[BlockContrast]:
    return [
        BlockContrast(
            metric="access_seconds", treatment="always", host=f"h{block % hosts}", block=block // hosts,
            control_value=control + block * 1e-5, treatment_value=0.088,
        )
        for block in range(count)
    ]  # fmt: skip


def lift(samples: ModuleType, value: float, interval: Interval | None, metric: str = "access_seconds") -> Lift:
    estimate = replace(
        samples.estimate(metric, "seconds", Role.PRIMARY, 1.0, 1.0 + value, half=0.01), lift_interval=interval
    )
    return Lift(estimate=estimate, row=estimate_row(estimate, 0.05), colour=Colour.ARM_1)


# ---------------------------------------------------------------------------- any chart
def test_colours_come_from_the_theme_of_the_page(document: str) -> None:
    assert "#0a0b" not in document
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", document))
    defined = set(re.findall(r"--([a-z0-9-]+):", document))
    assert used <= defined
    assert {"control", "arm-1", "alarm", "paper"} <= used


def test_foreign_letters_and_dollars_stay_text_without_a_warning(reading: type) -> None:
    name = "$x^2$ 試験 עברית"
    rows = [replace(row, treatment=name) for row in contrasts(3)]
    chart = block_chart(rows, None, unit="seconds", control=name, colour=Colour.ARM_1, key="k")
    assert f"in each block, {name} against {name}" in reading(chart).text
    assert "difference, $x^2$ 試験 עברית − $x^2$ 試験 עברית, ms" in reading(chart).text  # noqa: RUF001


def test_names_that_look_like_attributes_are_not_taken_for_some(reading: type) -> None:
    name = 'id="x" #0a0b03'
    rows = [replace(row, treatment=name) for row in contrasts(2)]
    chart = block_chart(rows, None, unit="s", control="c", colour=Colour.ARM_1, key="k")
    assert name in reading(chart).text


def test_long_label_is_cut_where_it_can_be_seen() -> None:
    assert label("a" * 100, 10) == "a" * 9 + "…"
    assert label("a\nb\u202e") == "a b⟨U+202E⟩"


def test_arms_have_colours_in_order_and_go_round() -> None:
    assert arm_colours(("a", "c", "b", "d", "e"), "c") == {
        "c": Colour.CONTROL, "a": Colour.ARM_1, "b": Colour.ARM_2, "d": Colour.ARM_3, "e": Colour.ARM_1,
    }  # fmt: skip


def test_drawing_leaves_the_settings_of_matplotlib_alone(content: ReportInput) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    render_html(content)
    assert dict(mpl.rcParams) == before


def test_failure_while_drawing_leaves_the_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)

    def fail(_: object) -> None:
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        draw(fail, width=10, height=10, key="k", title="t", description="d")
    assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_threads_draw_the_same_as_one(content: ReportInput, document: str) -> None:
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(render_html(content))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [document] * 3


# ---------------------------------------------------------------------------- blocks
def test_axis_of_a_small_change_does_not_start_at_zero_and_of_a_large_one_does(reading: type) -> None:
    large = reading(block_chart(contrasts(4), None, unit="seconds", control="c", colour=Colour.ARM_1, key="k"))
    small = reading(
        block_chart(
            contrasts(4, control=0.0881), None, unit="seconds", control="c", colour=Colour.ARM_1, key="k"
        )
    )  # fmt: skip
    assert large.text.split().count("0") == small.text.split().count("0") + 1


def test_many_blocks_are_thinned_on_the_axis_and_counted(reading: type) -> None:
    found = reading(block_chart(contrasts(60, 3), None, unit="seconds", control="c", colour=Colour.ARM_1, key="k"))
    assert "block, counted over all hosts" in found.text
    assert "and 48 more blocks" in found.text


def test_blocks_past_the_most_are_said_to_be_left_off(content: ReportInput, reading: type) -> None:
    many = replace(content, findings=replace(content.findings, contrasts=tuple(contrasts(300))))
    document = render_html(many)
    assert "The first 200 of 300 blocks." in reading(document).text
    assert len(document) < 500_000


def test_unbounded_interval_has_no_band(samples: ModuleType) -> None:
    bounded = samples.findings().estimates[0]
    open_ended = replace(bounded, difference_interval=Interval(low=-0.1, high=None, level=0.95))
    band, none = (
        block_chart(contrasts(4), row, unit="seconds", control="c", colour=Colour.ARM_1, key="k")
        for row in (bounded, open_ended)
    )
    assert band.count("opacity: 0.16") == 1
    assert "opacity: 0.16" not in none


def test_equal_values_still_make_a_chart() -> None:
    same = [replace(row, control_value=0.0, treatment_value=0.0) for row in contrasts(2)]
    assert "<svg" in block_chart(same, None, unit="bytes", control="c", colour=Colour.ARM_1, key="k")


# ---------------------------------------------------------------------------- lifts
@pytest.mark.parametrize(
    "interval",
    [
        None,
        Interval(low=None, high=None, level=0.95),
        Interval(low=-9.0, high=9.0, level=0.95),
        Interval(low=-0.1, high=0.1, level=0.95, excludes=True),
    ],
)
def test_interval_without_an_end_is_drawn_to_the_edge(
    samples: ModuleType, reading: type, interval: Interval | None
) -> None:
    plain = lift(samples, 0.04, Interval(low=0.03, high=0.05, level=0.95))
    chart = reading(lift_chart([lift(samples, 0.05, interval), plain], "k", name_arms=True))
    assert "access_seconds, always" in chart.text
    ticks = [float(text.replace("−", "-")) for text in re.findall(r"([−+]?[\d.]+) %\s*\n", chart.text)]  # noqa: RUF001
    assert max(map(abs, ticks), default=0) <= 50


def test_lifts_past_the_most_are_said_to_be_left_off(content: ReportInput, reading: type) -> None:
    first = content.findings.estimates[0]
    many = tuple(replace(first, metric=f"m{number}") for number in range(50))
    found = reading(render_html(replace(content, findings=replace(content.findings, estimates=many))))
    assert "The first 40 of 50." in found.text


# ---------------------------------------------------------------------------- timeline
def fleet(content: ReportInput, samples: ModuleType, hosts: int) -> ReportInput:
    changes = tuple(
        KnobRow(
            host=f"h{number:03}", knob=samples.KNOB, before=before, wanted=after, after=after, reason="apply",
            changed_at=samples.START + timedelta(hours=hour),
        )
        for number in range(hosts)
        for hour, before, after in ((0, "madvise", "always"), (30, "always", "madvise"))
    )  # fmt: skip
    return replace(content, knob_changes=changes, periods=(), events=())


def test_lane_holds_what_was_read_between_writes(content: ReportInput, samples: ModuleType) -> None:
    def change(second: int, before: str, after: str) -> KnobRow:
        return replace(
            content.knob_changes[0], before=before, wanted=after, after=after,
            changed_at=samples.START + timedelta(seconds=second),
        )  # fmt: skip

    rows = (change(0, "madvise", "always"), change(10, "never", "always"), change(20, "always", "madvise"))
    shown = timeline(replace(content, knob_changes=rows, periods=()))
    assert shown is not None
    assert shown.hosts[0].lanes[0].found == "madvise"
    assert shown.hosts[0].lanes[0].spans == ((0, 10, "always"), (10, 20, "always"))


def test_fleet_timeline_names_what_it_leaves_off(content: ReportInput, samples: ModuleType, reading: type) -> None:
    wide = fleet(content, samples, 100)
    shown = timeline(wide)
    assert shown is not None
    assert (len(shown.hosts), shown.left_off) == (MOST_LANES, 100 - MOST_LANES)
    document = render_html(wide)
    assert "76 more hosts are not drawn" in reading(document).text
    assert len(document) < 500_000


def test_value_that_no_arm_asks_for_is_an_alarm(content: ReportInput, samples: ModuleType) -> None:
    foreign = fleet(content, samples, 1)
    odd = replace(foreign.knob_changes[0], after="inherit")
    shown = replace(foreign, knob_changes=(odd, replace(foreign.knob_changes[1], before="inherit")))
    drawn = timeline(shown)
    assert drawn is not None
    assert "var(--alarm)" in timeline_chart(shown, drawn, {}, "k")
    assert "var(--alarm)" not in timeline_chart(foreign, drawn, {}, "k") or foreign.knob_changes != shown.knob_changes


def test_period_without_an_end_reaches_to_the_edge(content: ReportInput, samples: ModuleType) -> None:
    open_period = PeriodRow(
        period_id=1, host="h000", arm="always", kind="measure", block=-1, attempt=0, position=0, state="running",
        reason="", started_at=samples.START + timedelta(hours=1), ended_at=None,
    )  # fmt: skip
    planned = replace(open_period, period_id=2, state="planned", started_at=None)
    event = EventRow(host="h000", at=samples.START - timedelta(days=1), kind="oops", detail="before the start")
    running = replace(fleet(content, samples, 1), periods=(open_period, planned), events=(event,))
    shown = timeline(running)
    assert shown is not None
    assert shown.hosts[0].periods == (open_period,)
    assert "h000 from 11:00:00 UTC: 1 period;" in timeline_chart(running, shown, {}, "k")


def test_nothing_with_a_time_makes_no_timeline(content: ReportInput) -> None:
    assert timeline(replace(content, knob_changes=(), periods=())) is None


def test_one_write_at_one_instant_makes_a_timeline(content: ReportInput) -> None:
    shown = timeline(replace(content, knob_changes=content.knob_changes[:1], periods=()))
    assert shown is not None
    assert shown.seconds == 1.0
