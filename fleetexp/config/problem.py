"""What can be wrong with a spec, and the one error that carries all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

from fleetexp.errors import ConfigError


class Refused(ValueError):
    """A value that can't be used; pydantic carries it to where the key path is known."""

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecProblem:
    """One thing wrong: where the text says it (line and column from 1), which key, what, and what to write instead."""

    source: str
    line: int
    column: int
    path: tuple[str | int, ...]
    what: str
    remedy: str

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}:{self.column}"

    @property
    def key(self) -> str:
        """The key path as people write it: stages[0].hold."""
        out = ""
        for part in self.path:
            out += f"[{part}]" if isinstance(part, int) else f"{'.' if out else ''}{part}"
        return out

    @property
    def text(self) -> str:
        return f"{self.key}: {self.what}" if self.path else self.what

    def __str__(self) -> str:
        return f"{self.where} {self.text} — {self.remedy}"


def raise_all(problems: Iterable[SpecProblem]) -> None:
    """Raise one ConfigError with every problem, in the order of the text; return where there is none."""
    found = sorted(dict.fromkeys(problems), key=lambda p: (p.line, p.column))
    if not found:
        return
    lines = tuple(str(problem) for problem in found)
    if len(found) == 1:
        raise ConfigError(found[0].text, found[0].where, found[0].remedy, lines)
    raise ConfigError(f"{len(found)} problems", found[0].source, "each line names its own remedy", lines)


def refuse(source: str, *, what: str, remedy: str, line: int = 1, column: int = 1) -> NoReturn:
    """Raise at once: nothing after this problem can be read."""
    problem = SpecProblem(source=source, line=line, column=column, path=(), what=what, remedy=remedy)
    raise ConfigError(what, problem.where, remedy, (str(problem),))


def nearest(word: str, legal: Iterable[str]) -> str | None:
    """Return the legal word that looks most like this one, None where none does."""
    by_lower = {choice.lower(): choice for choice in legal}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def choose(word: str, legal: Iterable[str], *, noun: str = "value") -> str:
    """Word the remedy for a word that is none of the legal ones: the nearest first, then all of them."""
    choices = sorted(legal)
    if not choices:
        return f"no {noun} is legal here"
    close = nearest(word, choices)
    every = f"legal: {', '.join(choices)}"
    return f"did you mean {close!r}? {every}" if close else every
