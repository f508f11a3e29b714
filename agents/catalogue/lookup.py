"""Finding a metric by name, and the nearest one to a name that is none."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from agents.catalogue.derived import DERIVED, DERIVED_PATTERNS, DerivedMetric
from agents.catalogue.metric import Metric, Owner
from agents.catalogue.patterns import PATTERNS
from agents.catalogue.table import CATALOGUE, COMMON_SIZES_KIB

_EVENT_TIME = re.compile(r"_time_(enabled|running)_seconds$")


def find_derived(name: str) -> DerivedMetric | None:
    """Return the derived metric of that name, None where there is none."""
    if name in DERIVED:
        return DERIVED[name]
    for pattern in DERIVED_PATTERNS:
        if match := pattern.expression.fullmatch(name):
            made = pattern.make(match[1])
            if all(_read(term) is not None for term in made.inputs):
                return made
    return None


def describe(name: str) -> Metric:
    """Return what is known of a metric, read or derived; KeyError naming the nearest where there is none."""
    if (metric := _read(name)) is not None:
        return metric
    if (derived := find_derived(name)) is not None:
        return Metric(
            name=name,
            unit=derived.unit,
            kind=derived.kind,
            source=f"derived from {', '.join((*derived.inputs, *(name for name, _ in derived.where_read)))}",
            meaning=derived.meaning,
            better=derived.better,
            owner=Owner.DERIVED,
        )
    raise KeyError(f"no metric {name!r}{_hint(name)}")


def asked_events(names: Iterable[str]) -> tuple[str, ...]:
    """Return the metrics of perf events that these metrics need, each once."""
    asked: dict[str, None] = {}
    for name in names:
        derived = find_derived(name)
        for term in (name,) if derived is None else derived.inputs:
            event = _EVENT_TIME.sub("", term)
            metric = _read(event)
            if metric is not None and metric.owner is Owner.PERF:
                asked[event] = None
    return tuple(asked)


def is_known(name: str) -> bool:
    """Tell whether `describe` has an answer."""
    return _read(name) is not None or find_derived(name) is not None


def _read(name: str) -> Metric | None:
    if name in CATALOGUE:
        return CATALOGUE[name]
    for pattern in PATTERNS:
        if match := pattern.expression.fullmatch(name):
            return pattern.describe(match)
    return None


def _hint(name: str) -> str:
    known = [*CATALOGUE, *DERIVED, *(pattern.example for pattern in PATTERNS)]
    sizes = [f"thp_{size}kB_{what}" for size in COMMON_SIZES_KIB for what in ("backed_bytes", "fallback_share")]
    nearest = difflib.get_close_matches(name, [*known, *sizes], n=1, cutoff=0.5)
    return f"; the nearest is {nearest[0]!r}" if nearest else "; docs/METRICS.md lists them all"
