"""What a kind of place is: a key of a source in a spec, what may stand there, and how it is read on a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

from agents.metric_sources.cancellation import Cancellation
from agents.registry import Group, added, ours
from agents.sysroot import SysRoot

# Reads a place once, given what stands there, the root and the longest time; Unreadable, OSError or ValueError where it
# can't. Runs in the place's own thread.
Read: TypeAlias = Callable[[str, SysRoot, float, Cancellation], bytes]
# Says what is wrong with a place as it is written, and the remedy; None where nothing is.
Wrong: TypeAlias = Callable[[str], tuple[str, str] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceKind:
    """A kind of place, declared at the top of its module; what it says is understood as a command's output is."""

    key: str  # in a spec
    meaning: str
    example: str
    called: str  # what stands there, for people
    pattern: str  # of what stands there, whole
    wrong: Wrong
    read: Read


@cache
def place_kinds() -> Mapping[str, PlaceKind]:
    """Return every kind of place by its key; the first that has a key keeps it, and fleetexp's own come first."""
    kinds: dict[str, PlaceKind] = {}
    for kind in (*ours(Group.SOURCES, PlaceKind), *added(Group.SOURCES, PlaceKind)):
        kinds.setdefault(kind.key, kind)
    return kinds
