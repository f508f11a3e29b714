"""Statistics of a rollout: from observations per host and period to effects, guardrails and a decision.

`analyze` is loaded on first use: plan and results are light, pandas and SciPy are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.findings import analyze

__all__ = ["analyze"]


def __getattr__(name: str) -> object:
    if name == "analyze":
        from analysis.findings import analyze  # noqa: PLC0415 - lazy on purpose

        return analyze
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
