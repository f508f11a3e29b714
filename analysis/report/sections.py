"""Turns a report's input into its page: every sentence and table that HTML and Markdown share."""

from __future__ import annotations

from analysis.report import record_sections, result_sections
from analysis.report.content import ReportInput
from analysis.report.escaping import one_line
from analysis.report.instants import instant, length, seconds_between
from analysis.report.page import Cell, Listing, Page, Section, Table
from analysis.report.restoration import restoration
from analysis.report.tables import counted

_DECISION_TONES = {"ship": "good", "do not ship": "bad"}


def page(content: ReportInput) -> Page:
    """Write the whole report as sections."""
    findings = content.findings
    restored = restoration(content)
    return Page(
        title=content.experiment,
        hypothesis=content.hypothesis,
        about=_about(content),
        decision=findings.decision,
        tone=_DECISION_TONES.get(findings.decision, "quiet"),
        reason=findings.reason,
        alarms=() if restored.ok is not False else restored.sentences,
        warnings=(*_reach(content), *findings.warnings),
        sections=(
            result_sections.effects(content),
            result_sections.blocks(content),
            result_sections.lifts(content),
            result_sections.guardrails(content),
            record_sections.exposure(content),
            record_sections.timeline(content),
            record_sections.excluded(content),
            record_sections.checks(content),
            result_sections.estimates(content),
            _environment(content),
            _reproduce(content),
        ),
    )


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
        ("Ran", ran),
        ("Launched by", content.launched_by),
    )


def _reach(content: ReportInput) -> tuple[str, ...]:
    hosts = {period.host for period in content.periods}
    if content.design == "switchback" and len(hosts) == 1:
        return ("Measured on one host: the intervals speak for this host, not for a fleet.",)
    return ()


def _environment(content: ReportInput) -> Section:
    rows = tuple((Cell(text=label), Cell(text=value)) for label, value in content.environment)
    if not rows:
        return Section(key="environment", title="Environment", paragraphs=("The hosts' facts were not recorded.",))
    table = Table(caption="Where it was measured", headers=("fact", "value"), rows=rows, align="ll")
    return Section(key="environment", title="Environment", tables=(table,))


def _reproduce(content: ReportInput) -> Section:
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
    listings += [Listing(title=row.title, text=row.sql, language="sql") for row in content.suggestions]
    return Section(
        key="reproduce",
        title="How to reproduce",
        paragraphs=(f"Randomised with seed {content.seed}; equal seeds and hosts give equal plans.",),
        tables=tuple(table for table in (arms, named) if table.rows),
        listings=tuple(item for item in listings if one_line(item.text)),
    )
