"""What was decided, for each arm: which to take, what that speaks for, what was missing, what could overturn it."""

from __future__ import annotations

from analysis.quantities import DASH
from analysis.report.page import Cell, ReportSection, Ruling, Table, decision_tone
from analysis.results import ArmDecision, Findings
from analysis.wording import (
    choice_sentence,
    decision_label,
    doubt_words,
    missing_sentence,
    scope_words,
    settling_words,
)


def reason(findings: Findings) -> str:
    """Say which of several arms to take; of one, why it was decided so."""
    if len(findings.arms) > 1:
        said = choice_sentence(findings.arms, findings.preference)
        return f"{said[0].upper()}{said[1:]}."
    return findings.reason


def rulings(findings: Findings) -> tuple[Ruling, ...]:
    """Return what was decided for each arm, where there are several."""
    if len(findings.arms) < 2:
        return ()
    return tuple(
        Ruling(
            arm=one.arm,
            decision=decision_label(one.decision),
            tone=decision_tone(one.decision),
            reason=f"{one.sentence}.",
        )
        for one in findings.arms
    )


def grounds(findings: Findings) -> tuple[ReportSection, ...]:
    """Show what each decision speaks for, what was missing, and what could overturn it; nothing where none was made."""
    if not findings.arms:
        return ()
    tables = (_scopes(findings.arms), _doubts(findings.arms))
    quiet = "Nothing was found that could overturn it."
    paragraphs = () if any(one.overturn for one in findings.arms) else (quiet,)
    return (
        ReportSection(
            key="grounds",
            title="What the decision rests on",
            paragraphs=paragraphs,
            tables=tuple(table for table in tables if table.rows),
        ),
    )


def _scopes(arms: tuple[ArmDecision, ...]) -> Table:
    return Table(
        caption="What it speaks for",
        headers=("arm", "hosts and time", "missing"),
        rows=tuple(
            (
                Cell(text=one.arm),
                Cell(text=scope_words(one.scope)),
                Cell(text=missing_sentence(one.missing) or "nothing"),
            )
            for one in arms
        ),
        align="lll",
    )


def _doubts(arms: tuple[ArmDecision, ...]) -> Table:
    return Table(
        caption="What could overturn it",
        headers=("arm", "in doubt", "what would settle it"),
        rows=tuple(
            (Cell(text=one.arm), Cell(text=doubt_words(doubt)), Cell(text=settling_words(doubt) or DASH))
            for one in arms
            for doubt in one.overturn
        ),
        align="lll",
    )
