"""Things that register themselves by being there: each module of a folder of ours declares one of a kind.

A folder is looked through when somebody first asks, so that importing whoever asks imports none of them. Packages of
users add to it, after ours, where the host's administrator allowed them (`agents.extensions`).
"""

from __future__ import annotations

import importlib
import os
from enum import StrEnum
from typing import TypeVar

T = TypeVar("T")


class Group(StrEnum):
    """What can be registered, by the group of entry points that users' packages offer it in."""

    WORKLOADS = "fleetexp.workloads"
    COLLECTORS = "fleetexp.collectors"
    SOURCES = "fleetexp.sources"

    @property
    def called(self) -> str:
        return self.removeprefix("fleetexp.").removesuffix("s")


_FOLDERS = {
    Group.WORKLOADS: "agents.workloads.kinds",
    Group.COLLECTORS: "agents.collectors.kinds",
    Group.SOURCES: "agents.metric_sources.kinds",
}


def ours(group: Group, kind: type[T]) -> tuple[T, ...]:
    """Return what our modules declare of this kind at their top, in the order of the modules' names."""
    package = _FOLDERS[group]
    folder = importlib.import_module(package)
    names = sorted(name.removesuffix(".py") for name in os.listdir(folder.__path__[0]) if name.endswith(".py"))
    modules = (importlib.import_module(f"{package}.{name}") for name in names if not name.startswith("_"))
    return tuple(one for module in modules for one in vars(module).values() if isinstance(one, kind))


def added(group: Group, kind: type[T]) -> tuple[T, ...]:
    """Return what allowed packages of users declare; never raises."""
    from agents.extensions import extensions  # noqa: PLC0415 - with what it needs, only where it is needed

    return extensions(group, kind)


def refused(group: Group, name: str) -> str:
    """Say why what a user's package would add under a name is not used here; '' where none would."""
    from agents.extensions import refusals  # noqa: PLC0415

    return next((str(refusal) for refusal in refusals(group) if refusal.name == name), "")
