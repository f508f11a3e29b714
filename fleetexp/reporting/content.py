"""Fill a report from the store: the facts of one run in the words of `analysis.report`."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from agents.catalogue import describe, is_known
from agents.catalogue.table import COUNTED_ALWAYS
from agents.messages import HostEventKind, HostFacts
from analysis.plan import AnalysisPlan, Direction, Role
from analysis.quantities import counted
from analysis.report.content import (
    ArmRow,
    EventRow,
    KnobRow,
    MetricNote,
    PeriodRow,
    ReportInput,
    SourceRow,
    SqlSuggestion,
    UnavailableMetric,
)
from analysis.results import HALVES, EstimateKind, Findings, Units
from fleetexp.control.metric_meanings import meanings_of
from fleetexp.domain import Design, EventKind, Origin, PeriodKind
from fleetexp.errors import RunError
from fleetexp.experiment.recall import recall_plan
from fleetexp.reporting import central, kernel, queries, ramp
from fleetexp.reporting.buckets import bucket_rows
from fleetexp.simulated import is_simulated, marked_findings
from fleetexp.store.imported import Provenance
from fleetexp.store.records import RunRecord
from fleetexp.store.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from fleetexp.as_of import AnalysisAsOf

_REASONS_SHOWN = 5
_SIZE = re.compile(r"^thp/(\d+)kB/enabled$")


def report_content(store: Store, run_id: int, look: AnalysisAsOf | None = None) -> ReportInput:
    """Read everything a report says about a run; RunError where it has not been analysed.

    With a `look` back, everything is as it was at that moment.
    """
    record = store.run(run_id)
    findings = store.findings(run_id) if look is None else look.findings
    if findings is None:
        raise RunError(
            f"run {run_id} has no findings: it is {record.state.value.replace('_', ' ')}",
            where=f"run {run_id}",
            remedy=f"'fleetexp status {run_id}' says how far it is",
        )
    findings = marked_findings(findings, record.fleet)
    sources = store.import_sources(run_id)
    facts = store.host_facts(run_id)
    plan = recall_plan(record.spec_text, run_id, record.origin)
    named = [name for metric in plan.metrics for name in (metric.name, metric.at_least, metric.at_most) if name]
    measured = store.observations(run_id, named) if look is None else look.observations
    measured = measured[measured["kind"] == PeriodKind.MEASURE.value]
    sizes = sorted({int(match[1]) for knob in record.plan.knobs if (match := _SIZE.match(knob))})
    found = {size.size_kib: size.enabled for host in facts[:1] for size in host.thp_sizes}
    # What is read by queries knows the whole run: a look back leaves it out rather than show what came later.
    whole = look is None
    cut = kernel.bands(store, run_id, sizes) if whole else []
    alike = Units.HOSTS if len(facts) > 1 else Units.PERIODS
    latencies = tuple(kernel.latencies(store, run_id)) if whole else ()
    mappings = tuple(kernel.mapping_splits(store, run_id)) if whole and sizes else ()
    caused = tuple(kernel.split_causes(store, run_id)) if whole else ()
    stalls = tuple(kernel.stalls(store, run_id)) if whole else ()
    supplies = tuple(kernel.supplies(store, record)) if whole else ()
    exposed = (
        kernel.exposure(store, record, sizes, found) if whole else kernel.exposure_of(measured, record, sizes, found)
    )
    events = tuple(
        EventRow(host=event.host, at=event.at, kind=event.kind, detail=event.detail, metric=event.metric)
        for event in store.events(run_id)
        if look is None or event.at <= look.at
    )
    asked = tuple(central.asked(store, run_id)) if whole else ()
    return ReportInput(
        run_id=str(run_id),
        experiment=record.experiment,
        hypothesis=record.hypothesis,
        design=record.plan.design.value,
        state=record.state.value if look is None else f"looking back to {look.at:%Y-%m-%d %H:%M:%S} UTC",
        launched_by=record.launched_by,
        created_at=record.created_at,
        started_at=record.started_at,
        ended_at=record.ended_at if look is None or look.whole else None,
        seed=record.plan.seed,
        spec=record.spec_text,
        versions=record.versions,
        command=_command(record, sources),
        environment=tuple(_environment(facts)),
        arms=tuple(_arms(record)),
        control=record.plan.control,
        findings=findings,
        periods=tuple(_periods(store, run_id, look)),
        knob_changes=tuple(
            KnobRow(
                host=host,
                knob=change.knob,
                before=change.before,
                wanted=change.wanted,
                after=change.after,
                reason=change.reason.value,
                changed_at=change.changed_at,
                error=change.error,
            )
            for host, change in store.knob_changes(run_id)
            if look is None or change.changed_at <= look.at
        ),
        events=events,
        exposure=tuple(exposed),
        unavailable=tuple(_unavailable(plan, facts, measured, events)),
        notes=tuple(_notes(plan, store, run_id)),
        suggestions=_suggestions(run_id, plan, record.origin),
        latencies=latencies,
        split_causes="; ".join(_untraced(events)),
        mapping_splits=mappings,
        caused_splits=caused,
        splits_counted=tuple(kernel.splits_counted(store, run_id)) if whole else (),
        stalls=stalls,
        supplies=supplies,
        successes=tuple(kernel.successes(store, run_id, cut, alike)),
        doses=ramp.doses(plan, measured),
        series=tuple(ramp.series(store, record, plan)) if whole else (),
        stages=tuple(ramp.stages(store, record)),
        assigned=tuple(ramp.assigned(store, run_id)),
        host_seconds=ramp.measured_seconds(store, run_id) if whole else {},
        central=asked,
        central_gaps=tuple(central.gaps(store, run_id)) if asked else (),
        buckets=tuple(bucket_rows(plan, measured)),
        queries=_queries(
            record,
            findings,
            sizes,
            latencies=bool(latencies),
            mappings=bool(mappings),
            traced=(bool(caused), bool(stalls)),
            supplies=bool(supplies),
            cut=cut,
            alike=alike,
            central=bool(asked),
        )
        if whole
        else {},
        simulated=is_simulated(record.fleet),
        read_from=tuple(
            SourceRow(name=one.name, sha256=one.sha256, rows=one.rows, question=one.question) for one in sources
        ),
    )


def _queries(
    record: RunRecord,
    findings: Findings,
    sizes_kib: Sequence[int],
    *,
    latencies: bool,
    mappings: bool,
    traced: tuple[bool, bool],
    supplies: bool,
    cut: Sequence[tuple[int, queries.Circumstance, queries.Band]],
    alike: Units,
    central: bool,
) -> dict[str, str]:
    """The query behind each table of the report, where there is such a table; `traced`: causes of splits, stalls."""
    run_id = record.run_id
    kinds = {row.kind for row in findings.estimates}
    out = {
        "effects": queries.effects(run_id),
        "pairs": queries.estimates_of(run_id, EstimateKind.PAIRWISE) if EstimateKind.PAIRWISE in kinds else "",
        "halves": queries.estimates_of(run_id, *HALVES) if kinds.issuperset(HALVES) else "",
        "trade": queries.document(run_id, "trades") if findings.trades else "",
        "guardrails": queries.guardrails(run_id) if findings.guardrails else "",
        "exposure": queries.exposure(run_id, sizes_kib) if sizes_kib else "",
        "doses": queries.doses(run_id) if record.plan.design is Design.PARALLEL else "",
        "strata": queries.estimates_of(run_id, EstimateKind.STRATUM) if EstimateKind.STRATUM in kinds else "",
        "latencies": queries.latencies(run_id, kernel.LATENCIES) if latencies else "",
        "supply": queries.supply(run_id) if supplies else "",
        "success": queries.success(run_id, cut, kernel.CLUSTERS[alike]) if cut else "",
        "splits": queries.splits(run_id, sizes_kib) if sizes_kib else "",
        "mapping_splits": queries.mapping_splits(run_id) if mappings else "",
        "split_causes": queries.split_causes(run_id) if traced[0] else "",
        "splits_counted": queries.splits_counted(run_id) if traced[0] else "",
        "stalls": queries.stalls(run_id) if traced[1] else "",
        "stages": queries.stages(run_id) if len(record.plan.stages) > 1 else "",
        "blocks": queries.blocks(run_id, tuple(dict.fromkeys(row.metric for row in findings.contrasts)))
        if findings.contrasts
        else "",
        "changes": queries.changes(run_id),
        "events": queries.events(run_id),
        "excluded": queries.excluded(run_id),
        "checks": queries.document(run_id, "checks"),
        "carry_over": queries.estimates_of(run_id, EstimateKind.CARRY_OVER) if EstimateKind.CARRY_OVER in kinds else "",
        "estimates": queries.estimates(run_id),
        "assigned": queries.assigned(run_id),
        "central": queries.central(run_id) if central else "",
        "central_gaps": queries.central_gaps(run_id) if central else "",
    }
    return {key: sql for key, sql in out.items() if sql}


def _environment(facts: list[HostFacts]) -> Iterator[tuple[str, str]]:
    for host in facts[:1]:
        sizes = ", ".join(f"{size.size_kib} kB {size.enabled} ({size.effective})" for size in host.thp_sizes)
        yield "Host", host.host if len(facts) == 1 else f"{host.host} and {len(facts) - 1} more"
        yield "Kernel", f"{host.kernel} ({host.architecture})"
        yield "CPU", f"{host.cpu_model}, {host.cpus} CPUs, {host.numa_nodes} NUMA nodes"
        yield "Virtualisation", host.virtualisation or "none seen"
        yield "Memory", f"{host.memory_total_bytes / 2**30:.1f} GiB, swap {host.swap_total_bytes / 2**30:.1f} GiB"
        yield "Uptime at the start", f"{host.uptime_seconds / 3600:.1f} h"
        yield "THP, as found", f"top level {host.thp_top_level}, defrag {host.thp_defrag}"
        yield "THP sizes, as found", sizes
        pools = ", ".join(f"{pool.size_kib} kB: {pool.total_pages} pages" for pool in host.hugetlb_pools)
        yield "hugetlb pools, as found", pools or "none"
        if host.hugetlb_cma:
            kept = f"{host.cma_total_bytes / 2**30:.1f} GiB of CMA"
            yield "Kept for hugetlb at boot", f"hugetlb_cma={host.hugetlb_cma}, {kept}"
        balancing = {None: "not known", True: "on", False: "off"}[host.numa_balancing]
        yield "NUMA balancing", balancing
        yield "Kernel taint", str(host.kernel_taint)
        if host.other_managers:
            yield "Other managers of these knobs", ", ".join(host.other_managers)
        if host.page_splitting_readers:
            yield "Programs that read smaps or pagemap", ", ".join(host.page_splitting_readers)


def _arms(record: RunRecord) -> Iterator[ArmRow]:
    for arm in record.plan.arms:
        spec = record.plan.workloads.get(arm.name)
        options = "" if spec is None else ", ".join(f"{key} {value}" for key, value in spec.options.items())
        workload = "" if spec is None else f"{spec.kind}: {options}"
        yield ArmRow(name=arm.name, knobs=dict(arm.knobs), workload=workload)


def _periods(store: Store, run_id: int, look: AnalysisAsOf | None) -> Iterator[PeriodRow]:
    then = None if look is None else look.periods.set_index("period_id")
    for record in store.periods(run_id):
        if then is not None and record.period_id not in then.index:
            continue  # a repeat that nobody knew of
        yield PeriodRow(
            period_id=record.period_id,
            host=record.host,
            arm=record.plan.arm,
            kind=record.plan.kind.value,
            block=record.plan.block,
            attempt=record.plan.attempt,
            position=record.plan.index,
            state=record.state.value if then is None else str(then.at[record.period_id, "state"]),
            reason=record.reason if then is None else str(then.at[record.period_id, "reason"]),
            started_at=_by(record.started_at, look),
            ended_at=_by(record.ended_at, look),
        )


def _by(instant: datetime | None, look: AnalysisAsOf | None) -> datetime | None:
    return instant if look is None or instant is None or instant <= look.at else None


def _unavailable(
    plan: AnalysisPlan, facts: list[HostFacts], measured: DataFrame, events: Iterable[EventRow]
) -> Iterator[UnavailableMetric]:
    """Every metric that was asked for, or that anyone would ask about TLBs, and was not measured, with the reason."""
    told = {HostEventKind.SOURCE_LOST, EventKind.CENTRAL_MISSING, EventKind.CENTRAL_AWAY}
    lost = {event.metric: event.detail for event in events if event.kind in told}
    reasons = {event.event: event.reason for host in facts[:1] for event in host.perf_events if not event.available}
    have = set(measured["metric"])
    asked = [metric.name for metric in plan.metrics if metric.role in {Role.PRIMARY, Role.SECONDARY, Role.GUARDRAIL}]
    for name in dict.fromkeys([*asked, *(event for event in reasons if event in COUNTED_ALWAYS)]):
        if name not in have:
            yield UnavailableMetric(metric=name, reason=lost.get(name) or _reason(name, reasons))


def _untraced(events: Iterable[EventRow]) -> list[str]:
    """What was to be traced and was not, each reason once; of very many the first."""
    reasons = dict.fromkeys(event.detail for event in events if event.kind == HostEventKind.TRACE_INCOMPLETE)
    return [*reasons][:_REASONS_SHOWN]


def _reason(name: str, reasons: dict[str, str]) -> str:
    for event, reason in reasons.items():
        if name == event or name.startswith(f"{event}_"):
            return reason
    return "no source on this host gave a value for it"


def _notes(plan: AnalysisPlan, store: Store, run_id: int) -> Iterator[MetricNote]:
    metrics = plan.metrics
    meanings = meanings_of(store, run_id, [metric.name for metric in metrics])
    for metric in metrics:
        meaning = describe(metric.name).meaning if is_known(metric.name) else ""
        on_hosts = Counter(meanings.get(metric.name, {}).values())
        if on_hosts:
            what = ", ".join(f"{event} ({counted(number, 'host')})" for event, number in sorted(on_hosts.items()))
            meaning += f"; counted here: {what}"
        better = None if metric.better is None else Direction(metric.better)
        if meaning or better:
            yield MetricNote(metric=metric.name, meaning=meaning, better=better)


def _suggestions(run_id: int, plan: AnalysisPlan, origin: Origin) -> tuple[SqlSuggestion, ...]:
    primary = next(metric.name for metric in plan.metrics if metric.role is Role.PRIMARY)
    asked = (
        SqlSuggestion(
            title="The primary metric, period by period",
            sql=(
                f"SELECT block, arm, mean, seconds FROM period_metrics WHERE run_id = {run_id} "
                f"AND metric = '{primary}' AND kind = 'measure' AND state = 'complete' ORDER BY position"
            ),
        ),
        SqlSuggestion(
            title="Every write to a knob, and whether it was put back",
            sql=f"SELECT * FROM knob_audit WHERE run_id = {run_id} ORDER BY changed_at",
        ),
        SqlSuggestion(
            title="What happened on the host, in order",
            sql=f"SELECT * FROM host_timeline WHERE run_id = {run_id} ORDER BY at",
        ),
    )
    return asked if origin is Origin.FLEET else asked[:1]  # to an import nothing was written, and nothing happened


def _command(record: RunRecord, sources: Sequence[Provenance]) -> str:
    """What would do it again."""
    if record.origin is Origin.FLEET:
        return f"fleetexp run {record.experiment}.yaml --fleet {record.fleet}"
    read = " ".join(
        f"--query {shlex.quote(source.name)} {shlex.quote(source.question)}"
        if source.question
        else shlex.quote(source.name)
        for source in sources
    )
    return f"fleetexp import {read} --as {record.experiment}.yaml"
