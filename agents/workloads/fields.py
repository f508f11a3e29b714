"""Reading one option after another from a workload's spec, keeping every problem found on the way."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence

from agents.messages import Problem, Scalar, Severity, WorkloadSpec

WORD_BYTES_AT_MOST = 128 * 1024 - 1  # of one argument or variable (MAX_ARG_STRLEN, with its NUL)
_SHOWN = 80  # characters
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")
_LARGEST = 2**62  # beyond any size or count that a machine can hold


def unfit_word(word: str) -> tuple[str, str] | None:
    """Say why no program can be given this as an argument or a variable, and the remedy; None where it can."""
    if _UNFIT.search(word):
        return (
            f"{repr(word)[:_SHOWN]} holds a character that no program can be given",
            "write it without NUL and halves",
        )
    if (length := len(word.encode())) > WORD_BYTES_AT_MOST:
        return f"a word of {length:,} bytes, and the kernel passes {WORD_BYTES_AT_MOST:,}", "give it in a file"
    return None


def refusal(what: str, where: str, remedy: str) -> Problem:
    """Return a problem for which a workload does not start."""
    return Problem(severity=Severity.ERROR, what=what, where=where, remedy=remedy)


class Fields:
    """The options of one spec. A wrong one is noted and answered with a stand-in, so that all are found at once."""

    def __init__(self, spec: WorkloadSpec) -> None:
        self._kind = spec.kind
        self._options = spec.options
        self._known: list[str] = []
        self._problems: list[Problem] = []

    def count(self, name: str, *, default: int | None = None, least: int = 0) -> int:
        """Read a whole number of at least `least`; required where it has no default."""
        value = self._value(name, default, required=default is None)
        if value is None:
            return least
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            self.refuse(name, f"{value!r} is not a whole number from {least}", "give a whole number in base units")
            return least
        return value

    def page_size(self, name: str, *, default: int | None) -> int:
        """Read a page size in KiB; required where it has no default."""
        size = self.count(name, default=default, least=4 if default is None else 0)
        if size and (size < 4 or size & (size - 1)):
            self.refuse(name, f"{size} KiB is not a page size", "choose a power of two, 4 or more")
            return 0
        return size

    def seconds(self, name: str) -> float | None:
        """Read a positive time, or None where it is absent."""
        value = self._value(name, None, required=False)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            self.refuse(name, f"{value!r} is not a time above 0", "give a number of seconds")
            return None
        return float(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._value(name, default, required=False)
        if not isinstance(value, bool):
            self.refuse(name, f"{value!r} is neither true nor false", "write true or false")
            return default
        return value

    def word(self, name: str, *, default: str | None = None, choices: Sequence[str] = ()) -> str | None:
        """Read a text without NUL, one of `choices` where there are any."""
        value = self._value(name, default, required=False)
        if value is None:
            return None
        if not isinstance(value, str) or not value or "\0" in value:
            self.refuse(name, f"{value!r} is not a text", "write a text")
            return default
        if choices and value not in choices:
            self.refuse(name, f"{value!r} is not possible", f"choose one of {', '.join(choices)}")
            return default
        return value

    def words(self, name: str, *, default: tuple[str, ...] | None = None) -> tuple[str, ...]:
        """Read a list of texts; required where it has no default."""
        value = self._value(name, default, required=default is None)
        if value is None:
            return ()
        if not isinstance(value, tuple | list) or not all(isinstance(word, str) for word in value):
            self.refuse(name, f"{repr(value)[:_SHOWN]} is not a list of texts", "write a list; no shell reads it")
            return ()
        words = tuple(str(word) for word in value)
        for problem in filter(None, map(unfit_word, words)):
            self.refuse(name, *problem)
            return ()
        return words

    def refuse(self, name: str, what: str, remedy: str) -> None:
        self._problems.append(refusal(what, f"workload {self._kind}, {name}", remedy))

    def finish(self) -> tuple[Problem, ...]:
        """Return every problem, with those options that nobody asked for."""
        for name in self._options:
            if name not in self._known:
                near = difflib.get_close_matches(name, self._known, n=1)
                hint = f"did you mean {near[0]}?" if near else f"it has {', '.join(self._known)}"
                self.refuse(name, f"{self._kind} has no option {name!r}", hint)
        return tuple(self._problems)

    def _value(self, name: str, default: Scalar | tuple[Scalar, ...], *, required: bool) -> Scalar | tuple[Scalar, ...]:
        self._known.append(name)
        value = self._options.get(name)
        if value is None:
            if required:
                self.refuse(name, "the option is missing", "give it a value")
            return default
        return value
