"""A secret in hands that can't show it: whatever is said of it, printed, logged or pickled says *** or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn, final

HIDDEN = "***"
# Variables of ours that hold a secret. They are read at the edge, by this process: no child of it needs them.
VARIABLES = ("FLEETEXP_STORE", "FLEETEXP_TOKEN", "PGPASSWORD")
PREFIX = "FLEETEXP_SECRET_"  # what a spec may name: a token or a password for the metrics' server


@final
class Secret:
    """A text that only `reveal` gives. It prints as ***, equals its like in constant time, and can't be pickled."""

    __slots__ = ("_text",)
    __hash__ = None  # type: ignore[assignment]  # a hash would tell short secrets apart

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text: only where it is handed to whoever checks it."""
        return self._text

    def __repr__(self) -> str:
        return HIDDEN

    def __format__(self, _spec: str) -> str:
        return HIDDEN

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        from hmac import compare_digest  # noqa: PLC0415 - the command line starts without it

        return compare_digest(*(one._text.encode(errors="surrogatepass") for one in (self, other)))

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not pickled: it would leave this process")

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, _memo: object) -> Secret:
        return self


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment for a child: without the variables that hold our secrets."""
    return {name: value for name, value in environment.items() if not _is_ours(name)}


@contextmanager
def secrets_withheld() -> Iterator[None]:
    """Take our secrets out of this process's environment while a library starts children that inherit it."""
    held = {name: os.environ.pop(name) for name in list(os.environ) if _is_ours(name)}
    try:
        yield
    finally:
        os.environ.update(held)


def _is_ours(name: str) -> bool:
    return name in VARIABLES or name.startswith(PREFIX)
