"""Errors of the orchestrator's side. Every one says what failed, where, and the remedy, and survives a pickle.

FleetexpError
└── ConfigError          the experiment's YAML can't be used, or doesn't fit the hosts; nothing was touched
"""

from __future__ import annotations

__all__ = ["ConfigError", "FleetexpError"]


class FleetexpError(Exception):
    """Base of every error on this side; `what` failed, `where`, and the `remedy`."""

    def __init__(self, what: str, where: str = "", remedy: str = "") -> None:
        super().__init__(what, where, remedy)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        remedy = f" — {self.remedy}" if self.remedy else ""
        return f"{self.what}{place}{remedy}"


class ConfigError(FleetexpError):
    """The spec can't be used. `problems` lists each thing found as one line: file:line:column key: what — remedy."""

    def __init__(self, what: str, where: str = "", remedy: str = "", problems: tuple[str, ...] = ()) -> None:
        super().__init__(what, where, remedy)
        self.args = (what, where, remedy, problems)
        self.problems = problems

    def __str__(self) -> str:
        head = FleetexpError.__str__(self)
        return head if len(self.problems) < 2 else "\n  ".join((head, *self.problems))
