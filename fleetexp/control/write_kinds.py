"""What a run writes down, by kind: each kind is one statement for all hosts of a turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from agents.catalogue.table import COUNTED_ALWAYS, COUNTED_IN_CGROUPS
from agents.messages import CountedEvent, HostFacts, KnobChange
from agents.traced_calls import TracedCalls
from fleetexp.control.write_queue import Kind
from fleetexp.domain import BrokenBy, PeriodState, Plan
from fleetexp.store.records import EventRecord, PeriodEnd, PeriodStart
from fleetexp.store.store import Store

READINGS_AT_ONCE = 20_000  # of periods that are summed up together: what lies in memory meanwhile


@dataclass(frozen=True, slots=True, kw_only=True)
class Closing:
    """A period that has ended and is stored whole; `invalid` as in PeriodClosed."""

    host: str
    period_id: int
    ended_at: datetime
    invalid: str
    calls: tuple[TracedCalls, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteKinds:
    """The kinds of a run. By rank: a period starts before it ends, and a block is struck out last of all."""

    facts: Kind[HostFacts]
    counted: Kind[tuple[str, Mapping[str, CountedEvent]]]
    changes: Kind[tuple[str, tuple[KnobChange, ...]]]
    starts: Kind[PeriodStart]
    closings: Kind[Closing]  # answered by whether the period was still to be closed
    ends: Kind[PeriodEnd]
    events: Kind[EventRecord]

    @staticmethod
    def of(
        store: Store,
        run_id: int,
        plan: Plan,
        *,
        observe: Callable[[Sequence[int]], None],
        is_current: Callable[[str, int], bool],
    ) -> WriteKinds:
        cgroup = [f"cgroup_{event}" for event in COUNTED_IN_CGROUPS] if plan.workloads else []
        always = tuple(dict.fromkeys((*COUNTED_ALWAYS, *plan.events, *cgroup)))

        def facts(items: Sequence[HostFacts]) -> Sequence[None]:
            store.record_many_host_facts(run_id, items, always)
            return [None] * len(items)

        def counted(items: Sequence[tuple[str, Mapping[str, CountedEvent]]]) -> Sequence[None]:
            store.record_counted_events(run_id, dict(items))
            return [None] * len(items)

        def changes(items: Sequence[tuple[str, tuple[KnobChange, ...]]]) -> Sequence[None]:
            by_host: dict[str, tuple[KnobChange, ...]] = {}
            for host, more in items:
                by_host[host] = (*by_host.get(host, ()), *more)
            store.record_many_knob_changes(run_id, by_host)
            return [None] * len(items)

        def starts(items: Sequence[PeriodStart]) -> Sequence[None]:
            store.start_periods(items)
            return [None] * len(items)

        def ends(items: Sequence[PeriodEnd]) -> Sequence[None]:
            store.end_periods(items)
            return [None] * len(items)

        def closings(items: Sequence[Closing]) -> Sequence[bool]:
            wanted = [is_current(one.host, one.period_id) for one in items]  # else struck out while it waited
            chosen = [one for one, still in zip(items, wanted, strict=True) if still]
            observe([one.period_id for one in chosen])
            store.record_traced_calls({one.period_id: one.calls for one in chosen if one.calls})
            store.end_periods([_end(one) for one in chosen])
            return wanted

        def events(items: Sequence[EventRecord]) -> Sequence[None]:
            store.record_events(run_id, items)
            return [None] * len(items)

        longest = max((period.seconds for unit in plan.units for period in unit.periods), default=0.0)
        periods = int(READINGS_AT_ONCE * plan.sample_every_seconds / max(longest, plan.sample_every_seconds))
        return WriteKinds(
            facts=Kind(rank=1, act=facts),
            counted=Kind(rank=1, act=counted),
            changes=Kind(rank=2, act=changes),
            starts=Kind(rank=3, act=starts),
            closings=Kind(rank=4, act=closings, at_once=max(1, min(periods, 200))),
            ends=Kind(rank=5, act=ends),
            events=Kind(rank=6, act=events),
        )


def _end(closing: Closing) -> PeriodEnd:
    broken = bool(closing.invalid)
    return PeriodEnd(
        period_id=closing.period_id,
        ended_at=closing.ended_at,
        state=PeriodState.INVALID if broken else PeriodState.COMPLETE,
        reason=closing.invalid,
        broken_by=BrokenBy.HOST if broken else BrokenBy.NOTHING,
    )
