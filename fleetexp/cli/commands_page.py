"""Every command with what it does and takes, as a page for people: docs/COMMANDS.md is this text."""

from __future__ import annotations

from collections.abc import Iterator

import click

from fleetexp.cli.main import COMMANDS, cli

_HEAD = """# The commands

This page is generated from the commands' own help; a test keeps it current. To write it again:

    python -c 'from fleetexp.cli.commands_page import render_commands as r; print(r(), end="")' > docs/COMMANDS.md

What a command is asked for goes to stdout, with `--json` as one JSON object; logs go to stderr. `--help` says what each
option means, with an example.

| command | does | options |
|---|---|---|
"""
_TAIL = """
The store is a URL: `--store`, or `FLEETEXP_STORE`; `sqlite:///fleetexp.db` where neither is given. For a fleet, use
PostgreSQL: [POSTGRESQL.md](POSTGRESQL.md) says how to set it up, and what to expect.

| exit code | means |
|---|---|
| 0 | done |
| 1 | error |
| 2 | usage |
| 3 | halted, by a guardrail or on request; every host reads as it was found |
| 4 | too many hosts failed |
| 5 | **RESTORE INCOMPLETE**: some host does not read as it was found |
| 6 | inconclusive, where `--require-decision` was given |
"""


def every_command() -> Iterator[tuple[str, click.Command]]:
    """Yield this fleetexp's commands in the order of its help, each with the words it is called by."""
    context = click.Context(cli)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is not None:
            yield name, command
        if isinstance(command, click.Group):
            yield from ((f"{name} {sub}", below) for sub, below in command.commands.items())


def render_commands() -> str:
    """Write the page."""
    return _HEAD + "".join(_row(name, command) for name, command in every_command()) + _TAIL


def _row(name: str, command: click.Command) -> str:
    context = click.Context(command)
    given = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    options = [_longest(one) for one in command.params if isinstance(one, click.Option) and not one.hidden]
    said = " ".join((command.help or "").split("\n\n")[0].split())
    cells = (f"`{' '.join(['fleetexp', name, *given])}`", said, " ".join(f"`{one}`" for one in options))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def _longest(option: click.Option) -> str:
    return max(option.opts, key=len)
