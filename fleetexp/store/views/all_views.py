"""The views: one for each question people ask of a store, with the same columns on SQLite and PostgreSQL.

They hold no data, so migrations need not keep their history: they are made anew after the last step.
"""

from __future__ import annotations

from fleetexp.store.values import ColumnKind
from fleetexp.store.views.costs import AGENT_COST, FAULT_OUTCOMES, MEMORY_COST
from fleetexp.store.views.definition import View, select_of
from fleetexp.store.views.hosts import HOST_RESTORES, HOST_STATE, HOST_TIMELINE, KNOB_AUDIT
from fleetexp.store.views.periods import METRIC_SERIES, PERIOD_METRICS, PERIOD_QUALITY, SPLIT_RATES, THP_BACKING
from fleetexp.store.views.runs import DECISIONS, EFFECTS, GUARDRAIL_LOOKS, RUN_SUMMARY
from fleetexp.store.views.surveys import SURVEY_PROGRAMS, SURVEY_SHARES, SURVEY_SIZES
from fleetexp.store.views.traces import SPLIT_CAUSES, STALLS

__all__ = ["VIEWS", "ColumnKind", "View", "view_sql"]

# In an order in which they can be made: some look at others.
VIEWS: tuple[View, ...] = (
    RUN_SUMMARY,
    DECISIONS,
    EFFECTS,
    GUARDRAIL_LOOKS,
    PERIOD_METRICS,
    PERIOD_QUALITY,
    METRIC_SERIES,
    THP_BACKING,
    SPLIT_RATES,
    SPLIT_CAUSES,
    STALLS,
    FAULT_OUTCOMES,
    MEMORY_COST,
    AGENT_COST,
    KNOB_AUDIT,
    HOST_RESTORES,
    HOST_STATE,
    HOST_TIMELINE,
    SURVEY_SIZES,
    SURVEY_PROGRAMS,
    SURVEY_SHARES,
)


def view_sql(dialect: str) -> dict[str, str]:
    """Return the SELECT of each view in a dialect ('sqlite' or 'postgresql'), in an order in which they can be made."""
    return {view.name: select_of(view, dialect) for view in VIEWS}
