"""What a kind of place is: a key of a source in a spec, what may stand there, and how it is read on a host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Protocol

from agents.extensions import Group, extensions, refusals
from agents.feeds.cut import Cut
from agents.registry import declared_in
from agents.sysroot import SysRoot


class Read(Protocol):
    """Reads a place once; Unreadable, OSError or ValueError where it can't. Runs in the place's own thread."""

    def __call__(self, at: str, root: SysRoot, *, timeout_seconds: float, cut: Cut) -> bytes: ...


class Wrong(Protocol):
    """Says what is wrong with a place as it is written, and the remedy; None where nothing is."""

    def __call__(self, at: str) -> tuple[str, str] | None: ...


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
    for kind in (*declared_in("agents.feeds.kinds", PlaceKind), *extensions(Group.SOURCES, PlaceKind)):
        kinds.setdefault(kind.key, kind)
    return kinds


def refused_place(key: str) -> str:
    """Say why a place that a user's package would add is not used here; '' where none has this key."""
    return next((f"{refused}" for refused in refusals(Group.SOURCES) if refused.name == key), "")
