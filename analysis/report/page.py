"""The report as plain sections: paragraphs, tables and listings, the same for HTML and for Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from analysis.results import Decision

_TONES = {
    Decision.SHIP: "good",
    Decision.SHIP_IN_STRATA: "qualified",
    Decision.BETTER_HERE: "qualified",
    Decision.DO_NOT_SHIP: "bad",
}


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
class ReportSection:
    """One part of the report. `key` names it for links and says which charts belong to it."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    listings: tuple[Listing, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What was decided for one of several arms."""

    arm: str
    decision: str
    tone: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportPage:
    """The whole report: what it is about, the decision with its reason, what to be warned of, then the sections."""

    title: str
    hypothesis: str
    about: tuple[tuple[str, str], ...]
    decision: str
    tone: str
    reason: str
    alarms: tuple[str, ...]  # louder than the decision: a host that was not restored
    warnings: tuple[str, ...]
    sections: tuple[ReportSection, ...]
    rulings: tuple[Ruling, ...] = ()  # under the decision, one for each arm where there are several
    kicker: str = "Rollout report"
    links: tuple[tuple[str, str], ...] = ()  # (text, where it leads), above the title
    answer: str = "Decision"  # what `decision` is called: a rollout that was not randomised has a verdict


def decision_tone(decision: Decision) -> str:
    """Return the tone of a decision: 'good', 'qualified' (good, with a limit that must be seen), 'bad' or 'quiet'."""
    return _TONES.get(decision, "quiet")
