"""Telling which events can be counted on a host, and what each of them really is there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from agents.catalogue.table import EVENT_NAMES
from agents.messages import CountedEvent, EventSupport, MetricSource
from agents.perf.counters import ONLINE
from agents.perf.cpus import parse_numbers
from agents.perf.events import find_events
from agents.perf.group import EventGroup
from agents.perf.modelled import ModelledCounters
from agents.perf.own_events import find_own_events
from agents.perf.pmu import Absence
from agents.perf.syscall import PerfEvent, unreadable, why_not
from agents.sysroot import SysRoot


def probe_events(root: SysRoot) -> tuple[EventSupport, ...]:
    """Tell for each event whether it can be counted here, by opening and closing it, one after the other."""
    events, reasons = find_events(root)
    if root.real:
        reasons.update(_refused(root, events))
    else:
        reasons = ModelledCounters(root, EVENT_NAMES).unavailable
    return _support(EVENT_NAMES, reasons, {event.name: _counted(event) for event in events})


def probe_own_events(root: SysRoot, sources: Sequence[MetricSource]) -> tuple[EventSupport, ...]:
    """Tell the same for each source that is a perf event."""
    own = {source.metric: source for source in sources if source.perf}
    texts = {metric: source.perf for metric, source in own.items()}
    events, reasons = find_own_events(root, texts)
    if root.real:
        reasons.update(_refused(root, events))
    else:
        reasons = ModelledCounters(root, (), own=texts).unavailable
    counted = {event.name: replace(_counted(event), in_cgroup=own[event.name].in_cgroup) for event in events}
    return _support(own, reasons, counted)


def _support(
    metrics: Iterable[str], reasons: Mapping[str, str], counted: Mapping[str, CountedEvent]
) -> tuple[EventSupport, ...]:
    return tuple(
        EventSupport(
            event=name,
            available=name not in reasons,
            reason=str(why := reasons.get(name, "")),
            brief=why.brief if isinstance(why, Absence) else why,
            counted=counted.get(name),
        )
        for name in metrics
    )


def _refused(root: SysRoot, events: tuple[PerfEvent, ...]) -> dict[str, str]:
    try:
        cpus = parse_numbers(root.read(ONLINE))
    except OSError as error:
        return dict.fromkeys((event.name for event in events), unreadable(error, ONLINE))
    except ValueError as error:
        return dict.fromkeys((event.name for event in events), f"/{ONLINE}: {error}")
    refused: dict[str, OSError] = {}
    for event in events:
        group = EventGroup([event])
        refused |= group.open_on(cpus)
        group.close()
    return {metric: why_not(error) for metric, error in refused.items()}


def _counted(event: PerfEvent) -> CountedEvent:
    more = {
        "config1": event.config1,
        "config2": event.config2,
        "exclude_user": event.exclude_user,
        "exclude_kernel": event.exclude_kernel,
    }
    places = {"type": event.kind, "config": event.config, **{name: value for name, value in more.items() if value}}
    encoding = ",".join(f"{name}={value:#x}" for name, value in places.items())
    return CountedEvent(event=event.event, encoding=encoding, pmu=event.pmu, counts=event.counts)
