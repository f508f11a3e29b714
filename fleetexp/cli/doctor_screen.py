"""The map of a host on one screen: facts in, lines out."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from agents.catalogue.table import COUNTED_ALWAYS, COUNTED_IN_CGROUPS
from agents.environment_probe import UNKNOWN
from agents.messages import CountedEvent, EventSupport, HostFacts, ThpSize
from agents.page_sizes import GIGABYTE_KIB
from agents.perf.multiplexing import Turns
from fleetexp.cli.capabilities import Capability, capabilities
from fleetexp.cli.output import duration, labelled, memory, size, visible


def doctor_lines(facts: HostFacts, claim: str, *, short: bool, columns: int, turns: Turns | None = None) -> list[str]:
    """Lay out what was found. `claim` says who holds the host, `turns` how long events were counted, where tried.

    Short: only the host and what works on it.
    """
    rows = [("host", _host(facts)), ("kernel", _kernel(facts))]
    if not short:
        rows += _memory_rows(facts) + _page_rows(facts) + _sight_rows(facts, turns) + _company_rows(facts)
    rows.append(("claim", claim))
    lines = [labelled(label, visible(text), columns=columns) for label, text in rows]
    lines += ["", *_works("what works here", capabilities(facts), columns)]
    return lines


def _host(facts: HostFacts) -> str:
    where = "virtual or not is not known" if facts.virtualisation == UNKNOWN else facts.virtualisation or "bare metal"
    cpus = f"{facts.cpus} CPU{'s' if facts.cpus != 1 else ''}" if facts.cpus else "CPUs not known"
    return f"{facts.host or 'name not known'}: {', '.join(filter(None, (cpus, _cpu(facts))))}; {where}"


def _cpu(facts: HostFacts) -> str:
    return facts.cpu_model or facts.architecture


def _kernel(facts: HostFacts) -> str:
    named = " ".join(filter(None, (facts.kernel or "version not known", facts.architecture)))
    up = f", up {duration(facts.uptime_seconds)}" if facts.uptime_seconds else ""
    taint = f", TAINTED ({facts.kernel_taint})" if facts.kernel_taint else ""
    return f"{named}{up}{taint}"


def _memory_rows(facts: HostFacts) -> list[tuple[str, str]]:
    swap = memory(facts.swap_total_bytes) if facts.swap_total_bytes else "none"
    balancing = {True: "on", False: "off", None: "unknown"}[facts.numa_balancing]
    nodes = f"{facts.numa_nodes} node{'s' if facts.numa_nodes != 1 else ''}, balancing {balancing}"
    if facts.numa_balancing and facts.numa_nodes > 1 and has_gigabyte_thp(facts):
        nodes += ": it splits 1 GB pages within seconds"
    total, available = facts.memory_total_bytes, facts.memory_available_bytes
    pages = f"pages of {size(facts.base_page_bytes / 1024)}" if facts.base_page_bytes else "page size not known"
    amount = f"{memory(total)}, {memory(available) if available else 'unknown'} available; swap {swap}"
    return [("memory", f"{amount if total else 'not known'}; {pages}"), ("NUMA", nodes)]


def _page_rows(facts: HostFacts) -> list[tuple[str, str]]:
    top = f"top level {facts.thp_top_level or 'not known'}; defrag {facts.thp_defrag or 'not known'}"
    there = bool(facts.thp_top_level or facts.thp_sizes)
    pools = "; ".join(
        f"{size(pool.size_kib)}: {pool.total_pages} pages, {pool.free_pages} free" for pool in facts.hugetlb_pools
    )
    return [
        ("THP", top if there else "none: this kernel has no transparent huge pages"),
        *([("  sizes", _sizes(facts))] if there else []),
        ("hugetlb", "; ".join(filter(None, (pools or "no pools", hugetlb_area(facts))))),
        ("knobs", _knobs(facts)),
    ]


def hugetlb_area(facts: HostFacts) -> str:
    """Say which area was kept at boot for gigantic pages of a pool; '' where none was."""
    if not facts.hugetlb_cma:
        return ""
    got = f"CMA {memory(facts.cma_total_bytes)}" if facts.cma_total_bytes else "the kernel kept none"
    return f"booted with hugetlb_cma={facts.hugetlb_cma} ({got})"


def _sizes(facts: HostFacts) -> str:
    if not facts.thp_sizes:
        return "not known: there is no hpage_pmd_size"
    one = facts.thp_sizes[0].size_kib
    switched = f", the only one; {facts.thp_switch(one)} switches it" if facts.thp_switch(one) == "thp/enabled" else ""
    return "; ".join(_by_effect(facts.thp_sizes)) + switched


def _by_effect(sizes: Sequence[ThpSize]) -> Iterable[str]:
    def effect(one: ThpSize) -> str:
        if not one.effective:
            return "shmem only"
        return f"{one.effective} (by inherit)" if one.enabled == "inherit" else one.effective

    for state, same in groupby(sorted(sizes, key=lambda one: (effect(one), one.size_kib)), key=effect):
        yield f"{state}: {' '.join(size(one.size_kib) for one in same)}"


def _knobs(facts: HostFacts) -> str:
    known, writable = len(facts.knobs), len(facts.writable_knobs)
    if writable == known and known:
        return f"all {known} can be written" if known > 1 else f"{next(iter(facts.knobs))} alone; it can be written"
    refused = sorted(set(facts.knobs) - set(facts.writable_knobs))
    why = facts.not_writable_because or "refused by the kernel"
    if not writable:
        return f"{known} found, NONE can be written: {why}"
    names = ", ".join(refused[:3]) + (", ..." if len(refused) > 3 else "")
    return f"{writable} of {known} can be written; not {names}: {why}"


def _sight_rows(facts: HostFacts, turns: Turns | None) -> list[tuple[str, str]]:
    always = [one for one in facts.perf_events if one.event in COUNTED_ALWAYS]
    asked = [one for one in facts.perf_events if one.event not in COUNTED_ALWAYS]
    missing: dict[str, list[str]] = {}
    for one in always:
        if not one.available:
            missing.setdefault(_why(one), []).append(one.event)
    able = [[one.event for one in events if one.available] for events in (always, asked)]
    rows = [("perf events", ", ".join(able[0]) or "none")]
    rows += [("  counted as", f"{one.event}: {_real_event(one.counted)}") for one in _told_apart(always)]
    hardware = set(able[0]) - set(COUNTED_IN_CGROUPS)
    if turns is not None and hardware:
        partly = turns.partly(hardware)
        all_along = f"the CPU has counters for all {len(hardware)} hardware events at once"
        some = f"{len(partly)} of {len(hardware)} hardware events share the CPU's counters: {', '.join(partly)}"
        rows.append(("  turns", some if partly else all_along))
    rows += [("  missing", f"{', '.join(events)}: {reason}") for reason, events in missing.items()]
    if able[1]:
        rows.append(("  on request", ", ".join(able[1])))
    rows += [
        ("  on request", f"none: {why}") for why in sorted({_why(one) for one in asked if not able[1]} - set(missing))
    ]
    cgroup = f"v{facts.cgroup_version}" if facts.cgroup_version else "no memory controller"
    rows.append(("cgroup", f"{cgroup}; pressure (PSI) {'readable' if facts.pressure_available else 'unavailable'}"))
    return rows


def _why(one: EventSupport) -> str:
    return one.brief or one.reason or "no reason given"  # where that was seen is for --json


def _told_apart(events: Iterable[EventSupport]) -> Iterator[EventSupport]:
    """The events that two hosts may count differently under one name."""
    for one in events:
        if one.available and one.event.startswith("dtlb_"):
            yield one


def _real_event(counted: CountedEvent | None) -> str:
    if counted is None:
        return "as its model says"
    more = f"; {counted.counts}" if counted.counts else ""
    return f"{counted.event} ({counted.pmu or 'generic'} {counted.encoding}{more})"


def _company_rows(facts: HostFacts) -> list[tuple[str, str]]:
    managers = ", ".join(facts.other_managers)
    rows = [("managers", f"{managers}: may write the same knobs" if managers else "none that writes the same knobs")]
    if has_gigabyte_thp(facts):
        readers = ", ".join(facts.page_splitting_readers)
        rows.append(
            (
                "WARNING",
                "reading smaps, smaps_rollup, numa_maps or pagemap of a process splits its 1 GB pages. "
                + (f"Running here and known to do so: {readers}" if readers else "No program known to do so runs here"),
            )
        )
    return rows


def has_gigabyte_thp(facts: HostFacts) -> bool:
    """Whether this kernel can make 1 GB transparent huge pages."""
    return any(one.size_kib == GIGABYTE_KIB for one in facts.thp_sizes)


def _works(title: str, found: Sequence[Capability], columns: int) -> Iterable[str]:
    yield title
    for one in found:
        verdict = "yes" if one.works else "no"
        if one.kind == "see":
            text = "available" if one.works else one.reason
        elif one.works and one.reason:
            text = f"{verdict}, {one.reason}"
        else:
            text = verdict if one.works else f"{verdict}, {one.reason}"
        yield textwrap.fill(
            visible(f"{one.name}: {text}"),
            columns,
            initial_indent="  ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
