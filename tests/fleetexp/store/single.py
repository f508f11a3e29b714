"""The store's methods for many things, for one: what tests enter by hand."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from agents.messages import HostFacts
from analysis.aggregate import Summary
from fleetexp.domain import BrokenBy, PeriodState
from fleetexp.store.store import PeriodEnd, PeriodStart, Store


def start_period(store: Store, period_id: int, started_at: datetime, boot_id: str) -> None:
    store.start_periods([PeriodStart(period_id=period_id, started_at=started_at, boot_id=boot_id)])


def end_period(  # noqa: PLR0917 - as a period's end is told
    store: Store,
    period_id: int,
    ended_at: datetime,
    state: PeriodState,
    reason: str = "",
    broken_by: BrokenBy = BrokenBy.NOTHING,
) -> None:
    end = PeriodEnd(period_id=period_id, ended_at=ended_at, state=state, reason=reason, broken_by=broken_by)
    store.end_periods([end])


def record_host_facts(store: Store, run_id: int, facts: HostFacts) -> None:
    store.record_many_host_facts(run_id, [facts])


def save_observations(store: Store, period_id: int, summaries: Mapping[str, Summary]) -> None:
    store.save_many_observations({period_id: summaries})
