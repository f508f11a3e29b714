"""A number in a JSON document, by its path: `a.b[0].c`, and `a["odd.key"]` for keys that hold dots or brackets."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

from agents.metric_sources.finite_number import as_number, shown
from agents.metric_sources.unreadable import Unreadable

Step: TypeAlias = str | int

_SHOWN = 200
_STEP = re.compile(r"""(?:^|\.)(?P<key>[^.\[\]"'\s]+)|\[(?P<index>[0-9]{1,9})\]|\["(?P<quoted>[^"]+)"\]""")


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path; ValueError where it is none."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is not a path at {text[at:]!r}")
        steps.append(int(match["index"]) if match["index"] is not None else match["key"] or match["quoted"])
        at = match.end()
    if not steps:
        raise ValueError("the path is empty")
    return tuple(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedJson:
    """What a JSON document holds."""

    value: object


def parse_document(body: bytes) -> ParsedJson:
    """Return a document; Unreadable where it is none."""
    try:
        return ParsedJson(value=json.loads(body, object_pairs_hook=_object))
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON: {error}"[:_SHOWN], "see what answers there, or correct the source") from error


class _Twice:
    """What stands for the values of a key that an object has twice: nobody knows which is meant."""


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) < len(pairs):
        keys = Counter(key for key, _ in pairs)
        out |= {key: _Twice() for key, times in keys.items() if times > 1}
    return out


def number_at(document: ParsedJson, path: str) -> float:
    """Return the number at `path`, also one written as text; Unreadable where there is none."""
    value = document.value
    gone: list[str] = []
    for step in parse_path(path):
        match step, value:
            case int(), list() if step < len(value):
                value = value[step]
            case str(), dict() if step in value:
                value = value[step]
            case _:
                raise Unreadable(f"{_written(gone)} has no {step!r}{_instead(value)}", "correct 'path'")
        if isinstance(value, _Twice):
            raise Unreadable(f"{_written(gone)} has {step!r} twice", "let the document say it once")
        gone.append(f"[{step}]" if isinstance(step, int) else f"{'.' if gone else ''}{step}")
    return as_number(value)


def _written(gone: list[str]) -> str:
    return "".join(gone) or "the document"


def _instead(value: object) -> str:
    match value:
        case dict():
            return f"; it has {', '.join(str(key)[:_SHOWN] for key in islice(value, 8))[:_SHOWN] or 'nothing'}"
        case list():
            return f"; it has {len(value)} entries"
        case _:
            return f": it is {shown(value)}"
