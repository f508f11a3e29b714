"""Compile a function to machine code, ahead of its first call and kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

from numba import njit

P = ParamSpec("P")
R = TypeVar("R")


def native(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Compile for one numba signature at import, without the interpreter lock, through numba's cache on disk."""
    return cast("Callable[[Callable[P, R]], Callable[P, R]]", njit(signature, nogil=True, cache=True))
