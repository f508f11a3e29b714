"""Words, numbers and tables on stdout."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from fleetexp.cli.output import (
    duration,
    emit_json,
    instant,
    labelled,
    memory,
    plain,
    print_table,
    size,
    visible,
    width,
    wrapped,
)
from fleetexp.domain import RunState


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Thing:
    state: RunState
    at: datetime
    inner: tuple[float, ...]


def test_plain_turns_shapes_into_what_json_has() -> None:
    thing = Thing(state=RunState.HALTED, at=datetime(2026, 1, 2, tzinfo=UTC), inner=(1.5, float("nan"), float("inf")))
    assert plain({RunState.HALTED: thing, "took": timedelta(minutes=1), "other": object}) == {
        "halted": {"state": "halted", "at": "2026-01-02T00:00:00+00:00", "inner": [1.5, None, None]},
        "took": 60.0,
        "other": "<class 'object'>",
    }


def test_json_is_one_object_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    emit_json({"a": "x\ny", "µ": None})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out) == {"a": "x\ny", "µ": None}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.5, "0.5 s"),
        (5, "5 s"),
        (59.7, "1 min"),
        (100, "1 min 40 s"),
        (7500, "2 h 5 min"),
        (90061, "1 d 1 h"),
    ],
)
def test_durations_have_two_steps_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("kibibytes", "text"), [(4, "4K"), (1024, "1M"), (2048, "2M"), (524288, "512M"), (1048576, "1G"), (1536, "1.5M")]
)
def test_sizes_are_called_as_page_sizes_are(kibibytes: int, text: str) -> None:
    assert size(kibibytes) == text


def test_memory_is_in_gib() -> None:
    assert memory(2 * 1024**3) == "2.0 GiB"


def test_instants_are_shown_to_the_second_and_none_as_nothing() -> None:
    assert instant(datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)) == "2026-01-02 03:04:05"
    assert instant(None) == ""


def test_a_long_fact_hangs_under_itself() -> None:
    lines = labelled("kernel", "word " * 40, columns=80).splitlines()
    assert lines[0].startswith("kernel       word")
    assert all(line.startswith(" " * 13 + "word") for line in lines[1:])
    assert max(map(len, lines)) <= 80


def test_width_is_80_without_a_terminal() -> None:
    assert width() == 80
    assert max(map(len, wrapped("word " * 60, indent="  ").splitlines())) <= 80


@given(st.text())
def test_what_is_shown_cannot_drive_a_terminal(text: str) -> None:
    shown = visible(text)
    assert all(c.isprintable() or c == "\n" for c in shown)
    assert shown == text or not text.isprintable()


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=5))
def test_a_table_of_anything_fits_80_columns(rows: list[tuple[str, str]]) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        print_table(["name", "value"], rows, right=frozenset({1}))
    assert all(cell_len(line) <= 80 for line in out.getvalue().splitlines())


def test_a_table_keeps_markup_as_text_and_ends_lines_without_blanks(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a", "b"], [["[red]x[/red]", "1"], ["\x1b[31my", "22"]], right=frozenset({1}))
    out = capsys.readouterr().out
    assert "[red]x[/red]" in out
    assert "\x1b" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_no_color_is_obeyed_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from fleetexp.cli.output import console

    monkeypatch.setenv("NO_COLOR", "1")
    assert console().no_color
    assert console(stderr=True).no_color
