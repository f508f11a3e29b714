"""Readings wait on disk until acknowledged: none is lost, none changes, positions only rise."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agents.messages import HostEvent, HostEventKind, Measurement, Reading, Sample
from agents.spool import REWRITE_BEYOND_BYTES, Spool, decode, encode

AT = datetime(2026, 2, 2, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.fixture
def open_spool() -> Iterator[Callable[[Path], Spool]]:
    """Open spools that the test need not close: a process that is killed does not close them either."""
    opened: list[Spool] = []

    def make(path: Path) -> Spool:
        opened.append(Spool(path))
        return opened[-1]

    yield make
    for spool in opened:
        spool.close()


def sample(position: int, values: dict[str, float] | None = None) -> Sample:
    return Sample(
        position=position,
        period_id=7,
        sequence=position,
        taken_at=AT,
        boottime_seconds=12.5,
        values={"pgfault": 1.0} if values is None else values,
    )


finite = st.floats(allow_nan=False, allow_infinity=False)
readings = st.one_of(
    st.dictionaries(st.text(max_size=20), finite, max_size=5).map(lambda values: sample(1, values)),
    st.tuples(st.text(max_size=20), finite).map(
        lambda mv: Measurement(position=1, period_id=2, sequence=3, taken_at=AT, metric=mv[0], value=mv[1])
    ),
    st.tuples(st.sampled_from(list(HostEventKind)), st.text(max_size=50)).map(
        lambda kd: HostEvent(position=1, period_id=0, sequence=3, taken_at=AT, kind=kd[0], detail=kd[1])
    ),
)


@given(readings)
def test_what_is_written_reads_back_equal_on_one_line(reading: Reading) -> None:
    line = encode(reading)
    assert "\n" not in line
    assert decode(line) == reading


@pytest.mark.parametrize("line", ["", "[", "{}", "[1,2]", '["x",1,2,3,"2026-02-02T00:00:00+00:00",1,2]'])
def test_a_line_that_is_no_reading_is_refused(line: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        decode(line)


def test_readings_are_numbered_from_one_and_handed_out_in_order(
    tmp_path: Path, open_spool: Callable[[Path], Spool]
) -> None:
    spool = open_spool(tmp_path / "s.jsonl")
    for _ in range(5):
        spool.append(sample)
    first, more = spool.pending(3)
    assert [r.position for r in first] == [1, 2, 3]
    assert more
    spool.acknowledge(3)
    rest, more = spool.pending(3)
    assert [r.position for r in rest] == [4, 5]
    assert not more
    spool.acknowledge(5)
    spool.close()
    assert not (tmp_path / "s.jsonl").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.integers(1, 4), st.just(-1), st.just(-2)), max_size=20))
def test_killed_and_opened_again_nothing_unacknowledged_is_missing(
    tmp_path: Path, open_spool: Callable[[Path], Spool], story: list[int]
) -> None:
    """Positive: append so many; -1: acknowledge all handed out; -2: the process dies and a new one opens the file."""
    path = tmp_path / "s.jsonl"
    path.unlink(missing_ok=True)
    spool, appended, acknowledged = open_spool(path), 0, 0
    for step in story:
        if step > 0:
            for _ in range(step):
                spool.append(sample)
                appended += 1
        elif step == -1:
            acknowledged = appended
            spool.acknowledge(acknowledged)
        else:
            spool = open_spool(path)
        assert spool.last_position == appended
        held = [r.position for r in spool.pending(1000)[0]]
        assert set(range(acknowledged + 1, appended + 1)) <= set(held)
        assert held == sorted(set(held))


def test_a_torn_last_line_costs_that_line_only(
    tmp_path: Path, open_spool: Callable[[Path], Spool], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.jsonl"
    spool = open_spool(path)
    for _ in range(3):
        spool.append(sample)
    torn = path.read_bytes()[:-20]
    path.write_bytes(torn)
    again = open_spool(path)
    assert [r.position for r in again.pending(10)[0]] == [1, 2]
    assert "torn" in caplog.text


def test_a_file_without_its_header_is_set_aside_not_destroyed(
    tmp_path: Path, open_spool: Callable[[Path], Spool]
) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text("what is this\n")
    spool = open_spool(path)
    assert spool.last_position == 0
    assert (tmp_path / "s.unreadable").read_text() == "what is this\n"


def test_the_file_stays_small_once_everything_is_acknowledged(
    tmp_path: Path, open_spool: Callable[[Path], Spool]
) -> None:
    path = tmp_path / "s.jsonl"
    spool = open_spool(path)
    while path.stat().st_size <= REWRITE_BEYOND_BYTES:
        spool.append(lambda position: sample(position, {"x" * 200: 1.0}))
    spool.acknowledge(spool.last_position)
    assert path.stat().st_size < 100
    assert open_spool(path).last_position == spool.last_position


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_stops_the_file_and_not_the_stream(small_disk: Path, open_spool: Callable[[Path], Spool]) -> None:
    spool = open_spool(small_disk / "s.jsonl")
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 1000)
        except OSError:
            pass
    for _ in range(200):
        spool.append(lambda position: sample(position, {"y" * 100: 1.0}))
    assert spool.disk_failed
    assert len(spool.pending(1000)[0]) == 200
    filler.unlink()
    spool.append(sample)
    assert not spool.disk_failed
    kept = [r.position for r in open_spool(small_disk / "s.jsonl").pending(1000)[0]]
    assert kept[-1] == 201


def test_what_is_spooled_after_a_torn_line_is_not_lost_with_it(
    tmp_path: Path, open_spool: Callable[[Path], Spool]
) -> None:
    path = tmp_path / "s.jsonl"
    open_spool(path).append(sample)
    path.write_bytes(path.read_bytes() + b'["s",2,')
    open_spool(path).append(sample)
    assert [r.position for r in open_spool(path).pending(10)[0]] == [1, 2]


def test_a_pipe_in_the_place_of_a_spool_is_set_aside(tmp_path: Path, open_spool: Callable[[Path], Spool]) -> None:
    os.mkfifo(tmp_path / "s.jsonl")
    open_spool(tmp_path / "s.jsonl").append(sample)
    assert [r.position for r in open_spool(tmp_path / "s.jsonl").pending(10)[0]] == [1]
