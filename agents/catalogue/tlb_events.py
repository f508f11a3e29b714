"""Metrics of the TLBs and of page walks: each is counted where the event table of the host's CPU has it.

Not every CPU tells loads from stores: `dtlb_*` are both together, `dtlb_load_*` and `dtlb_store_*` one of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from agents.catalogue.metric import Better

# (name, unit, perf's name, meaning, own column, better)
EventRow: TypeAlias = tuple[str, str, str, str, bool, Better | None]

_TABLE = "event of the CPU's table"
_SIDES = {
    "dtlb_load": "loads",
    "dtlb_store": "stores",
    "dtlb": "loads and stores",
    "itlb": "instruction fetches",
}
_TOGETHER = ("dtlb", "itlb")
# suffix -> the pages that a walk ended at
_SIZES = {"4k": "of 4 KiB", "2m": "of 2 MiB or 4 MiB", "1g": "of 1 GiB"}
_OTHER_SIZES = {
    "coalesced": "of 4 KiB, four of them held as one",
    "small": "smaller than 2 MiB",
    "large": "of 2 MiB and larger",
}


def tlb_rows() -> Iterator[EventRow]:
    """Give the rows of the catalogue, in its order."""
    for side, what in _SIDES.items():
        sizes = _SIZES | (_OTHER_SIZES if side in _TOGETHER else {})
        if side in _TOGETHER:
            meaning = f"{what} that missed the first level of the TLB, whether they hit the second or not"
            yield f"{side}_misses", "misses", _TABLE, meaning, False, "decrease"
        hits = f"{what} that missed the first level of the TLB and hit the second"
        if side == "dtlb":  # where loads and stores are one, hits are told by size
            for size in ("4k", "2m", "1g", "coalesced"):
                yield f"{side}_l2_hits_{size}", "hits", _TABLE, f"{hits}, in pages {sizes[size]}", False, None
        else:
            yield f"{side}_l2_hits", "hits", _TABLE, hits, False, None
        yield f"{side}_walks", "walks", _TABLE, f"page walks for {what}", False, "decrease"
        for size, pages in sizes.items():
            yield f"{side}_walks_{size}", "walks", _TABLE, f"page walks for {what} to pages {pages}", False, None
        meaning = f"page walks for {what} under way, summed over cycles"
        yield f"{side}_walks_pending", "cycles", _TABLE, meaning, False, "decrease"
    meaning = "cycles with a page walk for an instruction fetch"
    yield "itlb_walk_cycles", "cycles", _TABLE, meaning, False, "decrease"
    yield (
        "l2_tlb_misses",
        "misses",
        _TABLE,
        "misses of the second level of the TLB, all kinds of access",
        False,
        "decrease",
    )
