"""Things that register themselves by being there: each module of a folder of ours declares one of a kind.

A folder is looked through when somebody first asks, so that importing whoever asks imports none of them.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import TypeVar

T = TypeVar("T")


def declared_in(package: str, kind: type[T]) -> tuple[T, ...]:
    """Return what the modules of a package declare of this kind at their top, in the order of the modules' names."""
    folder = importlib.import_module(package)
    modules = (importlib.import_module(f"{package}.{found.name}") for found in pkgutil.iter_modules(folder.__path__))
    return tuple(one for module in modules for one in vars(module).values() if isinstance(one, kind))
