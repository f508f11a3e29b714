"""The lines of a Prometheus or OpenMetrics page that concern one series, in time that grows as the page does.

https://prometheus.io/docs/instrumenting/exposition_formats/ and
https://prometheus.io/docs/specs/om/open_metrics_spec/. In both a line is a line: newlines in labels are escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from agents.metric_sources.page import SourcePage, as_text
from agents.metric_sources.unreadable import Unreadable

LINE_AT_MOST = 65536
_EOF = "# EOF"
_SUFFIXES = ("_total", "_created", "_bucket", "_count", "_sum", "_gcount", "_gsum", "_info")
# No branch of these is tried twice: what one has eaten it keeps (possessive), so a hostile line costs its length.
_QUOTED = r'"(?:[^"\\]++|\\.)*+"'
_SAMPLE = re.compile(
    rf"""[ \t]*+(?P<name>[^ \t{{"]*+)[ \t]*+(?:\{{(?P<labels>(?:[^"}}]++|{_QUOTED})*+)\}})?[ \t]*+
    (?P<value>\{{[a-z_]++:[^"]*?\}}(?=[ ]|$)|[^ \t{{][^ \t]*+)(?:[ \t]++(?P<stamp>[^ \t#]++))?[ \t]*+(?:\#.*)?""",
    re.VERBOSE,
)
_LABEL = re.compile(
    rf"""[ \t]*+(?:(?P<plain>[a-zA-Z_:][a-zA-Z0-9_:]*+)|(?P<quoted>{_QUOTED}))[ \t]*+
    (?:=[ \t]*+(?P<value>{_QUOTED}))?[ \t]*+(?:,[ \t]*+|$)""",
    re.VERBOSE,
)
_STRAY = re.compile(r"^(?:$|[ \t]|#(?! (?:TYPE|HELP|UNIT) | EOF$))", re.MULTILINE)
_ESCAPED = re.compile(r'\\([\\n"])')


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """A page as text, and the rules that it follows."""

    text: str
    openmetrics: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line about a series or its family: `word` is TYPE, HELP or UNIT, or '' for a sample.

    `start` is its place on the page, `rest` what follows the name behind such a word.
    """

    word: str
    name: str
    start: int
    text: str
    rest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpositionSample:
    """One sample, its value and its instant as they are written."""

    name: str
    labels: Mapping[str, str]
    value: str
    stamp: str
    line: Line


def exposition(page: SourcePage) -> Exposition:
    """Return the page as text; Unreadable where it has no end, so that its last number may have been a longer one."""
    text = as_text(page.body)
    kind = page.content_type.lower()
    if "protobuf" in kind:
        raise Unreadable("the page is protobuf, which was not asked for", "let it be served as text")
    ended = text.rstrip()
    openmetrics = kind.startswith("application/openmetrics-text")
    if not kind and (ended == _EOF or ended.endswith(f"\n{_EOF}")):  # a command or a file says by its end what it is
        openmetrics = True
    if not openmetrics and not text.endswith("\n") and not page.whole:
        raise Unreadable("the page was cut off: its last line has no end", "let it end with a line feed")
    if openmetrics:
        first = re.search(rf"^{_EOF}(.*)$", text, re.MULTILINE)
        if first is None:
            raise Unreadable(f"the page was cut off: it does not end with '{_EOF}'", f"let it end with '{_EOF}'")
        if first[1] or first.end() < len(ended):
            raise Unreadable(f"there is text after '{_EOF}'", f"let the page end with '{_EOF}'")
        if (stray := _STRAY.search(ended)) is not None:
            what = f"line {_number(text, stray.start())} is blank, or a comment of no kind that OpenMetrics has"
            raise Unreadable(what, "let the page be served as 'text/plain', or follow OpenMetrics")
    return Exposition(text=text, openmetrics=openmetrics)


def lines_about(page: Exposition, name: str) -> Iterator[Line]:
    """Yield the lines of the families that a series may belong to; Unreadable where a sample is endlessly long."""
    text = page.text
    base, beginning = _beginning(name)
    at = text.find(base)  # faster than the pattern by far, and most lines are of others
    while at >= 0:
        start = text.rfind("\n", 0, at) + 1
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        match = beginning.match(text, start, end)
        if match is not None:
            yield _line(page, match, end)
        at = text.find(base, end)


def _line(page: Exposition, match: re.Match[str], end: int) -> Line:
    start, word = match.start(), match["word"] or ""
    if end - start > LINE_AT_MOST:
        if not word:
            what = f"line {_number(page.text, start)} is longer than {LINE_AT_MOST // 1024} KiB"
            raise Unreadable(what, "let the service write shorter labels")
        end = start + LINE_AT_MOST  # of a long HELP its beginning does
    name = match["about"] or match["plain"] or match["quoted"]
    rest = page.text[match.end() : end] if word else ""
    return Line(word=word, name=name.strip('"'), start=start, text=page.text[start:end], rest=rest)


@lru_cache(maxsize=256)
def _beginning(name: str) -> tuple[str, re.Pattern[str]]:
    """Return what all names nearby begin with, and how lines begin that they, or what is said about them, stand in."""
    bases = {name, *(name.removesuffix(suffix) for suffix in _SUFFIXES)} - {""}
    names = {base + suffix for base in bases for suffix in ("", *_SUFFIXES)}
    every = "|".join(sorted(map(re.escape, names), key=len, reverse=True))
    pattern = rf"""[ \t]*+(?:
            \#[ \t]*+(?P<word>TYPE|HELP|UNIT)[ \t]++(?P<about>{every}|"(?:{every})")(?=[ \t]|\Z)
            |(?P<plain>{every})(?=[ \t{{])
            |\{{[ \t]*+(?P<quoted>"(?:{every})")[ \t]*+(?=[,}}])
        )"""
    return min(bases, key=len), re.compile(pattern, re.VERBOSE)


def sample_of(page: Exposition, line: Line) -> ExpositionSample:
    """Return the sample of a line; Unreadable, with the number of the line, where it follows no rule."""
    match = _SAMPLE.fullmatch(line.text)
    if match is None:
        raise broken(page, line, "it is no 'name{labels} value'")
    labels: dict[str, str] = {}
    name = match["name"]
    written, at = (match["labels"] or "").strip(" \t"), 0
    if written == ",":  # some write it behind every label, also behind none
        written = ""
    while at < len(written):
        label = _LABEL.match(written, at)
        if label is None:
            raise broken(page, line, f"{written[at : at + 40]!r} is not a label")
        at = label.end()
        key, value = label["plain"] or _unquoted(label["quoted"]), label["value"]
        if value is None:
            if name or label["quoted"] is None:
                raise broken(page, line, f"the label {key!r} has no value")
            name = key
        elif key in labels:
            raise broken(page, line, f"the label {key!r} stands there twice")
        else:
            labels[key] = _unquoted(value)
    return ExpositionSample(name=name, labels=labels, value=match["value"], stamp=match["stamp"] or "", line=line)


def broken(page: Exposition, line: Line, why: str) -> Unreadable:
    """Return the error for a line that breaks the format's rules."""
    where = f"line {_number(page.text, line.start)}"
    return Unreadable(f"the page is not understood: {where}: {why}"[:300], "let the service mend that line")


def _number(text: str, at: int) -> int:
    return text.count("\n", 0, at) + 1


def _unquoted(text: str) -> str:
    if not text.startswith('"'):
        return text
    return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], text[1:-1])
