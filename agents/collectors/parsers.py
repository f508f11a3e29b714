"""Pure parsers of the kernel's tables: text in, metrics out. A table that can't be understood is a ValueError."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from operator import itemgetter


class KeyedTable:
    """Lines 'key value ...' of which some are wanted: vmstat, meminfo, memory.stat.

    The positions of the wanted words are learnt once. At each reading the number of words and the keys found at those
    positions are compared, and a table that has changed its shape is learnt anew. (The one change that goes unseen, a
    line exchanged for another without a change of length, no kernel makes while it is up.) Values are whole numbers.
    """

    __slots__ = ("_count", "_keys", "_keys_of", "_names", "_scale", "_values_of", "_wanted")

    def __init__(self, wanted: Mapping[str, str], *, scale: float = 1.0, ending: str = "") -> None:
        """`wanted` maps key -> metric; values are multiplied by `scale`; `ending` follows each key in the file."""
        self._wanted = {(key + ending).encode(): metric for key, metric in wanted.items()}
        self._scale = scale
        self._learn([])

    def __call__(self, data: bytes, out: dict[str, float]) -> None:
        words = data.split()
        if len(words) != self._count or self._keys_of(words) != self._keys:
            self._learn(words)
        # float(int(...)): half the time of float(...) on bytes
        values: Iterable[float] = map(float, map(int, self._values_of(words)))
        if self._scale != 1.0:
            values = [value * self._scale for value in values]
        out.update(zip(self._names, values, strict=True))

    def _learn(self, words: list[bytes]) -> None:
        at = [position for position, word in enumerate(words[:-1]) if word in self._wanted]
        self._count = len(words)
        self._keys_of, self._values_of = _words_at(at), _words_at([position + 1 for position in at])
        self._keys = self._keys_of(words)
        self._names = [self._wanted[key] for key in self._keys]


def _words_at(positions: list[int]) -> Callable[[list[bytes]], tuple[bytes, ...]]:
    """Return what picks these words, always as a tuple: itemgetter does so only from two positions on."""
    if len(positions) > 1:
        return itemgetter(*positions)
    return lambda words: tuple(words[position] for position in positions)


class Pressure:
    """Lines 'some avg10=... total=MICROSECONDS' of a pressure file."""

    __slots__ = ("_names",)

    def __init__(self, prefix: str, lines: Iterable[str] = ("some", "full")) -> None:
        """Name the metrics `<prefix>_<line>_seconds`; other lines are left out."""
        self._names = {line.encode(): f"{prefix}_{line}_seconds" for line in lines}

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(self._names.values())

    def __call__(self, data: bytes, out: dict[str, float]) -> None:
        for line in data.splitlines():
            head, mark, total = line.rpartition(b" total=")
            if not mark:
                raise ValueError(f"no total in {line[:80]!r}")
            if (name := self._names.get(head.partition(b" ")[0])) is not None:
                out[name] = int(total) * 1e-6


def parse_buddyinfo(data: bytes, out: dict[str, float]) -> None:
    """Add free blocks by order, summed over nodes and zones. Lines: 'Node 0, zone Normal 12 3 ...'."""
    totals: Counter[int] = Counter()
    for line in data.splitlines():
        words = line.split()
        if words[2:3] != [b"zone"]:
            raise ValueError(f"not a buddyinfo line: {line[:80]!r}")
        for order, count in enumerate(words[4:]):
            totals[order] += int(count)
    out.update({f"buddyinfo_order{order}_free_blocks": float(total) for order, total in totals.items()})


def parse_pagetypeinfo(data: bytes, out: dict[str, float]) -> None:
    """Add pageblocks by migrate type, summed over nodes and zones: the last table of the file."""
    types: list[str] = []
    totals: Counter[str] = Counter()
    for line in data.splitlines():
        words = line.split()
        if words[:4] == [b"Number", b"of", b"blocks", b"type"]:
            types = [word.decode().lower() for word in words[4:]]
        elif words[:1] == [b"Node"] and types:
            totals.update(dict(zip(types, map(int, words[4:]), strict=True)))
    if not types:
        raise ValueError("no table of pageblocks")
    out.update({f"pageblocks_{kind}": float(totals[kind]) for kind in types})
