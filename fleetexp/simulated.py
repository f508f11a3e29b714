"""Saying that data are simulated wherever a run shows itself: such a report must never pass for a real one."""

from __future__ import annotations

from dataclasses import replace

from analysis.results import Findings

WORDS = "SIMULATED, NO REAL HOST WAS MEASURED"


def is_simulated(fleet: str) -> bool:
    """Whether a run's record names a simulated fleet."""
    return fleet.partition(" ")[0] == "simulated"


def marked(text: str, fleet: str) -> str:
    """Put the words in front of a text that tells of a simulated run."""
    return f"{WORDS}: {text}" if is_simulated(fleet) else text


def marked_findings(findings: Findings, fleet: str) -> Findings:
    """Put the words in front of the sentence that says what a simulated run found; the others stand below it."""
    return replace(findings, reason=marked(findings.reason, fleet))
