"""A run as it is watched: lines without a terminal, a bar on one."""

from __future__ import annotations

import io
from collections.abc import Mapping

import pytest
from rich.cells import cell_len
from rich.console import Console
from rich.live import Live

from fleetexp.cli.progress_view import LineView, LiveView, MayBeLost, announcement, frame, latest_values, progress_view
from fleetexp.control.progress import Progress
from fleetexp.domain import RunState, UnitState


def progress(
    current: str = "block 3 of 8, thp-2m, measuring",
    *,
    state: RunState = RunState.RUNNING,
    elapsed: float = 25.0,
    message: str = "",
    latest: Mapping[str, float] | None = None,
    units: Mapping[UnitState, int] | None = None,
) -> Progress:
    return Progress(
        run_id=3,
        state=state,
        planned_seconds=100.0,
        elapsed_seconds=elapsed,
        periods_done=8,
        periods_total=32,
        units=units or {UnitState.MEASURING: 1},
        current=current,
        latest=latest or {},
        message=message,
    )


def screen(out: io.StringIO, *, terminal: bool = False) -> Console:
    return Console(file=out, width=80, force_terminal=terminal, highlight=False, markup=False, color_system=None)


def test_lines_appear_when_the_run_moves_on_and_not_otherwise() -> None:
    out = io.StringIO()
    view = LineView(screen(out))
    for elapsed in range(20):
        view.show(progress(elapsed=elapsed))
    view.show(progress("block 3 of 8, 4k, washing out", elapsed=30))
    lines = out.getvalue().splitlines()
    assert len(lines) == 2
    assert " ".join(lines[1].split()) == "30 s 25 % block 3 of 8, 4k, washing out"


def test_a_message_is_a_line_of_its_own_once() -> None:
    out = io.StringIO()
    view = LineView(screen(out))
    for _ in range(3):
        view.show(progress(message="drift on thp/enabled"))
    assert out.getvalue().count("drift on thp/enabled") == 1


def test_a_run_without_words_shows_its_state() -> None:
    out = io.StringIO()
    LineView(screen(out)).show(progress("", state=RunState.PREFLIGHT))
    assert "preflight" in out.getvalue()


def test_while_halting_it_says_that_another_interrupt_changes_nothing() -> None:
    text = announcement(progress(state=RunState.HALTING, message="stopped by root"))
    assert "stopped by root" in text
    assert "Putting every knob back; Ctrl-C again changes nothing" in text


def test_a_frame_shows_bar_now_periods_and_latest_values() -> None:
    text = frame(progress(latest={"access_nanoseconds_per_dereference": 33.5}), ()).plain
    assert "run 3" in text
    assert "25 %  about 1 min 15 s left" in text
    assert "now     block 3 of 8, thp-2m, measuring" in text
    assert "8 of 32 periods" in text
    assert "access_nanoseconds_per_dereference: 33.5" in text
    assert max(cell_len(line) for line in text.splitlines()) <= 80


def test_a_frame_of_a_fleet_counts_its_hosts() -> None:
    text = frame(progress(units={UnitState.MEASURING: 9, UnitState.LOST: 1}), ()).plain
    assert "hosts: 9 measuring, 1 lost" in text


def test_the_metrics_of_the_experiment_come_first_and_no_more_than_four_are_shown() -> None:
    latest = dict.fromkeys(("a", "b", "c", "d", "z"), 1.0)
    assert [name for name, _ in latest_values(latest, ["z", "absent"])] == ["z", "a", "b", "c"]


def test_a_live_view_draws_at_most_five_times_a_second_but_always_the_end() -> None:
    out = io.StringIO()
    clock = iter([0.0, 0.05, 0.1, 0.3, 0.31])
    with Live(console=screen(out, terminal=True), auto_refresh=False, transient=True) as live:
        updates: list[str] = []
        live.update = lambda renderable, *, refresh: updates.append(renderable.plain)  # type: ignore[method-assign]
        view = LiveView(live, (), clock=lambda: next(clock))
        for number in range(4):
            view.show(progress(f"step {number}"))
        view.show(progress("end", state=RunState.COMPLETED))
    assert [text.split("now     ")[1].split("\n")[0] for text in updates] == ["step 0", "step 3", "end"]
    assert "100 %" in updates[-1]


def test_a_live_view_prints_messages_above_the_bar() -> None:
    out = io.StringIO()
    with Live(console=screen(out, terminal=True), auto_refresh=False, transient=True) as live:
        view = LiveView(live, ())
        view.show(progress(message="drift \x1b[2J seen"))
        view.show(progress(message="drift \x1b[2J seen"))
    assert out.getvalue().count("drift \\x1b[2J seen") == 1


def test_without_a_terminal_the_view_is_lines_and_stdout_stays_free(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_view((), to_stderr=True) as view:
        view.show(progress())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "block 3 of 8" in captured.err


def test_on_a_terminal_the_view_is_live(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetexp.cli import progress_view as module

    out = io.StringIO()
    monkeypatch.setattr(module, "console", lambda *, stderr: screen(out, terminal=True))
    with progress_view(("a",)) as view:
        assert isinstance(view, MayBeLost)
        assert isinstance(view.view, LiveView)
        view.show(progress())
    assert "block 3 of 8" in out.getvalue()
