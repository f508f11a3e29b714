"""Views."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """View."""

    name: str
    question: str
    columns: Mapping[str, str]
    sql: str


VIEWS: tuple[View, ...] = ()


def view_sql(dialect: str) -> dict[str, str]:
    """SQL."""
    return {}
