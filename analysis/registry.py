"""Things of the analysis that register themselves by being there: each module of a folder declares one at its top.

Installed packages add theirs by entry points of the group that is called after the folder: `fleetexp.estimators`. They
run as you and are trusted as any package you install; none of them replaces one of ours.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Protocol, TypeVar

log = logging.getLogger(__name__)


class Named(Protocol):
    """A thing that is known by its name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def ours(folder: str, kind: type[T]) -> dict[str, T]:
    """Return what the modules of a folder of `analysis` declare of this kind, by name, in the order of the modules."""
    package = import_module(f"analysis.{folder}")
    names = sorted(path.stem for path in Path(package.__path__[0]).glob("[!_]*.py"))
    modules = (import_module(f"{package.__name__}.{name}") for name in names)
    return {one.name: one for module in modules for one in vars(module).values() if isinstance(one, kind)}


def installed(folder: str, kind: type[T]) -> dict[str, T]:
    """Return what installed packages add, by name; what can't be loaded is left out with a warning."""
    return {one.name: one for one in _loaded(f"fleetexp.{folder}") if isinstance(one, kind)}


def _loaded(group: str) -> Iterator[object]:
    from importlib.metadata import entry_points  # noqa: PLC0415 - dear, and mostly nobody asks

    for point in entry_points(group=group):
        try:
            yield point.load()
        except Exception as error:
            log.warning("%s of the group %s is left out, it can't be loaded: %r", point.value, group, error)
