"""Why the metrics' server gave no answer that can be used."""

from __future__ import annotations

from fleetexp.domain import CentralOutcome


class CentralFailure(Exception):
    """`outcome` is the kind of failure; `what` failed, `where`, and the `remedy`, in words and without a secret."""

    def __init__(self, outcome: CentralOutcome, what: str, where: str, remedy: str = "") -> None:
        super().__init__(outcome, what, where, remedy)
        self.outcome, self.what, self.where, self.remedy = outcome, what, where, remedy

    def __str__(self) -> str:
        return f"{self.what} [{self.where}]{f' — {self.remedy}' if self.remedy else ''}"
