"""What would keep arms and workloads from running on this host, found without changing anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from agents.claim import ClaimStatus
from agents.errors import JournalError, KnobError
from agents.host_services import SourcesCheck
from agents.knobs import check_value, find_knob
from agents.messages import Arm, EventSupport, HostFacts, MetricSource, Problem, Severity, WorkloadSpec
from agents.metric_sources.check import check_sources
from agents.page_sizes import GIGABYTE_KIB
from agents.perf.multiplexing import try_turns
from agents.sysroot import SysRoot
from agents.traced_calls import Traced
from agents.tracing.functions import find_probes
from agents.workloads import check_workload


def preflight(
    root: SysRoot,
    facts: HostFacts,
    arms: Sequence[Arm],
    workloads: Sequence[WorkloadSpec],
    held_by: ClaimStatus | JournalError | None,
    *,
    check: Callable[[WorkloadSpec, SysRoot], tuple[Problem, ...]] = check_workload,
    sources: Sequence[MetricSource] = (),
    events: Sequence[str] = (),
    needed_events: Sequence[str] = (),
    own_events: Sequence[EventSupport] = (),
    trace: Sequence[Traced] = (),
    check_the_sources: SourcesCheck = check_sources,
) -> tuple[Problem, ...]:
    """Return every problem, errors first. `held_by`: the claim of another run, or why it is not known.

    `events` are the metrics of perf events that the experiment's metrics need, `needed_events` those of them that
    it must not start without, `own_events` what its sources' would be here.
    """
    found = [*_held(facts, held_by), *_knobs(root, facts, arms)]
    for spec in workloads:
        found += check(spec, root)
    found += check_the_sources(sources, root, host=facts.host)
    found += [*_events(facts, events, needed_events), *_own_events(facts, sources, own_events)]
    found += [*_turns(root, facts, events, sources), *_confounders(facts, arms), *_trace(root, facts, trace)]
    return tuple(sorted(dict.fromkeys(found), key=lambda problem: problem.severity is Severity.WARNING))


def _error(what: str, where: str, remedy: str) -> Problem:
    return Problem(severity=Severity.ERROR, what=what, where=where, remedy=remedy)


def _warning(what: str, where: str, remedy: str) -> Problem:
    return Problem(severity=Severity.WARNING, what=what, where=where, remedy=remedy)


def _held(facts: HostFacts, held_by: ClaimStatus | JournalError | None) -> Iterator[Problem]:
    # A dead claim is not an obstacle: taking the host restores it first.
    if isinstance(held_by, JournalError):
        yield _error(held_by.what, f"{facts.host}, {held_by.where}", held_by.remedy)
    elif held_by is not None and held_by.lease_remaining_seconds > 0:
        yield _error(
            f"the host is held by run {held_by.run} of {held_by.owner}",
            facts.host,
            "wait for that run, or end it with 'fleetexp abort'",
        )


def _knobs(root: SysRoot, facts: HostFacts, arms: Sequence[Arm]) -> Iterator[Problem]:
    seen: set[str] = set()
    for arm in arms:
        for name, value in arm.knobs.items():
            where = f"{facts.host}, arm {arm.name}, {name}"
            try:
                knob = find_knob(root, name)
            except KnobError as error:
                if name not in seen:
                    seen.add(name)
                    yield _error(error.what, where, error.remedy)
                continue
            if (problem := check_value(knob, value)) is not None:
                yield _error(problem, where, "choose a value this kernel knows")
            if name not in seen and not root.writable(knob.path):
                yield _error("the knob can't be written", where, facts.not_writable_because or "run as root")
            seen.add(name)


def _events(facts: HostFacts, events: Sequence[str], needed: Sequence[str]) -> Iterator[Problem]:
    remedy = "choose hosts or metrics by 'fleetexp doctor', which says what each host counts"
    for reason, metrics in facts.uncounted(needed).items():
        what = f"the primary metric or a guardrail needs {', '.join(metrics)}, not counted here: {reason}"
        yield _error(what, facts.host, remedy)
    for reason, metrics in facts.uncounted(one for one in events if one not in needed).items():
        what = f"not counted here, and so is what is derived: {', '.join(metrics)}: {reason}"
        yield _warning(what, facts.host, remedy)


def _own_events(
    facts: HostFacts, sources: Sequence[MetricSource], own_events: Sequence[EventSupport]
) -> Iterator[Problem]:
    by_metric = {source.metric: source for source in sources}
    for one in own_events:
        if not one.available:
            source = by_metric[one.event]
            yield Problem(
                severity=Severity.ERROR if source.needed else Severity.WARNING,
                what=f"{source.metric} can't be counted as {source.perf}: {one.reason}",
                where=f"{facts.host}, metrics.sources.{source.metric}",
                remedy="name an event that 'perf list' has on this host, or leave the host out",
            )


def _turns(
    root: SysRoot, facts: HostFacts, events: Sequence[str], sources: Sequence[MetricSource]
) -> Iterator[Problem]:
    """Warn where the CPU has fewer counters than events."""
    wanted = {*events, *(source.metric for source in sources if source.perf)}
    if not wanted:
        return
    turns = try_turns(root, events, sources)
    watchdog = ", or set kernel.nmi_watchdog to 0, which holds a counter" if _has_watchdog(root) else ""
    if partly := turns.partly(wanted):
        yield _warning(
            f"{len(partly)} of {len(wanted)} wanted events take turns on the CPU's counters: {', '.join(partly)}",
            facts.host,
            f"name fewer events to have each counted longer, and so with less noise{watchdog}",
        )
    if apart := [name for name in turns.apart if name in wanted]:
        yield _warning(
            f"the CPU's counters do not hold {', '.join(apart)} together with what is divided by or into it: "
            "they are counted at different moments",
            facts.host,
            f"name fewer events, or expect noisier ratios{watchdog}",
        )


def _has_watchdog(root: SysRoot) -> bool:
    try:
        return root.read("proc/sys/kernel/nmi_watchdog").strip() == b"1"
    except OSError:
        return False


def _trace(root: SysRoot, facts: HostFacts, trace: Sequence[Traced]) -> Iterator[Problem]:
    for one in find_probes(root, trace)[1]:
        what = "splits and stalls" if one.function is None else str(one.function)
        yield _warning(
            f"not traced here: {what}: {one.text}",
            facts.host,
            "leave 'trace' out, or choose hosts whose kernel has kprobes and histogram triggers",
        )


def _confounders(facts: HostFacts, arms: Sequence[Arm]) -> Iterator[Problem]:
    if facts.other_managers:
        yield _warning(
            f"other programs here may write the same knobs: {', '.join(facts.other_managers)}",
            facts.host,
            "stop them for the run; a change of theirs is noticed and invalidates the period",
        )
    if not any(size.size_kib == GIGABYTE_KIB for size in facts.thp_sizes):
        return
    if facts.page_splitting_readers:
        readers = ", ".join(facts.page_splitting_readers)
        yield _warning(
            f"running programs read smaps or pagemap, which splits 1 GB pages: {readers}",
            facts.host,
            "stop them for the run",
        )
    if facts.numa_nodes > 1 and facts.numa_balancing:
        yield _warning("NUMA balancing splits 1 GB pages", facts.host, "set kernel.numa_balancing to 0 in every arm")
    for arm in arms:
        if arm.knobs.get("thp/defrag", facts.thp_defrag) == "always" and any(
            name == f"thp/{GIGABYTE_KIB}kB/enabled" and value == "always" for name, value in arm.knobs.items()
        ):
            yield _warning(
                "with defrag=always a fault outside MADV_HUGEPAGE memory was seen never to get a 1 GB page",
                f"{facts.host}, arm {arm.name}",
                "set thp/defrag to defer or madvise",
            )
