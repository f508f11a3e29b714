"""Every metric that a host yields: one table from which code, documentation and SQL comments come.

`CATALOGUE` holds the metrics with a name of their own, `PATTERNS` those that depend on the host (page sizes, buddy
orders, counted events), `DERIVED` what is computed from them over a period. `describe` answers for all three.
"""

from __future__ import annotations

from agents.catalogue.derived import DERIVED, DERIVED_PATTERNS, DerivedMetric, derive, derived_for
from agents.catalogue.lookup import asked_events, describe, find_derived, is_known
from agents.catalogue.metric import Better, CataloguePage, Metric, MetricKind, Owner
from agents.catalogue.ownership import FOR_A_SERVICE, Owned, find_foreign, owner_of
from agents.catalogue.page import render_catalogue
from agents.catalogue.patterns import PATTERNS, MetricPattern
from agents.catalogue.table import CATALOGUE, COMMON_SIZES_KIB

__all__ = [
    "CATALOGUE",
    "COMMON_SIZES_KIB",
    "DERIVED",
    "DERIVED_PATTERNS",
    "FOR_A_SERVICE",
    "PATTERNS",
    "Better",
    "CataloguePage",
    "DerivedMetric",
    "Metric",
    "MetricKind",
    "MetricPattern",
    "Owned",
    "Owner",
    "asked_events",
    "derive",
    "derived_for",
    "describe",
    "find_derived",
    "find_foreign",
    "is_known",
    "owner_of",
    "render_catalogue",
]
