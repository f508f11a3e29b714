"""Pure parsers of the kernel's tables: text in, metrics out. A table that can't be understood is a ValueError."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from agents.numbers import implausible, whole_number

_UPTIME = re.compile(rb"[0-9]{1,12}\.[0-9]{1,6} ([0-9]{1,15}\.[0-9]{1,6})\n?")
_MOST_LINES = 2000  # of a table: the kernel's have some hundred
_VALUE = re.compile(rb" *-?[0-9]+( .*)?")
_TOTAL = re.compile(rb"^([a-z]+) .*total=([0-9]{1,18})$", re.MULTILINE)  # what is longer was below zero
_MEMORY = "memory_total_bytes"
_WITHIN_MEMORY = ("memory_free_bytes", "memory_available_bytes", "anon_bytes")


class KeyedTable:
    """Lines 'key value ...' of which some are wanted: vmstat, meminfo, memory.stat. Values are whole numbers.

    One pattern of the whole table, as it stood when it was learnt, finds the values and checks that their keys and the
    number of lines are still the same; a table that has changed its shape is learnt anew. (The one change that goes
    unseen, a line exchanged for another, no kernel makes while it is up.) Most values are those of the reading before:
    only the others are converted. Not for several threads at once.
    """

    __slots__ = ("_names", "_pattern", "_scale", "_texts", "_values", "_wanted")

    def __init__(self, wanted: Mapping[str, str], *, scale: float = 1.0, ending: str = "") -> None:
        """`wanted` maps key -> metric; values are multiplied by `scale`; `ending` follows each key in the file."""
        self._wanted = {(key + ending).encode(): metric for key, metric in wanted.items()}
        self._scale = scale
        self._names: list[str] = []
        self._pattern = re.compile(b"")
        self._texts: tuple[bytes, ...] = ()  # of the values, as they were read last
        self._values: dict[str, float] = {}

    def __call__(self, data: bytes, out: dict[str, float]) -> None:
        match = self._pattern.fullmatch(data) or self._learn(data).fullmatch(data)
        texts, scale = match.groups() if match else (), self._scale
        for name, text, before in zip(self._names, texts, self._texts, strict=True):
            if text != before:
                self._values[name] = float(text) * scale
        self._texts = texts
        out |= self._values

    def _learn(self, data: bytes) -> re.Pattern[bytes]:
        """Make and return the pattern of this table; ValueError for a value that is no whole number.

        Of a key that stands there more than once the last line counts.
        """
        lines = data.split(b"\n")
        if len(lines) > _MOST_LINES:
            raise ValueError(f"a table of {len(lines):,} lines")
        patterns: list[bytes] = []
        names: list[str] = []
        for line in reversed(lines):
            key, _, rest = line.partition(b" ")
            name = self._wanted.get(key)
            if name is None or name in names or not rest.strip():
                patterns.append(b".*+")
                continue
            value = _VALUE.fullmatch(rest)
            if value is None:
                raise ValueError(f"no whole number: {rest.strip()[:40]!r}")
            patterns.append(re.escape(key) + b" ++(-?[0-9]++)" + (b" .*+" if value[1] else b""))
            names.append(name)
        self._names, self._pattern = names[::-1], re.compile(b"\n".join(reversed(patterns)))
        self._texts, self._values = (b"",) * len(names), {}
        return self._pattern


class Pressure:
    """Lines 'some avg10=... total=MICROSECONDS' of a pressure file."""

    __slots__ = ("_names",)

    def __init__(self, prefix: str, lines: Iterable[str] = ("some", "full")) -> None:
        """Name the metrics `<prefix>_<line>_seconds`; other lines are left out."""
        self._names = {line.encode(): f"{prefix}_{line}_seconds" for line in lines}

    def __call__(self, data: bytes, out: dict[str, float]) -> None:
        totals = _TOTAL.findall(data)
        if len(totals) != len(data.splitlines()):
            raise ValueError(f"not lines that end with a total: {data[:80]!r}")
        for line, total in totals:
            if (name := self._names.get(line)) is not None:
                out[name] = float(total) * 1e-6


def parse_uptime(data: bytes, out: dict[str, float]) -> None:
    """Add how long CPUs were idle, summed over them. The line: 'SECONDS_UP SECONDS_IDLE'."""
    match = _UPTIME.fullmatch(data)
    if match is None:
        raise ValueError(f"no times since boot: {data[:80]!r}")
    out["cpu_idle_seconds"] = float(match[1])


def parse_buddyinfo(data: bytes, out: dict[str, float]) -> None:
    """Add free blocks by order, summed over nodes and zones. Lines: 'Node 0, zone Normal 12 3 ...'."""
    totals: Counter[int] = Counter()
    for line in data.splitlines():
        words = line.split()
        if words[2:3] != [b"zone"]:
            raise ValueError(f"not a buddyinfo line: {line[:80]!r}")
        totals.update(dict(enumerate(map(whole_number, words[4:]))))
    out.update({f"buddyinfo_order{order}_free_blocks": float(total) for order, total in totals.items()})


def parse_pagetypeinfo(data: bytes, out: dict[str, float]) -> None:
    """Add pageblocks by migrate type, summed over nodes and zones.

    The kernel prints the whole text anew for each node with memory: the free pages, the pageblocks, and with page_owner
    the mixed blocks, which are pageblocks counted again (mm/vmstat.c, pagetypeinfo_show).
    """
    types: list[str] = []  # of the table of pageblocks that is being read
    totals: Counter[str] = Counter()
    for line in data.splitlines():
        words = line.split()
        if words[:4] == [b"Number", b"of", b"blocks", b"type"]:
            types = [word.decode("ascii").lower() for word in words[4:]]
            totals.update(dict.fromkeys(types, 0))
        elif words[:1] != [b"Node"]:
            types = []
        elif types:
            totals.update(dict(zip(types, map(whole_number, words[4:]), strict=True)))
    if not totals:
        raise ValueError("no table of pageblocks")
    out.update({f"pageblocks_{kind}": float(total) for kind, total in totals.items()})


def more_than_there_is(values: Mapping[str, float]) -> dict[str, str]:
    """Return which levels of meminfo are larger than all memory, and so can't be true.

    MemAvailable does so where a kernel loses count of its page cache, and "used" is then below zero.
    """
    doubtful = implausible(values)
    total = values.get(_MEMORY, 0.0)
    if total and _MEMORY not in doubtful:
        for metric in _WITHIN_MEMORY:
            if values.get(metric, 0.0) > total and metric not in doubtful:
                doubtful[metric] = "more than MemTotal: this kernel has lost count"
    return doubtful
