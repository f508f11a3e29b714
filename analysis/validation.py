"""The gates: what is not a number does not come in; what overflowed or was undefined leaves as None, with a word."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.errors import BadObservations
from analysis.results import Check, Estimate, Interval

_FIGURES = ("control_mean", "treatment_mean", "difference", "lift", "standard_error", "df", "p_value", "p_adjusted")
_INTERVALS = ("difference_interval", "lift_interval")


def refuse_not_finite(where: str, *columns: NDArray[np.float64]) -> None:
    """Raise BadObservations where a value is NaN or infinite: an estimator has no answer to it."""
    for column in columns:
        if not np.isfinite(column).all():
            raise BadObservations("a value is not a finite number", where, "leave that unit out, and say so")


def finite_estimates(rows: Iterable[Estimate]) -> tuple[Estimate, ...]:
    """Make every figure a plain finite float or None."""
    return tuple(finite_estimate(row) for row in rows)


def finite_checks(rows: Iterable[Check]) -> tuple[Check, ...]:
    """Make every p-value a plain finite float or None; a check without one was not testable."""
    return tuple(
        row
        if row.p_value is None or math.isfinite(row.p_value)
        else replace(row, p_value=None, passed=None, detail=f"Not computable. {row.detail}")
        for row in rows
    )


def finite_estimate(row: Estimate) -> Estimate:
    """Make every figure of one estimate a plain finite float or None, and say which was lost."""
    figures = {name: getattr(row, name) for name in _FIGURES}
    intervals = {name: getattr(row, name) for name in _INTERVALS}
    lost = [name for name, value in figures.items() if value is not None and not math.isfinite(value)]
    lost += [name for name, value in intervals.items() if value is not None and not _is_finite(value)]
    changes: dict[str, Any] = {
        name: None if name in lost or value is None else float(value) for name, value in figures.items()
    }
    if lost:
        changes |= {name: None if name in lost else value for name, value in intervals.items()}
        changes["warnings"] = (*row.warnings, f"not computable: {', '.join(lost)}")
    return replace(row, **changes)


def _is_finite(interval: Interval) -> bool:
    return all(end is None or math.isfinite(end) for end in (interval.low, interval.high))
