"""`fleetexp db`: the schema of the store."""

from __future__ import annotations

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, wrapped
from fleetexp.exit_codes import ExitCode


@click.group(
    epilog="""
    \b
    Example:
      fleetexp db upgrade
      fleetexp db check
    """
)
def db() -> None:
    """Upgrade the store, or check that it is sound."""


@db.command(
    epilog="""
    \b
    Example:
      fleetexp db upgrade --store sqlite:///fleetexp.db
    """
)
@store_option
@json_option
def upgrade(store_url: str, as_json: bool) -> None:
    """Bring the store to the schema of this version.

    No row is lost. For a SQLite store, copy the file first if you want to go back.
    """
    from fleetexp.store import store

    store.upgrade(store_url)
    version = store.schema_version(store_url)
    if as_json:
        emit_json({"schema_version": version})
    else:
        click.echo(f"the store has schema {version}")


@db.command(
    epilog="""
    \b
    Example:
      fleetexp db check
    """
)
@store_option
@json_option
@click.pass_context
def check(ctx: click.Context, store_url: str, as_json: bool) -> None:
    """Look for damage in the store.

    The schema, the file's integrity, orphan rows, runs left alive. Exit code 1 where something was found.
    """
    from fleetexp.store import store

    problems = store.check(store_url)
    if as_json:
        emit_json({"sound": not problems, "problems": problems})
    elif problems:
        for problem in problems:
            click.echo(wrapped(f"- {problem}"))
    else:
        click.echo("the store is sound")
    if problems:
        ctx.exit(ExitCode.ERROR)
