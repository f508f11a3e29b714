"""Errors of the analysis: the data or the plan cannot answer what was asked.

AnalysisError
├── NotEnoughData    too few units, blocks or values for the method
├── BadObservations  a column is missing or a value is impossible
└── BadPlan          the plan names an arm or metric that is not there
"""

from __future__ import annotations

__all__ = ["AnalysisError", "BadObservations", "BadPlan", "NotEnoughData"]


class AnalysisError(Exception):
    """Base: `what` is wrong, `where`, and the `remedy`."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{remedy}"


class NotEnoughData(AnalysisError):
    """Too few units, blocks or values for the method asked for."""


class BadObservations(AnalysisError):
    """The observations lack a column, or hold a value that cannot be."""


class BadPlan(AnalysisError):
    """The plan names an arm, metric or margin that makes no sense."""
