"""What workloads print: a measurement, or an error that quotes the line."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import WorkloadError
from agents.workloads.emit import Emit
from agents.workloads.printed import CommandLines, NotRead, OwnLines, Printed, quoted


def values(printed: Printed, line: bytes) -> list[tuple[str, float]]:
    return [(name, value) for _, name, value in printed.line(line)]


@pytest.mark.parametrize(
    ("line", "value"),
    [(b"ops 12", 12.0), (b"  ops\t-1.5e3 ", -1500.0), (b"ops .5", 0.5), (b"ops 5.", 5.0), (b"ops +0", 0.0)],
)
def test_a_name_and_a_number_are_a_measurement(line: bytes, value: float) -> None:
    assert values(CommandLines(), line) == [("ops", value)]


def test_blank_lines_are_nothing() -> None:
    assert CommandLines().line(b" \r\t") == []


@pytest.mark.parametrize(
    "line",
    [
        b"ops",
        b"ops 1 2",
        b"Ops 1",
        b"1ops 1",
        b"ops nan",
        b"ops inf",
        b"ops 1e999",
        b"ops 1_000",
        b"ops 0x10",
        "ops ٣".encode(),
        b"ops=1",
        b"\xff\xfe 1",
        b"{",
        b'{"ops": NaN}',
        b'{"ops": Infinity}',
        b'{"ops": 1e999}',
        b'{"ops": true}',
        b'{"ops": "1"}',
        b'{"ops": {"p50": 1}}',
        b'{"Ops": 1}',
        b'{"ops": ' + b"9" * 400 + b"}",
        b'{"a":' * 20000,
        b"a" * 101 + b" 1",
    ],
)
def test_garbage_is_refused_and_quoted(line: bytes) -> None:
    with pytest.raises(WorkloadError, match="not a measurement") as caught:
        CommandLines().line(line)
    assert len(caught.value.what) < 300
    assert caught.value.what.isascii() and caught.value.what.isprintable()
    assert "name value" in caught.value.remedy


def test_of_json_objects_the_last_one_counts_when_the_output_has_ended() -> None:
    printed = CommandLines()
    assert printed.line(b'{"ops": 1, "old": 2}') == []
    assert values(printed, b"other 3") == [("other", 3.0)]
    assert printed.line(b' {"ops": 4, "p99_seconds": 0.25}') == []
    assert [(name, value) for _, name, value in printed.end()] == [("ops", 4.0), ("p99_seconds", 0.25)]
    assert printed.end() == []


@given(st.binary(max_size=200))
def test_whatever_is_printed_there_is_a_finite_measurement_or_a_workload_error(line: bytes) -> None:
    for printed in (CommandLines(), OwnLines()):
        try:
            measured = [*printed.line(line), *printed.end()]
        except WorkloadError:
            continue
        assert all(math.isfinite(value) and at.tzinfo is UTC for at, _, value in measured)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_survives_being_printed(value: float) -> None:
    assert values(CommandLines(), f"x {value!r}".encode()) == [("x", value)]


def test_our_own_lines_are_understood_as_written() -> None:
    lines: list[bytes] = []
    emit, printed = Emit(lines.append), OwnLines()
    assert not printed.ready
    emit.ready()
    assert printed.line(lines[-1]) == [] and printed.ready
    emit.measured({"access_seconds": 0.5, "other": 2.0})
    before = datetime.now(UTC)
    first, second = printed.line(lines[-1])
    assert (first[1:], second[1:]) == (("access_seconds", 0.5), ("other", 2.0))
    assert first[0] == second[0] and abs((first[0] - before).total_seconds()) < 10
    emit.failed(what="a", where="b", remedy="c")
    with pytest.raises(WorkloadError) as caught:
        printed.line(lines[-1])
    assert (caught.value.what, caught.value.where, caught.value.remedy) == ("a", "b", "c")
    assert printed.end() == []
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in lines)


@pytest.mark.parametrize("message", [[1], {}, {"values": {"a": 1}}, {"values": 3, "at": 1.0}, {"failed": "x"}])
def test_our_own_lines_are_checked_like_any_other(message: object) -> None:
    with pytest.raises(WorkloadError, match="not a measurement"):
        OwnLines().line(json.dumps(message).encode())


def test_what_is_not_read_is_never_garbage() -> None:
    assert NotRead().ready and NotRead().line(b"\xff") == [] and NotRead().end() == []


def test_quoting_shows_no_control_character_and_cuts() -> None:
    assert quoted(b"a\x1b[31m\n") == r"'a\x1b[31m\n'"
    assert quoted("\u202e".encode()) == r"'\u202e'"
    assert quoted(b"x" * 100_000).endswith("... (100,000 bytes)")
