"""The live pages: runs, one run, one host of a run, in the sections and tables of the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from analysis.quantities import DASH, number, quantity
from analysis.report.instants import instant
from analysis.report.page import Cell, ReportPage, ReportSection, Table, decision_tone
from analysis.results import Decision
from analysis.wording import decision_label
from fleetexp.domain import Design, Origin
from fleetexp.simulated import is_simulated
from fleetexp.web.run_queries import MOST_ROWS, Row, RunQueries

MOST_HOSTS = 300
_TONES = {"pass": "good", "fail": "bad", "completed": "good", "restore_incomplete": "bad", "halted": "bad"}
_BAD_HOSTS = ("lost", "failed", "not restored", "reverted by a tripwire")
_LAST_WORD = {
    "host_lost": "lost",
    "host_failed": "failed",
    "restore_failed": "not restored",
    "tripwire": "reverted by a tripwire",
}


class NotThere(LookupError):
    """No such run, or no such host in it."""


def runs_page(queries: RunQueries) -> ReportPage:
    """List the runs, the newest first."""
    rows = queries.runs()
    table = Table(
        caption="Runs, the newest first",
        headers=("run", "experiment", "state", "decision", "hosts", "periods done", "launched"),
        rows=tuple(
            (
                Cell(text=str(run_id), link=f"/runs/{run_id}"),
                Cell(text=str(experiment)),
                _state(state),
                Cell(text=decision_label(Decision(decision)) if decision else DASH),
                Cell(text=number(hosts)),
                Cell(text=f"{complete} of {periods}", note=f"{invalid} invalid" if invalid else ""),
                Cell(text=_at(created), note=str(by)),
            )
            for run_id, experiment, state, decision, hosts, periods, complete, invalid, _, created, by in rows
        ),
        align="rllllrn",
    )
    text = "There is no run yet." if not rows else ""
    section = ReportSection(
        key="runs", title="Runs", paragraphs=(text,) if text else _cut(rows), tables=(table,) if rows else ()
    )
    return _page("Runs", (section,))


def run_page(queries: RunQueries, run_id: int, now: datetime) -> ReportPage:
    """Show how a run is doing."""
    found = queries.run(run_id)
    if found is None:
        raise NotThere(f"there is no run {run_id}")
    experiment, hypothesis, design, state, reason, decision, decision_reason = (str(value or "") for value in found[:7])
    launched_by, fleet, origin, created, started, ended, _, periods, complete, invalid, writes = found[7:]
    imported = Origin(str(origin)) is Origin.IMPORT
    decided = Decision(decision) if decision else None
    hosts = queries.hosts(run_id)
    links = [("Runs", "/"), ("Reload", f"/runs/{run_id}"), ("Reload every 5 s", f"/runs/{run_id}?follow=1")]
    if decided or Design(design) is Design.RETROSPECTIVE:
        links.append(("Report", f"/runs/{run_id}/report"))
    alarm = f"RESTORE INCOMPLETE: {reason}" if state == "restore_incomplete" else ""
    return ReportPage(
        title=f"Run {run_id}: {experiment}",
        hypothesis=hypothesis,
        about=(
            ("State", f"{state.replace('_', ' ')}{f': {reason}' if reason else ''}"),
            ("Design", f"{design}, {number(len(hosts))} hosts{'' if imported else f', fleet {fleet}'}"),
            ("Imported" if imported else "Launched", f"{_at(created)} by {launched_by}"),
            ("Ran", f"{_at(started)}{f' to {_at(ended)}' if ended else ''}"),
            ("Periods", f"{complete} of {periods} complete, {invalid} invalid"),
            ("Writes to knobs", number(writes)),
        ),
        decision=decision_label(decided) if decided else "",
        tone=decision_tone(decided) if decided else "quiet",
        reason=decision_reason,
        alarms=(alarm,) if alarm else (),
        warnings=("SIMULATED hosts: nothing here is measured on a kernel.",) if is_simulated(str(fleet)) else (),
        sections=(
            _stages(queries.stages(run_id)),
            _hosts(run_id, hosts),
            _guardrails(queries.guardrails(run_id)),
            _rates(queries.rates(run_id), now),
            _events(queries.events(run_id)),
        ),
        kicker="Live view, read-only",
        links=tuple(links),
    )


def host_page(queries: RunQueries, run_id: int, host: str) -> ReportPage:
    """Show one host of a run."""
    host_id = queries.host_id(run_id, host)
    if host_id is None:
        raise NotThere(f"run {run_id} has no host {host!r}")
    _, stratum, arm, stage, *_ = row = queries.hosts(run_id, host_id)[0]
    facts = queries.facts(run_id, host_id)
    about = [
        ("State", host_state(row)),
        ("Arm", f"{arm}, joins at stage {int(stage) + 1}"),
        ("Stratum", str(stratum)),
    ]
    if facts is not None:
        kernel, cpu, cpus, memory, taken = facts
        about += [
            ("Kernel", str(kernel)),
            ("Machine", f"{cpus} x {cpu}, {quantity(float(memory), 'bytes')}"),
            ("Surveyed", _at(taken)),
        ]
    return ReportPage(
        title=host,
        hypothesis="",
        about=tuple(about),
        decision="",
        tone="",
        reason="",
        alarms=(),
        warnings=(),
        sections=(
            _periods(queries.periods(run_id, host_id)),
            _knobs(queries.knobs(run_id, host_id)),
            _metrics(queries.metrics(run_id, host_id)),
            _events(queries.events(run_id, host_id)),
        ),
        kicker="Live view, read-only",
        links=(("Runs", "/"), (f"Run {run_id}", f"/runs/{run_id}")),
    )


def message_page(title: str, text: str) -> ReportPage:
    """Say one thing: an error, with its remedy."""
    return _page(title, (ReportSection(key="message", title="What happened", paragraphs=(text,)),))


def host_state(row: Row) -> str:
    """Say in a word what a host is doing, from its row of `RunQueries.hosts`."""
    running, last, complete, planned = row[4], row[5], row[6], row[8]
    if last in _LAST_WORD:
        return _LAST_WORD[str(last)]
    if running is not None:
        return {"measure": "measuring", "washout": "washing out"}.get(str(running), str(running))
    if planned:
        return "waiting" if not complete else "between periods"
    return "done" if complete else "no part"


def _page(title: str, sections: tuple[ReportSection, ...]) -> ReportPage:
    return ReportPage(
        title=title, hypothesis="", about=(), decision="", tone="", reason="", alarms=(), warnings=(),
        sections=sections, kicker="Live view, read-only", links=(("Runs", "/"),),
    )  # fmt: skip


def _stages(rows: Sequence[Row]) -> ReportSection:
    table = Table(
        caption="Steps of the ramp",
        headers=("stage", "hosts by its end", "opened"),
        rows=tuple(
            (
                Cell(text=str(int(stage) + 1)),
                Cell(text=number(float(hosts))),
                Cell(text=_at(at) if at else "not yet", tone="" if at else "quiet"),
            )
            for stage, hosts, at in rows
        ),
        align="rrn",
    )
    return ReportSection(key="stages", title="Stages", tables=(table,) if rows else ())


def _hosts(run_id: int, rows: Sequence[Row]) -> ReportSection:
    states = Counter(host_state(row) for row in rows)
    counts = Table(
        caption="Hosts by state",
        headers=("state", "hosts"),
        rows=tuple(
            (Cell(text=state, tone="bad" if state in _BAD_HOSTS else ""), Cell(text=number(count)))
            for state, count in states.most_common()
        ),
        align="lr",
    )
    # What needs a look comes first.
    ordered = sorted(rows, key=lambda row: (host_state(row) not in _BAD_HOSTS, str(row[0])))
    table = Table(
        caption="Hosts",
        headers=("host", "state", "arm", "stratum", "stage", "periods"),
        rows=tuple(
            (
                Cell(text=str(row[0]), link=f"/runs/{run_id}/hosts/{quote(str(row[0]), safe='')}"),
                Cell(text=host_state(row), tone="bad" if host_state(row) in _BAD_HOSTS else ""),
                Cell(text=str(row[2])),
                Cell(text=str(row[1])),
                Cell(text=str(int(row[3]) + 1)),
                Cell(text=f"{row[6] or 0} complete", note=f"{row[7]} invalid" if row[7] else ""),
            )
            for row in ordered[:MOST_HOSTS]
        ),
        align="llllrl",
    )
    cut = f"The table shows {MOST_HOSTS} of {len(rows):,} hosts, those that need a look first."
    paragraphs = (cut,) if len(rows) > MOST_HOSTS else ()
    return ReportSection(key="hosts", title="Hosts", paragraphs=paragraphs, tables=(counts, table))


def _guardrails(rows: Sequence[Row]) -> ReportSection:
    if not rows:
        return ReportSection(key="guardrails", title="Guardrails", paragraphs=("None has been tested yet.",))
    table = Table(
        caption="Each test of a guardrail, the newest first",
        headers=("when", "metric", "arm", "limit", "verdict", "reason"),
        rows=tuple(
            (
                Cell(text="at the end" if stage is None else f"after stage {int(stage) + 1}", note=_at(at)),
                Cell(text=str(metric), code=True),
                Cell(text=str(treatment), note=str(host or "")),
                Cell(text=_limit(margin, tripwire), note="" if look is None else f"look {int(look) + 1}"),
                Cell(text=str(verdict), tone=_TONES.get(str(verdict), "quiet")),
                Cell(text=str(reason)),
            )
            for metric, treatment, stage, look, host, at, margin, tripwire, verdict, reason in rows
        ),
        align="nlllnl",
    )
    text = "A look during the ramp allows for the others: its bounds are wider than those of the last."
    return ReportSection(key="guardrails", title="Guardrails", paragraphs=(text,), tables=(table,))


def _limit(margin: Any, tripwire: Any) -> str:  # noqa: ANN401 - figures as the database gives them
    parts = [] if margin is None else [f"margin {number(float(margin))} %"]
    parts += [] if tripwire is None else [f"tripwire {number(float(tripwire))}"]
    return ", ".join(parts) or DASH


def _rates(rows: Sequence[Row], now: datetime) -> ReportSection:
    title = "Readings"
    seen = [(begun, count, last) for _, begun, count, last in rows if count and last is not None]
    if not seen:
        return ReportSection(key="rates", title=title, paragraphs=("Nothing is being sampled now.",))
    rate, lags = 0.0, []
    for begun, count, last in seen:
        took = (moment(last) - moment(begun)).total_seconds()
        rate += float(count) / took if took > 0 else 0.0
        lags.append((now - moment(last)).total_seconds())
    lags.sort()
    table = Table(
        caption="What comes in",
        headers=("hosts sampled", "readings per second", "newest reading", "oldest newest reading of a host"),
        rows=(
            (
                Cell(text=number(len(seen))),
                Cell(text=number(rate)),
                Cell(text=f"{quantity(max(0.0, lags[0]), 'seconds')} ago"),
                Cell(text=f"{quantity(max(0.0, lags[-1]), 'seconds')} ago"),
            ),
        ),
        align="rrrr",
    )
    return ReportSection(key="rates", title=title, tables=(table,))


def _events(rows: Sequence[Row]) -> ReportSection:
    table = Table(
        caption="The last hundred, the newest first",
        headers=("at", "host", "what", "detail"),
        rows=tuple(
            (
                Cell(text=_at(at)),
                Cell(text=str(host or "the run")),
                Cell(text=str(what).replace("_", " ")),
                Cell(text=str(detail or "")),
            )
            for at, host, what, detail in rows
        ),
        align="nlll",
    )
    return ReportSection(key="events", title="What happened", tables=(table,) if rows else ())


def _periods(rows: Sequence[Row]) -> ReportSection:
    table = Table(
        caption="The host's schedule",
        headers=("arm", "kind", "stage", "block", "attempt", "state", "from", "to"),
        rows=tuple(
            (
                Cell(text=str(arm)),
                Cell(text=str(kind)),
                Cell(text=str(int(stage) + 1)),
                Cell(text=str(block) if int(block) >= 0 else DASH),
                Cell(text=str(attempt)),
                Cell(text=str(state), note=str(reason or ""), tone="bad" if state == "invalid" else ""),
                Cell(text=_at(started)),
                Cell(text=_at(ended)),
            )
            for arm, kind, stage, block, attempt, state, reason, started, ended in rows
        ),
        align="llrrrlnn",
    )
    return ReportSection(key="periods", title="Periods", tables=(table,) if rows else ())


def _knobs(rows: Sequence[Row]) -> ReportSection:
    if not rows:
        return ReportSection(key="knobs", title="Writes to knobs", paragraphs=("No knob was written on this host.",))
    restored = all(str(row[7]) == "yes" for row in rows)
    table = Table(
        caption="Every write",
        headers=("at", "knob", "before", "wanted", "read back", "why", "error"),
        rows=tuple(
            (
                Cell(text=_at(at)),
                Cell(text=str(knob), code=True),
                *(Cell(text=str(value), code=True) for value in (before, wanted, after)),
                Cell(text=str(reason)),
                Cell(text=str(error or DASH), tone="bad" if error else ""),
            )
            for at, knob, before, wanted, after, reason, error, _ in rows
        ),
        align="nllllll",
    )
    said = "Every knob reads as it was found." if restored else "Some knob does not read as it was found (yet)."
    return ReportSection(key="knobs", title="Writes to knobs", paragraphs=(said,), tables=(table,))


def _metrics(rows: Sequence[Row]) -> ReportSection:
    if not rows:
        text = "Nothing of this host has been summarised yet."
        return ReportSection(key="metrics", title="What was measured", paragraphs=(text,))
    table = Table(
        caption="The experiment's metrics in each period of this host",
        headers=("metric", "arm", "kind", "mean", "99 %", "readings"),
        rows=tuple(
            (
                Cell(text=str(metric), code=True),
                Cell(text=str(arm)),
                Cell(text=str(kind)),
                Cell(text=number(float(mean))),
                Cell(text=number(float(p99))),
                Cell(text=number(float(n))),
            )
            for metric, arm, kind, mean, p99, n in rows
        ),
        align="lllrrr",
    )
    return ReportSection(key="metrics", title="What was measured", tables=(table,))


def _state(state: object) -> Cell:
    text = str(state)
    return Cell(text=text.replace("_", " "), tone=_TONES.get(text, ""))


def _cut(rows: Iterable[Row]) -> tuple[str, ...]:
    return (f"The newest {MOST_ROWS}; 'fleetexp runs' lists all.",) if len(list(rows)) >= MOST_ROWS else ()


def moment(value: object) -> datetime:
    """Read an instant as either database gives it."""
    found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _at(value: object) -> str:
    return DASH if value is None else instant(moment(value))
