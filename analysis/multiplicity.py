"""Several estimates at once: Holm for what was promised, Benjamini-Hochberg for what is only explored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from scipy import stats

from analysis.errors import BadObservations
from analysis.plan import Role
from analysis.results import Estimate

_HOLM = (Role.PRIMARY, Role.SECONDARY)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust so that the chance of any false claim stays at alpha. Holm (1979), Scand. J. Statist. 6:65-70."""
    _refuse_impossible(p_values)
    count = len(p_values)
    adjusted = [0.0] * count
    largest = 0.0
    for rank, place in enumerate(sorted(range(count), key=lambda i: p_values[i])):
        largest = max(largest, min(1.0, (count - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjust so that the share of false among the claims stays at alpha. J. R. Stat. Soc. B 57:289-300 (1995)."""
    _refuse_impossible(p_values)
    return [float(p) for p in stats.false_discovery_control(p_values, method="bh")] if p_values else []


def _refuse_impossible(p_values: Sequence[float]) -> None:
    if not all(0 <= p <= 1 for p in p_values):
        raise BadObservations("a p-value is not between 0 and 1", "p-values", "leave out what could not be tested")


def adjust(estimates: Sequence[Estimate]) -> tuple[Estimate, ...]:
    """Give every headline estimate of a family its adjusted p: primary over the arms, secondaries, exploratory.

    A p that an early look has raised already (`p_adjusted`) goes in as it is.
    """
    rows = list(estimates)
    for role in (*_HOLM, Role.EXPLORATORY):
        family = [
            (place, row.p_adjusted if row.p_adjusted is not None else row.p_value)
            for place, row in enumerate(rows)
            if row.role is role and row.headline and not row.stratum
        ]
        tested = [(place, p) for place, p in family if p is not None]
        values = [p for _, p in tested]
        adjusted = holm(values) if role in _HOLM else benjamini_hochberg(values)
        for (place, _), p in zip(tested, adjusted, strict=True):
            rows[place] = replace(rows[place], p_adjusted=p)
    return tuple(rows)
