"""What can be wrong with a spec, and the one error that carries all of it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from agents.secret_words import masked
from fleetexp.errors import ConfigError

MOST_PROBLEMS = 120  # told of one spec
_LONGEST = 800  # characters of one part of a message: what it quotes may be a file
_MOST_CHOICES = 40
_MOST_COMPARED = 300
_LONGEST_WORD = 100


class ValueRefused(ValueError):
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
        return f"{self.where} {shortened(self.text)} — {shortened(self.remedy)}"


def shortened(text: str) -> str:
    """Return the text as it is shown: without secrets, its middle left out where it is longer than anybody reads."""
    text = masked(text)
    half = _LONGEST // 2
    return text if len(text) <= _LONGEST else f"{text[:half]} [...] {text[-half:]}"


def raise_all(problems: Iterable[SpecProblem]) -> None:
    """Raise one ConfigError with every problem, in the order of the text; return where there is none.

    Of very many only the first that were found are told, and no more are looked for.
    """
    some = tuple(islice(problems, MOST_PROBLEMS + 1))
    found = sorted(dict.fromkeys(some[:MOST_PROBLEMS]), key=lambda p: (p.line, p.column))
    if not found:
        return
    lines = tuple(str(problem) for problem in found)
    if len(found) == 1:
        raise ConfigError(shortened(found[0].text), found[0].where, shortened(found[0].remedy), lines)
    count = f"{len(found)} problems" if len(some) <= MOST_PROBLEMS else f"more than {MOST_PROBLEMS} problems"
    raise ConfigError(count, found[0].source, "each line names its own remedy", lines)


def refuse(source: str, *, what: str, remedy: str, line: int = 1, column: int = 1) -> NoReturn:
    """Raise at once: nothing after this problem can be read."""
    problem = SpecProblem(source=source, line=line, column=column, path=(), what=what, remedy=remedy)
    raise ConfigError(shortened(what), problem.where, shortened(remedy), (str(problem),))


def nearest(word: str, legal: Iterable[str]) -> str | None:
    """Return the legal word that looks most like this one, None where none does; of many, the first are looked at."""
    if len(word) > _LONGEST_WORD:
        return None
    by_lower = {choice.lower(): choice for choice in islice(legal, _MOST_COMPARED)}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[close[0]] if close else None


def choose(word: str, legal: Iterable[str], *, noun: str = "value") -> str:
    """Word the remedy for a word that is none of the legal ones: the nearest first, then all of them."""
    choices = sorted(legal)
    if not choices:
        return f"no {noun} is legal here"
    close = nearest(word, choices)
    more = len(choices) - _MOST_CHOICES
    every = f"legal: {', '.join(choices[:_MOST_CHOICES])}" + (f" and {more:,} more" if more > 0 else "")
    return f"did you mean {close!r}? {every}" if close else every
