"""`fleetexp db`: the schema of the store, its roles and its partitions."""

from __future__ import annotations

import re

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, wrapped
from fleetexp.exit_codes import ExitCode
from fleetexp.store.url import Database


class _Days(click.ParamType[int]):
    """Whole days, as in 7d."""

    name = "days"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,5})d?", str(value).strip())
        if found is None or int(found[1]) < 1:
            self.fail(f"{value!r} is not a number of days, at least one; write it as in 7d", param, ctx)
        return int(found[1])


DAYS = _Days()


@click.group(
    epilog="""
    \b
    Example:
      fleetexp db upgrade
      fleetexp db check
      fleetexp db partition --ahead 7d --drop-older 90d
    """
)
def db() -> None:
    """Upgrade, check and keep the store; its roles and days."""


@db.command(
    epilog="""
    \b
    Example:
      fleetexp db upgrade --store sqlite:///fleetexp.db
    """
)
@store_option
@json_option
def upgrade(store_url: Database, as_json: bool) -> None:
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
def check(ctx: click.Context, store_url: Database, as_json: bool) -> None:
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


@db.command(
    epilog="""
    \b
    Example:
      fleetexp db grant --writer fleetexp_writer --reader fleetexp_reader
      fleetexp db grant --reader fleetexp_reader --print
    """
)
@store_option
@click.option("--writer", metavar="ROLE", help="May enter runs and readings; not alter the schema or what was read.")
@click.option("--reader", metavar="ROLE", help="May read every table and view, and write nothing.")
@click.option("--print", "only_print", is_flag=True, help="Print the SQL for a DBA; change nothing.")
@json_option
def grant(store_url: Database, writer: str | None, reader: str | None, only_print: bool, as_json: bool) -> None:
    """Give PostgreSQL roles the rights of a writer or a reader.

    Run it as the owner of the tables; the roles must be there. After an upgrade of the store, run it again.
    """
    from fleetexp.store import roles

    if writer is None and reader is None:
        raise click.UsageError("name a role: --writer ROLE, --reader ROLE, or both")
    statements = roles.grant(store_url, writer=writer, reader=reader, apply=not only_print)
    if as_json:
        emit_json({"applied": not only_print, "statements": statements})
    elif only_print:
        for statement in statements:
            click.echo(f"{statement};")
    else:
        click.echo(f"{len(statements)} grants were made")


@db.command(
    epilog="""
    \b
    Example:
      fleetexp db partition --ahead 7d --drop-older 90d
    """
)
@store_option
@click.option("--ahead", type=DAYS, default="7d", show_default=True, metavar="DAYS", help="Prepare so many days.")
@click.option("--drop-older", type=DAYS, metavar="DAYS", help="Delete the samples of days longer ago than this.")
@json_option
def partition(store_url: Database, ahead: int, drop_older: int | None, as_json: bool) -> None:
    """Prepare days for samples on PostgreSQL, drop old ones.

    Run it daily as the owner of the tables. Without --drop-older nothing is deleted; observations never are.
    """
    from fleetexp.store import partitions

    done = partitions.partition(store_url, ahead_days=ahead, drop_older_days=drop_older)
    if as_json:
        emit_json(
            {
                "made": list(done.made),
                "not_made": list(done.not_made),
                "dropped": list(done.dropped),
                "rows_deleted": done.rows_deleted,
            }
        )
        return
    click.echo(f"made {len(done.made)} partitions, dropped {len(done.dropped)}, deleted {done.rows_deleted} old rows")
    for name in done.not_made:
        click.echo(wrapped(f"- {name} was not made: rows of that day are in the default partition, and stay there"))
