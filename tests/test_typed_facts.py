"""No code reads a sentence back: what it acts on is an enum, a number or a field of its own.

A name counts as that of a sentence if a word of it is one of SENTENCES: the fields and variables in which this project
keeps what is written for people. Words that also name a fact (`kind`, `state`, `cause`, `role`) are not among them.
Comparing with a variable is allowed (has it changed?), and so is cutting a sentence to its first line to show it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("fleetexp", "agents", "analysis") for path in (ROOT / folder).rglob("*.py"))
SENTENCES = frozenset(
    {"reason", "reasons", "detail", "method", "why", "because", "refusal", "note", "message", "sentence", "summary"}
    | {"warning", "warnings", "remark", "remarks", "remedy", "description", "doubt"}
)
READERS = frozenset(
    {"startswith", "endswith", "partition", "rpartition", "split", "rsplit", "removeprefix", "find", "index", "like"}
    | {"ilike", "contains", "removesuffix"}
)
_SQL = re.compile(rf"\b(?:{'|'.join(sorted(SENTENCES))})\b\s*(?:NOT\s+)?(?:I?LIKE\b|=\s*'[^'])", re.IGNORECASE)


def sentences_read_back(source: str) -> Iterator[str]:
    """Yield each expression that takes a sentence apart, looks for words in it, or compares it with words."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=value, attr=attr)) if attr in READERS and _is_sentence(value):
                yield ast.unparse(node)
            case ast.Compare(left=left, ops=ops, comparators=comparators):
                sides = [left, *comparators]
                for one, op, other in zip(sides, ops, comparators, strict=False):
                    if isinstance(op, ast.In | ast.NotIn) and (
                        (_is_text(one) and _is_sentence(other)) or (_is_sentence(one) and _holds_text(other))
                    ):
                        yield ast.unparse(node)
                    if isinstance(op, ast.Eq | ast.NotEq) and (
                        (_is_text(one) and _is_sentence(other)) or (_is_sentence(one) and _is_text(other))
                    ):
                        yield ast.unparse(node)
            case ast.Match(subject=subject, cases=cases) if _is_sentence(subject):
                if any(_is_text(part) for case in cases for part in ast.walk(case.pattern)):
                    yield f"match {ast.unparse(subject)}"
            case ast.Constant(value=str(text)) if _SQL.search(text):
                yield text


def _is_sentence(node: ast.expr) -> bool:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name) | ast.Subscript(slice=ast.Constant(value=str(name))):
            return not SENTENCES.isdisjoint(name.lower().split("_"))
        case ast.Subscript(value=value):
            return _is_sentence(value)
        case ast.Call(func=ast.Name(id="str"), args=[value]) | ast.Call(func=ast.Attribute(value=value)):
            return _is_sentence(value)
    return False


def _is_text(node: ast.AST) -> bool:
    match node:
        case ast.Constant(value=str(text)):
            return bool(text)  # whether anything is said at all may be asked
        case ast.JoinedStr():
            return True
    return False


def _holds_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Set | ast.Tuple | ast.List) and any(_is_text(one) for one in node.elts)


@pytest.mark.parametrize(
    "source",
    [
        'record.reason.startswith("paused by")',
        'state, _, why = event.detail.partition(": ")',
        '": " in event.detail',
        'row["method"] == "Welch t"',
        '"randomisation test" in row.method',
        'str(one.reason).strip().split(" (")',
        'method in {"complete", "independent"}',
        "query = \"SELECT 1 FROM event WHERE detail LIKE 'halted%'\"",
        "query = \"SELECT 1 FROM run WHERE reason = 'drift'\"",
        'statement.where(Event.detail.like("halted%"))',
        'match found.method:\n    case "complete":\n        pass',
    ],
)
def test_reading_a_sentence_is_noticed(source: str) -> None:
    assert list(sentences_read_back(source))


@pytest.mark.parametrize(
    "source", ['detail == ""', "progress.message != self._message", "event.kind is EventKind.DRIFT"]
)
def test_asking_whether_anything_is_said_or_has_changed_is_no_reading(source: str) -> None:
    assert not list(sentences_read_back(source))


def test_no_code_reads_a_sentence_back() -> None:
    found = {str(path.relative_to(ROOT)): list(sentences_read_back(path.read_text())) for path in SOURCES}
    assert len(found) > 300
    assert {path: said for path, said in found.items() if said} == {}
