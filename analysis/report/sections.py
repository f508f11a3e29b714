"""Turns a report's input into its page: every sentence and table that HTML and Markdown share.

A module NAME_section.py of this folder adds a section of its own: `section(content)`, None where it has nothing to say.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from analysis.quantities import counted
from analysis.report import (
    central_sections,
    decision_sections,
    fleet_sections,
    kernel_sections,
    record_sections,
    result_sections,
)
from analysis.report.content import ReportInput
from analysis.report.escaping import one_line
from analysis.report.instants import instant, length, seconds_between
from analysis.report.page import Cell, Listing, ReportPage, ReportSection, Table, decision_tone
from analysis.report.questions import questions
from analysis.report.restoration import restoration
from analysis.wording import decision_label

# Key of a table -> how the appendix names it.
SOURCES = {
    "effects": "What changed",
    "pairs": "Treatments against each other",
    "halves": "Each half of the measured time alone",
    "guardrails": "Guardrails",
    "trade": "The trade in servers",
    "exposure": "Assigned is not received",
    "doses": "Per unit received",
    "strata": "Pools and SKUs",
    "latencies": "How long faults took",
    "supply": "Asked for, given and waited for, by arm",
    "success": "Big pages given, of those asked for",
    "splits": "How often big pages were split",
    "mapping_splits": "How often mappings of big pages were split",
    "split_causes": "Who had big pages split, and why",
    "splits_counted": "Splits traced, against the kernel's own counters",
    "stalls": "How long the kernel kept programs waiting",
    "stages": "Stages of the ramp",
    "blocks": "Block by block",
    "changes": "Every write to a knob",
    "events": "Events",
    "excluded": "What was left out",
    "checks": "Integrity checks",
    "carry_over": "What an arm leaves behind for the period after it",
    "estimates": "Every estimate",
    "assigned": "Hosts by stage, stratum and arm",
    "central_gaps": "Periods that the metrics' server gave a value",
    "central": "Every request to the metrics' server",
}


def page(content: ReportInput) -> ReportPage:
    """Write the whole report as sections."""
    findings = content.findings
    restored = restoration(content)
    parallel = content.design == "parallel"
    return ReportPage(
        title=content.experiment,
        hypothesis=content.hypothesis,
        about=_about(content),
        decision=decision_label(findings.decision),
        tone=decision_tone(findings.decision),
        reason=decision_sections.reason(findings),
        rulings=decision_sections.rulings(findings),
        alarms=(*_rehearsed(content), *(() if restored.ok is not False else restored.sentences)),
        warnings=(*_imported(content), *_reach(content), *findings.warnings),
        sections=(
            *decision_sections.grounds(findings),
            result_sections.effects(content),
            result_sections.lifts(content),
            fleet_sections.trade(content),
            result_sections.guardrails(content),
            questions(content),
            record_sections.exposure(content),
            *((fleet_sections.doses(content), fleet_sections.strata(content)) if parallel else ()),
            kernel_sections.big_pages(content),
            fleet_sections.ramp(content),
            *(() if parallel else (result_sections.blocks(content),)),
            *_further(content),
            record_sections.timeline(content),
            record_sections.excluded(content),
            record_sections.checks(content),
            result_sections.estimates(content),
            *central_sections.central(content),
            _environment(content),
            _reproduce(content),
            _sources(content),
        ),
    )


def _further(content: ReportInput) -> Iterator[ReportSection]:
    for path in sorted(Path(__file__).parent.glob("*_section.py")):
        one: ReportSection | None = import_module(f"{__package__}.{path.stem}").section(content)
        if one is not None:
            yield one


def _about(content: ReportInput) -> tuple[tuple[str, str], ...]:
    hosts = len({period.host for period in content.periods})
    blocks = len({(row.host, row.block) for row in content.findings.contrasts})
    extent = [content.design]
    extent += [counted(hosts, "host")] if hosts else []
    extent += [f"{counted(blocks, 'block')} used"] if blocks else []
    ran = f"{instant(content.started_at)}"
    if content.started_at is not None and content.ended_at is not None:
        ran += f", for {length(seconds_between(content.started_at, content.ended_at))}"
    return (
        ("Run", f"{content.run_id} ({content.state.replace('_', ' ')})"),
        ("Design", ", ".join(extent)),
        ("Measured" if content.read_from else "Ran", ran),
        ("Imported by" if content.read_from else "Launched by", content.launched_by),
    )


def _reach(content: ReportInput) -> tuple[str, ...]:
    hosts = {period.host for period in content.periods}
    told = any(arm.scope.host_names for arm in content.findings.arms)
    if content.design == "switchback" and len(hosts) == 1 and not told:
        return ("Measured on one host: the intervals speak for this host, not for a fleet.",)
    return ()


def _rehearsed(content: ReportInput) -> tuple[str, ...]:
    if not content.simulated:
        return ()
    return ("SIMULATED: every host of this run was a model. Nothing here was measured on a kernel.",)


def _imported(content: ReportInput) -> tuple[str, ...]:
    if not content.read_from:
        return ()
    return ("IMPORTED: somebody brought these measurements. fleetexp changed no host for them, and read none.",)


def _environment(content: ReportInput) -> ReportSection:
    if content.read_from:
        return _brought(content)
    rows = tuple((Cell(text=label), Cell(text=value)) for label, value in content.environment)
    if not rows:
        return ReportSection(
            key="environment", title="Environment", paragraphs=("The hosts' facts were not recorded.",)
        )
    table = Table(caption="Where it was measured", headers=("fact", "value"), rows=rows, align="ll")
    return ReportSection(key="environment", title="Environment", tables=(table,))


def _brought(content: ReportInput) -> ReportSection:
    rows = tuple(
        (
            Cell(text=one.name, note=one.question),
            Cell(text=f"{one.rows:,}"),
            Cell(text=one.sha256, code=True),
        )
        for one in content.read_from
    )
    table = Table(caption="What was read", headers=("source", "rows", "SHA-256"), rows=rows, align="lrl")
    said = "Of the values the sums of each host, metric and period are kept: n, mean, variance, extremes, percentiles."
    return ReportSection(key="environment", title="What it was imported from", paragraphs=(said,), tables=(table,))


def _reproduce(content: ReportInput) -> ReportSection:
    versions = tuple((Cell(text=name), Cell(text=version, code=True)) for name, version in content.versions.items())
    arms = Table(
        caption="Arms",
        headers=("arm", "knobs", "workload"),
        rows=tuple(
            (
                Cell(text=arm.name, note="control" if arm.name == content.control else ""),
                Cell(text=", ".join(f"{knob} = {value}" for knob, value in arm.knobs.items()) or "as found"),
                Cell(text=arm.workload or "watched only"),
            )
            for arm in content.arms
        ),
        align="lll",
    )
    named = Table(caption="Versions", headers=("what", "version"), rows=versions, align="ll")
    listings = [
        Listing(title="Run it again", text=content.command, language="sh"),
        Listing(title="The experiment as it was read", text=content.spec, language="yaml"),
    ]
    listings += [Listing(title=f"Ask next: {row.title}", text=row.sql, language="sql") for row in content.suggestions]
    said = f"Randomised with seed {content.seed}; equal seeds and hosts give equal plans."
    if content.read_from:
        said = f"Tests that draw the arms again start from seed {content.seed}."
    held = () if content.read_from else (arms,)
    return ReportSection(
        key="reproduce",
        title="How to reproduce",
        paragraphs=(said,),
        tables=tuple(table for table in (*held, *fleet_sections.assigned(content), named) if table.rows),
        listings=tuple(item for item in listings if one_line(item.text)),
    )


def _sources(content: ReportInput) -> ReportSection:
    """Print, for each table, the query that gives its numbers."""
    listings = tuple(
        Listing(title=SOURCES[key], text=sql, language="sql", folded=True)
        for key, sql in content.queries.items()
        if key in SOURCES
    )
    text = (
        "Each of these, run with 'fleetexp sql', gives the numbers of one table above as they are stored; the report "
        "only rounds them and chooses units."
    )
    return ReportSection(key="sources", title="Where the numbers come from", paragraphs=(text,), listings=listings)
