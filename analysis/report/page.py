"""The report as plain sections: paragraphs, tables and listings, the same for HTML and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell: its text, a quieter note after it, a tone ('good', 'bad', 'quiet' or ''), and whether it is code.

    `link` is where its text leads, on pages that are served.
    """

    text: str
    note: str = ""
    tone: str = ""
    code: bool = False
    link: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table. `align` has one letter a column: 'l' left, 'n' left and on one line, 'r' right.

    A `folded` table opens on demand in HTML. `key` names the query that its numbers come from, in the appendix.
    """

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    align: str
    folded: bool = False
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Text to be shown letter for letter."""

    title: str
    text: str
    language: str = ""
    folded: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the report. `key` names it for links and says which charts belong to it."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    listings: tuple[Listing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The whole report: what it is about, the decision with its reason, what to be warned of, then the sections."""

    title: str
    hypothesis: str
    about: tuple[tuple[str, str], ...]
    decision: str
    tone: str
    reason: str
    alarms: tuple[str, ...]  # louder than the decision: a host that was not restored
    warnings: tuple[str, ...]
    trade: str  # the trade in servers, in one sentence; '' where none was computed
    sections: tuple[Section, ...]
    kicker: str = "Rollout report"
    links: tuple[tuple[str, str], ...] = ()  # (text, where it leads), above the title
