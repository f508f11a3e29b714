"""How verdicts on a page size are shown: 80 columns of text, TAP version 14, or one JSON object.

TAP: https://testanything.org/tap-version-14-specification.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import click

from fleetexp.cli.output import duration, emit_json, json_text, labelled, plain, size, visible
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from agents.conformance.scenario import Scenario
    from agents.conformance.verdict import Conformance, ScenarioResult

_NAME = 18


class Listener(Protocol):
    """Prints results as they come, and the end."""

    def told(self, result: ScenarioResult) -> None: ...

    def ended(self, found: Conformance) -> None: ...


def listener(form: str, scenarios: Sequence[Scenario]) -> Listener:
    """Return what prints in this form; what TAP says before the first result is printed with it."""
    match form:
        case "tap":
            return TapStream(scenarios)
        case "json":
            return JsonObject()
        case _:
            return TextScreen(scenarios)


def exit_code(found: Conformance) -> ExitCode:
    """Return 0, 1 where a scenario failed, 3 where the host was given up."""
    from agents.conformance.verdict import PageVerdict

    if found.given_up:
        return ExitCode.HALTED
    return ExitCode.ERROR if found.count(PageVerdict.FAIL) else ExitCode.DONE


class TextScreen:
    """A line for each scenario; why, and what was told of it, below."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._asks = {scenario.name: scenario.asks for scenario in scenarios}

    def told(self, result: ScenarioResult) -> None:
        from agents.conformance.verdict import Outcome

        line = f"{result.verdict:<5} {result.name:<{_NAME}} {self._asks[result.name]}"
        click.echo(f"{line:<70}{duration(result.seconds):>10}")
        if result.detail:
            click.echo(labelled("", visible(result.detail)))
        told = [f"{check.what} {check.seen}" for check in result.checks if check.outcome is Outcome.TOLD]
        if told:
            click.echo(labelled("      seen", visible("; ".join(told))))

    def ended(self, found: Conformance) -> None:
        from agents.conformance.verdict import PageVerdict

        counts = ", ".join(f"{found.count(verdict)} {verdict}" for verdict in PageVerdict)
        click.echo()
        click.echo(
            labelled(
                "pages",
                f"{size(found.trial.size_kib)}, Linux {visible(found.trial.kernel)} on {visible(found.trial.host)}",
            )
        )
        click.echo(labelled("verdicts", counts))
        if found.given_up:
            click.echo(labelled("GIVEN UP", f"{visible(found.given_up)}. Its settings are put back; reboot this host."))


class TapStream:
    """One test point for each scenario, as it ends."""

    def __init__(self, scenarios: Sequence[Scenario]) -> None:
        self._asks = {scenario.name: scenario.asks for scenario in scenarios}
        self._number = 0

    def told(self, result: ScenarioResult) -> None:
        from agents.conformance.verdict import PageVerdict, VerdictCause

        if result.cause is VerdictCause.GIVEN_UP:
            return
        if not self._number:
            click.echo(f"TAP version 14\n1..{len(self._asks)}")
        self._number += 1
        word = "not ok" if result.verdict is PageVerdict.FAIL else "ok"
        skip = f" # SKIP {_tap(result.detail)}" if result.verdict is PageVerdict.SKIP else ""
        click.echo(f"{word} {self._number} - {_tap(f'{result.name}: {self._asks[result.name]}')}{skip}")
        # JSON is YAML, a value on each line.
        block = {name: plain(getattr(result, name)) for name in ("cause", "detail", "seconds", "attempts")}
        block["checks"] = [plain(check) for check in result.checks]
        lines = [f"  {name}: {json_text(value)}" for name, value in block.items()]
        click.echo("\n".join(("  ---", *lines, "  ...")))

    def ended(self, found: Conformance) -> None:
        if found.given_up:
            click.echo(f"Bail out! {_tap(found.given_up)}")


class JsonObject:
    """One object at the end, and nothing before."""

    def told(self, result: ScenarioResult) -> None:
        pass

    def ended(self, found: Conformance) -> None:
        emit_json(found)


def _tap(text: str) -> str:
    """Escape what TAP would take for its own: the backslash, and the hash that begins a directive; on one line."""
    return visible(" ".join(text.split())).replace("\\", "\\\\").replace("#", "\\#")
