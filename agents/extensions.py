"""What users' own packages add on a host: only those that its administrator allowed.

A package offers a workload, a collector or a source by an entry point. It would run as whoever the agent is, mostly
root, so nothing of it is even imported unless /etc/fleetexp/extensions names its distribution, one on a line. That
file, the way to it and the folder that the package lies in are checked like the agent's own state: whoever else could
write there could have allowed it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from os import fdopen
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from agents.errors import StateRefused
from agents.registry import Group
from agents.state_files import StateFolder

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

log = logging.getLogger(__name__)
T = TypeVar("T")

ALLOWED = Path("/etc/fleetexp/extensions")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An entry point that is not used on this host."""

    group: Group
    name: str
    distribution: str
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"the {self.group.called} {self.name!r} of {self.distribution} is not used: {self.why}; {self.remedy}"


def extensions(group: Group, kind: type[T]) -> tuple[T, ...]:
    """Return what allowed packages declare; never raises, and costs next to nothing where none is allowed."""
    try:
        if not _allowed():
            return ()
    except (OSError, StateRefused) as error:
        log.warning("no extension is used: %s", error)
        return ()
    return tuple(found for found in _found(group) if isinstance(found, kind))


def refusals(group: Group) -> tuple[Refusal, ...]:
    """Return which packages of this host would add something and may not, or can't."""
    return tuple(found for found in _found(group) if isinstance(found, Refusal))


@cache
def _found(group: Group) -> tuple[object, ...]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - dear, and mostly there is nothing to look for

    return tuple(_load(group, point) for point in entry_points(group=group))


def _load(group: Group, point: EntryPoint) -> object:
    """Return what an entry point names, or why it is not used."""
    distribution = point.dist.name if point.dist is not None else "an unknown distribution"

    def refused(why: str, remedy: str) -> Refusal:
        refusal = Refusal(group=group, name=point.name, distribution=distribution, why=why, remedy=remedy)
        log.warning("%s", refusal)
        return refusal

    try:
        if _normal(distribution) not in _allowed():
            return refused(
                f"{ALLOWED} does not name {distribution}", f"to let it run here as root, add the line {distribution}"
            )
        if point.dist is not None:
            StateFolder(Path(str(point.dist.locate_file("")))).exists()
    except StateRefused as error:
        return refused(f"{error.what} [{error.where}]", error.remedy)
    except OSError as error:
        return refused(f"{ALLOWED} can't be read: {error.strerror}", "let root read it")
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        return refused(f"{point.value} can't be imported: {error!r}", "repair or remove the package")


def _allowed() -> frozenset[str]:
    """Return the distributions that may run here; StateRefused where others than root or this user wrote that."""
    return frozenset(_lines())


def _lines() -> Iterator[str]:
    try:
        with fdopen(StateFolder(ALLOWED.parent).open(ALLOWED.name), encoding="utf-8", errors="replace") as file:
            for line in file:
                if name := line.partition("#")[0].strip():
                    yield _normal(name)
    except (FileNotFoundError, NotADirectoryError):
        return


def _normal(name: str) -> str:
    """Return the name of a distribution as installers compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
