"""Whose the name of a metric is: what a workload or a source reports never stands for what somebody else measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from agents.catalogue.lookup import describe, is_known
from agents.catalogue.metric import Owner

FOR_A_SERVICE = "service"  # a source says what a service does: the names of the one are those of the other
_RESERVED = ("agent_", "fleetexp_")  # what watching costs, and the run's own page
_KEPT_NAMES = 4096
_WORDS = {
    Owner.KERNEL: "the host's kernel",
    Owner.PERF: "the host's perf events",
    Owner.DERIVED: "fleetexp, which derives it",
    Owner.FLEETEXP: "fleetexp itself",
    Owner.SOURCE: "the source of that name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """A name as its owner writes it; `reporters` are the kinds of workload that may report it."""

    name: str
    owner: Owner
    reporters: tuple[str, ...] = ()

    def __str__(self) -> str:
        reporters = f"the workload {' or '.join(self.reporters)}"
        return f"{self.name} belongs to {_WORDS.get(self.owner, reporters)}"


@lru_cache(_KEPT_NAMES)
def owner_of(name: str) -> Owned | None:
    """Return whose a name is, in whatever letters it is written; None where the catalogue leaves it to the user."""
    key = _in_our_letters(name)
    if is_known(key):
        metric = describe(key)
        return Owned(name=key, owner=metric.owner, reporters=metric.reporters)
    return Owned(name=key, owner=Owner.FLEETEXP) if key.startswith(_RESERVED) else None


def find_foreign(name: str, *, reporter: str, sources: frozenset[str] = frozenset()) -> Owned | None:
    """Return whose a name is that a kind of workload, or `FOR_A_SERVICE` a source, must not report; else None.

    `sources` are the names of the experiment's sources, each the source's own.
    """
    owned = owner_of(name)
    if owned is not None and (owned.name != name or reporter not in owned.reporters):
        return owned
    taken = _by_our_letters(sources).get(_in_our_letters(name))
    if taken is None or (reporter == FOR_A_SERVICE and taken == name):
        return None
    return Owned(name=taken, owner=Owner.SOURCE)


@lru_cache(1)
def _by_our_letters(names: frozenset[str]) -> Mapping[str, str]:
    return {_in_our_letters(name): name for name in sorted(names)}


def _in_our_letters(name: str) -> str:
    """Names of the catalogue have small letters, but for the unit of a page size."""
    return name.strip().casefold().replace("kb_", "kB_")
