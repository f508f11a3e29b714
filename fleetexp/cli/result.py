"""The answer of a run on a terminal: the table of effects, the decision, the report's path, what to ask next."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fleetexp.cli.options import DEFAULT_STORE
from fleetexp.cli.output import NARROW, plain, print_table, visible, wrapped
from fleetexp.cli.output_file import Over, refuse_taken, write_output

if TYPE_CHECKING:
    from analysis.report import EffectRow, ReportInput
    from fleetexp.control.progress import RunOutcome
    from fleetexp.store.url import Database

_QUESTIONS = 3
_NAME = 28  # columns of a metric's name in the table
_FIGURES = 28  # columns of a change and its interval, where they stand on one line


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run ended with. `content` is None where there was nothing to report on."""

    outcome: RunOutcome
    content: ReportInput | None
    html: Path | None

    def as_json(self) -> dict[str, Any]:
        """Return the outcome, the findings and the report's path for --json."""
        found: dict[str, Any] = plain(self.outcome)
        found["findings"] = plain(self.content.findings) if self.content is not None else None
        found["report"] = str(self.html) if self.html is not None else None
        return found

    def print(self, store_url: Database) -> None:
        """Print everything a person wants to see at the end of a run."""
        if self.content is not None:
            print_effects(self.content)
        from fleetexp.domain import RunState

        if self.content is not None and self.outcome.decision and self.outcome.state is RunState.COMPLETED:
            print_decision(self.content)
        else:
            for line in ending(self.outcome):
                click.echo(wrapped(visible(line)))
        if self.html is not None:
            click.echo(f"\nreport: {self.html}")
        if self.content is not None:
            print_questions(self.content, store_url)


def conclude(outcome: RunOutcome, *, store_url: Database, reports: Path) -> RunResult:
    """Read the finished run back from the store and write its HTML report, where it has findings."""
    from fleetexp.store.store import open_store

    with contextlib.closing(open_store(store_url, read_only=True)) as store:
        if store.findings(outcome.run_id) is None:
            return RunResult(outcome=outcome, content=None, html=None)
        from fleetexp.reporting import report_content

        content = report_content(store, outcome.run_id)
    return RunResult(outcome=outcome, content=content, html=write_html(content, reports / f"run-{outcome.run_id}.html"))


def write_html(content: ReportInput, path: Path, *, force: bool = False) -> Path:
    """Write the report; the folder is made where it is missing."""
    from analysis.report import render_html

    return write_page(lambda: render_html(content), path, force=force)


def write_page(render: Callable[[], str], path: Path, *, force: bool) -> Path:
    """Write a page in the place of an earlier report, with `force` of any file; the folder is made where missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    over = Over.ANY_FILE if force else Over.REPORT
    remedy = "it is not marked as a report of ours: name another with --html, or use 'fleetexp report --force'"
    if os.path.lexists(path):  # before the work of rendering; writing looks again
        refuse_taken(path, over, remedy=remedy)
    return write_output(render(), path, over, remedy=remedy)


def ending(outcome: RunOutcome) -> list[str]:
    """Say how the run ended, the state of the hosts before the decision where they are not as they were."""
    from analysis.results import Decision
    from analysis.wording import decision_label
    from fleetexp.domain import RunState

    state = f"run {outcome.run_id} {outcome.state.value.replace('_', ' ')}"
    if outcome.state is RunState.RESTORE_INCOMPLETE:
        return [
            f"RESTORE INCOMPLETE: {outcome.reason}",
            f"Some knob does not read as it was found. Run 'fleetexp restore --run {outcome.run_id}' once the hosts "
            "answer, or 'fleetexp restore' on the host itself now.",
        ]
    if outcome.decision:
        return [f"decision: {decision_label(Decision(outcome.decision))} — {outcome.reason}"]
    lines = [f"{state}: {outcome.reason}" if outcome.reason else state]
    if outcome.state is RunState.PAUSED:
        lines.append(f"Every knob is back as it was found. Go on with: fleetexp resume {outcome.run_id}")
    elif outcome.state is RunState.HALTED:
        lines.append("Every knob is back as it was found; what was measured is kept and marked.")
    elif outcome.state is RunState.FAILED:
        lines.append("Nothing was changed on any host.")
    return lines


def print_effects(content: ReportInput) -> None:
    """Print the effects of each arm: metric, control, treatment, change with its interval; then arm against arm."""
    from analysis.report import effect_rows, pair_rows

    better = {note.metric: note.better for note in content.notes if note.better is not None}
    rows = effect_rows(content.findings, better=better)
    pairs = pair_rows(content.findings, better=better)
    for arm in dict.fromkeys(row.treatment_arm for row in rows):
        mine = [row for row in rows if row.treatment_arm == arm]
        table = [[_named(row), row.control, row.treatment, _change(row)] for row in mine]
        print_table(["metric", content.control, arm, _change_header(mine)], table)
        click.echo()
    if not rows:
        click.echo("no effect could be estimated\n")
    for arm, other in dict.fromkeys((row.treatment_arm, row.control_arm) for row in pairs):
        mine = [row for row in pairs if (row.treatment_arm, row.control_arm) == (arm, other)]
        table = [[_named(row), row.control, row.treatment, _change(row)] for row in mine]
        print_table(["metric", other, arm, _change_header(mine)], table)
        click.echo()
    notes: dict[str, list[str]] = {}  # what is to be said -> of which metrics
    for row in (*rows, *pairs):
        if row.remark:
            notes.setdefault(row.remark, []).append(row.metric)
    for missing in content.unavailable:
        notes.setdefault(f"unavailable: {missing.reason}", []).append(missing.metric)
    for note, metrics in notes.items():
        click.echo(wrapped(visible(f"{', '.join(dict.fromkeys(metrics))}: {note}"), indent="  "))
    if notes:
        click.echo()


def _named(row: EffectRow) -> str:
    """The metric, and below it the unit where that is too long for the cells."""
    return folded(row.metric) + (f"\n{textwrap.fill(f'({row.unit})', _NAME)}" if row.unit else "")


def _change(row: EffectRow) -> str:
    # Without a clear change the numbers stand on a line of their own: nothing beside them says better or worse.
    beside = row.is_clear and len(row.change) + len(row.figures) < _FIGURES
    return f"{row.change}{' ' if beside else chr(10)}{row.figures}".strip()


def _change_header(rows: Sequence[EffectRow]) -> str:
    levels = {row.level for row in rows if row.level is not None}
    return f"change [{100 * levels.pop():.4g} % interval]" if len(levels) == 1 else "change [interval]"


def print_decision(content: ReportInput) -> None:
    """Print the decision: of several arms which to take, then each; what it speaks for and what could overturn it."""
    from analysis.wording import choice_sentence, decision_label, doubt_words, scope_words, settling_words
    from fleetexp.simulated import WORDS

    findings = content.findings
    several = len(findings.arms) > 1
    said = f"{choice_sentence(findings.arms, findings.preference)}." if several else findings.reason
    if several and content.simulated:
        said = f"{WORDS}: {said}"
    click.echo(wrapped(visible(f"decision: {decision_label(findings.decision)} — {said}")))
    for arm in findings.arms:
        if several:
            click.echo(wrapped(visible(f"{arm.arm}: {decision_label(arm.decision)} — {arm.sentence}."), indent="  "))
        told = arm.decision.is_favourable  # the sentence says what is in doubt
        facts = [
            ("speaks for", scope_words(arm.scope)),
            ("in doubt", "" if told else "; ".join(doubt_words(one) for one in arm.overturn)),
            ("would settle it", "; ".join(dict.fromkeys(settling_words(one) for one in arm.overturn))),
        ]
        for label, text in facts:
            if text:
                click.echo(wrapped(visible(f"{label}: {text}"), indent="    " if several else "  "))
    for warning in findings.warnings if content.read_from else ():
        click.echo(wrapped(visible(f"note: {warning}"), indent="  "))


def folded(name: str) -> str:
    """Break a long name after an underscore, so that the numbers beside it have room."""
    lines = [""]
    for part in re.findall(r"[^_]*_|[^_]+", name):
        if lines[-1] and len(lines[-1]) + len(part) > _NAME:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)


def print_questions(content: ReportInput, store_url: Database) -> None:
    """Print commands that ask the store more, ready to be pasted."""
    if not content.suggestions:
        return
    click.echo("\nask next:")
    for suggestion in content.suggestions[:_QUESTIONS]:
        click.echo(wrapped(visible(f"# {suggestion.title}"), indent="  "))
        for line in sql_command(suggestion.sql, store_url):
            click.echo(f"  {line}")


def sql_command(sql: str, store_url: Database) -> Sequence[str]:
    """Write a command that can be pasted; a long query is broken between words, which SQL doesn't mind."""
    store = "" if store_url.name == DEFAULT_STORE else f" --store {shlex.quote(store_url.name)}"
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
