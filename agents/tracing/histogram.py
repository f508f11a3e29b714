"""The kernel's histogram of a trigger, as text: read into entries. Source: Documentation/trace/histogram.rst.

    # trigger info: hist:keys=comm,common_stacktrace:vals=hitcount:sort=hitcount:size=2048 [active]
    { comm: python            , common_stacktrace:
             __split_huge_pud_locked+0x1/0x520
             copy_page_range+0x3b4/0x1f30
    } hitcount:          1

    Totals:
        Hits: 1

A time as a key, `lat.log2`, stands there as `lat: ~ 2^15`: it was no longer than that, and longer than half of it.

A program names itself, with any bytes up to 15: what it says can't be a whole entry, and what is not one is no entry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST_BYTES = 16 * 2**20  # 2,048 entries of 16 functions: 2 MiB
_SECTION = b"# event histogram"
_OF_PROGRAMS = re.compile(rb"# trigger info: hist:keys=comm[,:]")
_ENTRY = re.compile(
    rb"\{ comm: (?P<comm>.{1,80}?) *, "
    rb"(?:(?:common_)?stack(?:trace|\.stacktrace):?\n?(?P<frames>(?:[ \t]++[^\n{}]{1,400}+\n)*+)"
    rb"|lat: ~ 2\^(?P<power>[0-9]{1,2}) *)"
    rb"\} hitcount: +(?P<hits>[0-9]{1,19})(?:  lat: +(?P<lat>[0-9]{1,19}))?",
    re.DOTALL,
)
_TOTAL = re.compile(rb"\n[ \t]*(Hits|Entries|Dropped): ([0-9]{1,19})")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramEntry:
    """One key and what was counted under it.

    `lat` is the sum of a value of that name, `at_most` the upper end of the key's power of two: in the value's unit,
    None where there is none.
    """

    program: str
    frames: tuple[str, ...]
    hits: int
    lat: int | None
    at_most: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """All keys of one trigger. `dropped`: hits that are in no entry: it was full, or two CPUs began one at once."""

    entries: tuple[HistogramEntry, ...]
    hits: int
    dropped: int


def parse_histogram(text: bytes) -> Histogram:
    """Understand the file `hist` of an event: its trigger that is keyed by program; ValueError where there is none."""
    if len(text) > LARGEST_BYTES:
        raise ValueError(f"a histogram of {len(text):,} bytes")
    section = next((part for part in text.split(_SECTION) if _OF_PROGRAMS.search(part)), None)
    if section is None:
        raise ValueError("no trigger is keyed by program")
    head, mark, tail = section.rpartition(b"\nTotals:")
    totals = {name: int(number) for name, number in _TOTAL.findall(tail)}
    if not mark or b"Hits" not in totals:
        raise ValueError("it has no totals: it was cut off")
    return Histogram(
        entries=tuple(_entry(match) for match in _ENTRY.finditer(head)),
        hits=totals[b"Hits"],
        dropped=totals.get(b"Dropped", 0),
    )


def _entry(match: re.Match[bytes]) -> HistogramEntry:
    frames, lat, power = match["frames"] or b"", match["lat"], match["power"]
    return HistogramEntry(
        program=match["comm"].decode(errors="replace").replace("\0", "\ufffd"),
        frames=tuple(line.strip().decode(errors="replace") for line in frames.splitlines()),
        hits=int(match["hits"]),
        lat=None if lat is None else int(lat),
        at_most=None if power is None else 1 << int(power),
    )
