"""Addresses with a password that stand where none is read: refused before any message repeats the word."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence

from fleetexp.secret import VARIABLES

# USER:PASSWORD@... that is not a path; any URL of PostgreSQL; ...?password=...; and host=... password=...
_WITH_PASSWORD = re.compile(
    r"""(?!\.{0,2}/[^/])[^\s:\uff1a]*[:\uff1a].*[@\uff20]
    | \W*(?:\w+[\s=]+\W*){0,3}\w*?postgres\w*[:\uff1a](?!:)
    | [^\s?&;]*[?&;].*?(?:pass|pwd|secret|token|key)\w*\s*=
    | \W*\w+\s*=.*(?:pass|pwd|secret)\w*\s*=
    | \W*\w*?(?:passw|pwd|secret)\w*\s*=""",
    re.IGNORECASE | re.DOTALL | re.VERBOSE,
)
_TAKING = ("--store", "--query")  # options whose value is such an address
_LONGEST = 4096  # characters of a word that are looked at


def misplaced_passwords(words: Sequence[str]) -> Iterator[str]:
    """Yield where an address with a password stands and should not: the number of a word, or a variable's name."""
    before = ""
    for number, word in enumerate(words, 1):
        own = before in _TAKING or word.startswith(tuple(f"{option}=" for option in _TAKING))
        if not own and _WITH_PASSWORD.match(word[:_LONGEST].strip()):
            yield f"word {number} of the command line"
        before = word
    for name, value in os.environ.items():
        if name.startswith("FLEETEXP_") and name not in VARIABLES and _WITH_PASSWORD.match(value[:_LONGEST].strip()):
            yield name
