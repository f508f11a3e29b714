"""A spec's text as plain data, with the line and column of every key; what YAML makes of it by surprise is refused.

Scalars are resolved as in YAML 1.2: only true and false are booleans, so that `on`, `off`, `yes` and `no` stay words
and `1:30` is not a number in base 60. Keys are always text. Aliases are allowed, within bounds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from agents.secret_words import masked
from fleetexp.experiment.problem import SpecProblem, refuse

Path: TypeAlias = tuple[str | int, ...]
Scalar: TypeAlias = str | int | float | bool | None

MAX_BYTES = 256 * 1024
MAX_NODES = 10_000
MAX_DEPTH = 20
_RIGHT_FILE = "is this the right file?"

_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")  # 64 bits; a longer one, or one that starts with 0, stays text
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]{1,3})?")
_WORDS: Mapping[str, bool | None] = {
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
}
_PREFIX = "tag:yaml.org,2002:"
_UNFIT = re.compile(r"[\x00\ud800-\udfff]")  # no database and no UTF-8 takes these, and YAML's escapes can name them


class WrittenInt(int):
    """A whole number, and how it was written: +5, where text is meant."""

    text: str


class WrittenFloat(float):
    """A number, and how it was written: 3.10, where text is meant."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecDocument:
    """What a spec says (mappings, tuples, str, int, float, bool, None) and where it says it."""

    source: str
    data: Mapping[str, Any]
    marks: Mapping[Path, tuple[int, int]]  # key path -> line, column; both from 1
    problems: tuple[SpecProblem, ...]

    def problem(self, path: Path, what: str, remedy: str) -> SpecProblem:
        """Make a problem that stands at `path`, or at the nearest key above it that the text has."""
        known = path
        while known and known not in self.marks:
            known = known[:-1]
        line, column = self.marks.get(known, (1, 1))
        return SpecProblem(source=self.source, line=line, column=column, path=path, what=what, remedy=remedy)


def decode(raw: bytes, source: str) -> str:
    """Decode a spec file's bytes; ConfigError where they are no UTF-8 text or too many."""
    if len(raw) > MAX_BYTES:
        refuse(source, what=f"the file is too large: a spec has at most {MAX_BYTES:,} bytes", remedy=_RIGHT_FILE)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{raw[error.start]:02x} at offset {error.start} is no UTF-8"
        refuse(source, line=line, what=what, remedy="save the file as UTF-8")


def read_document(text: str, source: str) -> SpecDocument:
    """Read the one mapping that a spec is; ConfigError where it is no YAML, or no mapping."""
    if len(text) > MAX_BYTES:
        refuse(source, what=f"a spec has at most {MAX_BYTES:,} characters", remedy=_RIGHT_FILE)
    node = _compose(text, source)
    if node is None:
        refuse(source, what="the spec is empty", remedy="'fleetexp example' lists some to start from")
    reader = _YamlReader(source)
    data = reader.read(node, (), 0)
    if not isinstance(data, dict):
        what = f"a spec is a mapping of keys to values, this is {kind_of(data)}"
        refuse(source, line=node.start_mark.line + 1, what=what, remedy="start with 'name: my-experiment'")
    return SpecDocument(source=source, data=data, marks=reader.marks, problems=tuple(reader.problems))


def kind_of(value: object) -> str:
    """Say what a value is, in the words of someone who writes YAML."""
    match value:
        case None:
            return "empty"
        case bool():
            return f"the boolean {str(value).lower()}"
        case int() | float():
            return f"the number {getattr(value, 'text', value)}"
        case str():
            value = masked(value)
            return f"the text {value!r}" if len(value) <= 60 else f"the text {value[:57]!r}..."
        case tuple() | list():
            return "a list"
        case _:
            return "a mapping"


class _Loader(yaml.SafeLoader):
    """Makes nodes of text, and stops at the bounds: what comes after them is not even looked at."""

    def __init__(self, text: str, source: str) -> None:
        super().__init__(text)
        self._source = source
        self._nodes = 0
        self._depth = -1

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:  # noqa: ANN401 - as in PyYAML
        self._nodes += 1
        self._depth += 1
        _check_bounds(self._nodes, self._depth, self._source, self.line + 1)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _check_bounds(nodes: int, depth: int, source: str, line: int) -> None:
    if nodes > MAX_NODES or depth > MAX_DEPTH:
        limit = f"{MAX_NODES:,} values" if nodes > MAX_NODES else f"{MAX_DEPTH} levels"
        remedy = "write fewer, and no aliases within aliases"
        refuse(source, line=line, what=f"the spec unfolds to more than {limit}", remedy=remedy)


def _compose(text: str, source: str) -> yaml.Node | None:
    try:
        loader = _Loader(text, source)
        try:
            node: yaml.Node | None = loader.get_single_node()
            return node
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = "this is no YAML: " + ", ".join(part for part in (error.context, error.problem) if part)
        remedy = "check indentation, colons and quotes at this place"
        if "'\\t'" in what:
            what, remedy = "a tab in the indentation", "indent with spaces: YAML allows no tabs there"
        elif "single document" in what:
            what, remedy = "a second document starts here", "keep one experiment in a file, without '---' inside"
        elif "undefined alias" in what:
            remedy = "quote a value that starts with '*'"
        refuse(
            source, line=mark.line + 1 if mark else 1, column=mark.column + 1 if mark else 1, what=what, remedy=remedy
        )
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{ord(text[error.position]):04X} can't stand in YAML"
        refuse(source, line=line, what=what, remedy="remove it")


class _YamlReader:
    """Turns nodes into data, noting where each key stands."""

    def __init__(self, source: str) -> None:
        self.marks: dict[Path, tuple[int, int]] = {}
        self.problems: list[SpecProblem] = []
        self._source = source
        self._nodes = 0

    def read(self, node: yaml.Node, path: Path, depth: int) -> object:
        self._nodes += 1
        _check_bounds(self._nodes, depth, self._source, node.start_mark.line + 1)  # an alias may expand without end
        self.marks.setdefault(path, _mark(node))
        if isinstance(node, yaml.MappingNode):
            self._tag(node, "map", path)
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            self._tag(node, "seq", path)
            return tuple(self.read(item, (*path, index), depth + 1) for index, item in enumerate(node.value))
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - the third and last kind of node
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._refuse(key_node, path, "a key must be a word", "write 'key: value'")
                continue
            key = key_node.value
            here = (*path, key)
            if not key.isprintable():
                self._refuse(key_node, path, f"the key {key[:60]!r} is not plain text", "write 'key: value'")
                continue
            if key in out:
                first = self.marks[here][0]
                self._refuse(key_node, here, f"the key {key!r} stands twice, first in line {first}", "keep one of them")
                continue
            if key == "<<":
                self._refuse(key_node, here, "merge keys (<<) are not part of a spec", "write the keys out")
                continue
            self.marks[here] = _mark(key_node)
            out[key] = self.read(value_node, here, depth + 1)
        return out

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> Scalar:
        text: str = node.value
        if unfit := _UNFIT.search(text):
            what = f"the text holds the character U+{ord(unfit[0]):04X}"
            self._refuse(node, path, what, "take it out: nothing that keeps text takes it")
            return ""
        if node.style is not None:  # quoted, or a block: text, whatever it looks like
            self._tag(node, "str", path)
            return text
        self._tag(node, "str bool int float null timestamp value merge", path)
        if text in _WORDS:
            return _WORDS[text]
        number: WrittenInt | WrittenFloat
        if _INTEGER.fullmatch(text):
            number = WrittenInt(text)
        elif _NUMBER.fullmatch(text):
            number = WrittenFloat(text)
        else:
            return text
        number.text = text
        return number

    def _tag(self, node: yaml.Node, allowed: str, path: Path) -> None:
        if node.tag not in {_PREFIX + name for name in allowed.split()}:
            tag = node.tag.removeprefix(_PREFIX)
            self._refuse(node, path, f"the tag !{tag} is not part of a spec", "write the value without a tag")

    def _refuse(self, node: yaml.Node, path: Path, what: str, remedy: str) -> None:
        line, column = _mark(node)
        self.problems.append(
            SpecProblem(source=self._source, line=line, column=column, path=path, what=what, remedy=remedy)
        )


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1
