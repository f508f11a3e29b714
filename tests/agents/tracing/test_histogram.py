"""Histograms of a real 6.12 kernel are read whole; what is none, or cut off, is refused; nothing crashes the parser."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.tracing.histogram import Histogram, HistogramEntry, parse_histogram
from tests.cpu_time import no_hang

RECORDED = sorted((Path(__file__).parents[2] / "cases/tracing").glob("*.hist"))
PIECES = [b"{ comm: ", b"} hitcount: 1", b"\nTotals:", b"         \n", b" {"]
TEXTS = {path.stem: path.read_bytes() for path in RECORDED}


@pytest.mark.parametrize(
    ("name", "hits", "entries"),
    [
        ("split_pmd", 15, 14),
        ("split_pud", 19, 19),
        ("split_pmd_times", 15, 14),
        ("split_pud_times", 19, 19),
        ("fault_pmd_times", 55, 37),
    ],
)
def test_entries_add_up_to_the_kernels_own_total(name: str, hits: int, entries: int) -> None:
    read = parse_histogram(TEXTS[name])
    assert (read.hits, read.dropped, len(read.entries)) == (hits, 0, entries)
    assert sum(entry.hits for entry in read.entries) == hits


def test_a_split_is_read_with_its_program_and_stack() -> None:
    entry = next(one for one in parse_histogram(TEXTS["split_pud"]).entries if one.program == "x-fork")
    assert (entry.hits, entry.lat, entry.at_most) == (1, None, None)
    assert entry.frames[3:5] == ("__split_huge_pud_locked+0x1/0x520", "copy_page_range+0x3b4/0x1f30")
    timed = next(one for one in parse_histogram(TEXTS["split_pud_times"]).entries if one.program == "x-fork")
    assert (timed.hits, timed.lat, timed.frames[3:5]) == (1, 77110, entry.frames[3:5])


def test_times_are_read_by_program_and_power_of_two() -> None:
    waited = [one for one in parse_histogram(TEXTS["fault_pmd_times"]).entries if one.program == "grep"]
    assert {(one.at_most, one.hits, one.lat) for one in waited} == {
        (2048, 1, 2006),
        (16384, 2, 21745),
        (128, 2, 201),
    }
    assert all(one.at_most is not None and one.lat is not None for one in waited)
    longest = {one.at_most / 2 < one.lat / one.hits <= one.at_most for one in waited if one.at_most and one.lat}
    assert longest == {True}


def with_program(name: bytes) -> bytes:
    head = b"# event histogram\n#\n# trigger info: hist:keys=comm,common_stacktrace:vals=hitcount [active]\n#\n\n"
    body = (
        b"{ comm: "
        + name.ljust(50)
        + b", common_stacktrace:\n         copy_page_range+0x1/0x2\n} hitcount:          1\n"
    )
    return head + body + b"\nTotals:\n    Hits: 1\n    Entries: 1\n    Dropped: 0\n"


@pytest.mark.parametrize(
    "name", [b"a b", b"} hitcount: 9", b"{ comm: x", b"x\ny", b"\xff\xfe", b", lat: ~ 2^4 }", b"a, b"]
)
def test_a_program_may_call_itself_anything(name: bytes) -> None:
    (entry,) = parse_histogram(with_program(name)).entries
    assert (entry.hits, entry.frames) == (1, ("copy_page_range+0x1/0x2",))


def test_hits_without_room_are_told() -> None:
    text = with_program(b"x").replace(b"Dropped: 0", b"Dropped: 7").replace(b"Hits: 1", b"Hits: 8")
    assert parse_histogram(text) == Histogram(
        entries=(HistogramEntry(program="x", frames=("copy_page_range+0x1/0x2",), hits=1, lat=None, at_most=None),),
        hits=8,
        dropped=7,
    )


@pytest.mark.parametrize("text", [b"", b"# event histogram\n", TEXTS["split_pud"].partition(b"\nTotals")[0]])
def test_what_is_cut_off_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"no trigger|cut off"):
        parse_histogram(text)


@no_hang()
def test_a_stack_without_its_end_costs_no_more_than_its_length() -> None:
    open_ended = TEXTS["split_pud"].replace(b"} hitcount", b"{ hitcount")
    assert parse_histogram(open_ended).entries == ()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_whatever_the_file_says_it_is_read_or_refused(data: st.DataObject) -> None:
    text = bytearray(TEXTS[data.draw(st.sampled_from(sorted(TEXTS)))])
    for _ in range(data.draw(st.integers(0, 6))):
        at = data.draw(st.integers(0, len(text)))
        end = at + data.draw(st.integers(0, 200))
        text[at:end] = data.draw(
            st.binary(max_size=40) | st.sampled_from([b"{ comm: ", b"} hitcount: 1", b"\nTotals:"])
        )
    try:
        read = parse_histogram(bytes(text))
    except ValueError:
        return
    assert all(entry.hits >= 0 and "\0" not in entry.program for entry in read.entries)
