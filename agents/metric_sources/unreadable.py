"""Why a source gave no value."""

from __future__ import annotations


class Unreadable(Exception):
    """There is no value to be had: what is wrong, in a few words, and where it is known, what to do."""

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return self.what
