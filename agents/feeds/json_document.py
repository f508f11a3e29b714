"""A number in a JSON document, by its path: `a.b[0].c`, and `a["odd.key"]` for keys that hold dots or brackets."""

from __future__ import annotations

import json
import re
from typing import TypeAlias

from agents.feeds.number import as_number, shown
from agents.feeds.unreadable import Unreadable

Step: TypeAlias = str | int

_STEP = re.compile(r"""(?:^|\.)(?P<key>[^.\[\]"'\s]+)|\[(?P<index>[0-9]{1,9})\]|\["(?P<quoted>[^"]+)"\]""")


def parse_path(text: str) -> tuple[Step, ...]:
    """Return the steps of a path; ValueError where it is none."""
    steps: list[Step] = []
    at = 0
    while at < len(text):
        match = _STEP.match(text, at)
        if match is None:
            raise ValueError(f"{text!r} is no path at {text[at:]!r}")
        steps.append(int(match["index"]) if match["index"] is not None else match["key"] or match["quoted"])
        at = match.end()
    if not steps:
        raise ValueError("the path is empty")
    return tuple(steps)


def number_at(document: bytes, path: str) -> float:
    """Return the number at `path`, also one written as text; Unreadable where there is none."""
    try:
        value: object = json.loads(document)
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"it is no JSON: {error}") from error
    gone: list[str] = []
    for step in parse_path(path):
        match step, value:
            case int(), list() if step < len(value):
                value = value[step]
            case str(), dict() if step in value:
                value = value[step]
            case _:
                raise Unreadable(f"{_written(gone)} has no {step!r}{_instead(value)}")
        gone.append(f"[{step}]" if isinstance(step, int) else f"{'.' if gone else ''}{step}")
    return as_number(value)


def _written(gone: list[str]) -> str:
    return "".join(gone) or "the document"


def _instead(value: object) -> str:
    match value:
        case dict():
            return f"; it has {', '.join(map(str, list(value)[:8])) or 'nothing'}"
        case list():
            return f"; it has {len(value)} entries"
        case _:
            return f": it is {shown(value)}"
