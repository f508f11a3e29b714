"""The answer of a run on a terminal: the table of effects, the decision, the report's path, what to ask next."""

from __future__ import annotations

import contextlib
import re
import shlex
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetexp.cli.options import DEFAULT_STORE
from fleetexp.cli.output import NARROW, plain, print_table, visible, wrapped
from fleetexp.store.url import shown

if TYPE_CHECKING:
    from analysis.report.content import ReportInput
    from fleetexp.orchestrator.progress import Outcome

_QUESTIONS = 3
_NAME = 28  # columns of a metric's name in the table


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a run ended with. `content` is None where there was nothing to report on."""

    outcome: Outcome
    content: ReportInput | None
    html: Path | None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome, the findings and the report's path for --json."""
        found: dict[str, Any] = plain(self.outcome)
        found["findings"] = plain(self.content.findings) if self.content is not None else None
        found["report"] = str(self.html) if self.html is not None else None
        return found

    def print(self, store_url: str) -> None:
        """Print everything a person wants to see at the end of a run."""
        if self.content is not None:
            print_effects(self.content)
        for line in ending(self.outcome):
            click.echo(wrapped(visible(line)))
        if self.html is not None:
            click.echo(f"\nreport: {self.html}")
        if self.content is not None:
            print_questions(self.content, store_url)


def conclude(outcome: Outcome, *, store_url: str, reports: Path) -> Answer:
    """Read the finished run back from the store and write its HTML report, where it has findings."""
    from fleetexp.store.store import open_store

    with contextlib.closing(open_store(store_url, create=False)) as store:
        if store.findings(outcome.run_id) is None:
            return Answer(outcome=outcome, content=None, html=None)
        from fleetexp.reporting import report_content

        content = report_content(store, outcome.run_id)
    return Answer(outcome=outcome, content=content, html=write_html(content, reports / f"run-{outcome.run_id}.html"))


def write_html(content: ReportInput, path: Path) -> Path:
    """Write the report; the folder is made where it is missing."""
    from analysis.report import render_html

    return write_text(render_html(content), path)


def write_text(text: str, path: Path) -> Path:
    """Write a page to a file; the folder is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def ending(outcome: Outcome) -> list[str]:
    """Say how the run ended, the state of the hosts before the decision where they are not as they were."""
    from fleetexp.domain import RunState

    state = f"run {outcome.run_id} {outcome.state.value.replace('_', ' ')}"
    if outcome.state is RunState.RESTORE_INCOMPLETE:
        return [
            f"RESTORE INCOMPLETE: {outcome.reason}",
            f"Some knob does not read as it was found. Run 'fleetexp restore --run {outcome.run_id}' once the hosts "
            "answer, or 'fleetexp restore' on the host itself now.",
        ]
    if outcome.decision:
        return [f"decision: {outcome.decision} — {outcome.reason}"]
    lines = [f"{state}: {outcome.reason}" if outcome.reason else state]
    if outcome.state is RunState.PAUSED:
        lines.append(f"Every knob is back as it was found. Go on with: fleetexp resume {outcome.run_id}")
    elif outcome.state is RunState.HALTED:
        lines.append("Every knob is back as it was found; what was measured is kept and marked.")
    elif outcome.state is RunState.FAILED:
        lines.append("Nothing was changed on any host.")
    return lines


def print_effects(content: ReportInput) -> None:
    """Print the table of effects: metric, control, treatment, change with its interval."""
    from analysis.report import effect_rows

    better = {note.metric: note.better for note in content.notes if note.better is not None}
    rows = effect_rows(content.findings, better=better)
    arms = {row.treatment_arm for row in rows if row.treatment_arm}
    several = len(arms) > 1
    levels = {row.level for row in rows if row.level is not None}
    interval = f" [{levels.pop():.0%} interval]".replace("%", " %") if len(levels) == 1 else " [interval]"
    treatment = "treatment" if several else next(iter(arms), "treatment")
    headers = ["metric", *(["arm"] if several else []), content.control, treatment, f"change{interval}"]
    table = [
        [
            folded(row.metric),
            *([row.treatment_arm] if several else []),
            row.control,
            row.treatment,
            f"{row.change} {row.interval}".strip(),
        ]
        for row in rows
    ]
    if table:
        print_table(headers, table)
    else:
        click.echo("no effect could be estimated")
    notes: dict[str, list[str]] = {}  # what is to be said -> of which metrics
    for row in rows:
        if row.remark:
            notes.setdefault(row.remark, []).append(row.metric)
    for missing in content.unavailable:
        notes.setdefault(f"unavailable: {missing.reason}", []).append(missing.metric)
    for note, metrics in notes.items():
        click.echo(wrapped(visible(f"{', '.join(dict.fromkeys(metrics))}: {note}"), indent="  "))
    click.echo()


def folded(name: str) -> str:
    """Break a long name after an underscore, so that the numbers beside it have room."""
    lines = [""]
    for part in re.findall(r"[^_]*_|[^_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > _NAME:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def print_questions(content: ReportInput, store_url: str) -> None:
    """Print commands that ask the store more, ready to be pasted."""
    if not content.suggestions:
        return
    click.echo("\nask next:")
    for suggestion in content.suggestions[:_QUESTIONS]:
        click.echo(wrapped(visible(f"# {suggestion.title}"), indent="  "))
        for line in sql_command(suggestion.sql, store_url):
            click.echo(f"  {line}")


def sql_command(sql: str, store_url: str) -> Sequence[str]:
    """Write a command that can be pasted; a long query is broken between words, which SQL doesn't mind."""
    store = "" if store_url == DEFAULT_STORE else f" --store {shlex.quote(shown(store_url))}"
    # A literal with blanks may not be broken, nor its blanks be joined.
    spaced_literal = any(re.search(r"\s", literal) for literal in re.findall(r"'[^']*'", sql))
    query = sql.strip() if spaced_literal else " ".join(sql.split())
    # In double quotes SQL's own quotes stay readable; not where the shell would see something in it.
    quoted = shlex.quote(query) if set(query) & set('"$`\\!') else f'"{query}"'
    one = f"fleetexp sql{store} {quoted}"
    if len(one) <= NARROW - 2 or spaced_literal:
        return [one]
    lines = textwrap.wrap(quoted, NARROW - 6, break_long_words=False, break_on_hyphens=False)
    return [f"fleetexp sql{store} \\", *(f"  {line}" for line in lines)]
