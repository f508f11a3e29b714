"""The command `fleetexp`: its commands loaded only when asked for, and the one place where an error becomes a line."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import click

from fleetexp.cli.errors import JSON_WANTED, report_failure
from fleetexp.cli.misplaced import misplaced_passwords
from fleetexp.exit_codes import ExitCode

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

# In the order in which a user meets them. Their modules import nothing heavy; what is heavy, inside the functions.
COMMANDS = {
    "doctor": "fleetexp.cli.doctor:doctor",
    "init": "fleetexp.cli.init:init",
    "example": "fleetexp.cli.example:example",
    "schema": "fleetexp.cli.schema:schema",
    "hosts": "fleetexp.cli.hosts:hosts",
    "power": "fleetexp.cli.power:power",
    "plan": "fleetexp.cli.plan:plan",
    "rehearse": "fleetexp.cli.rehearse:rehearse",
    "run": "fleetexp.cli.run:run",
    "status": "fleetexp.cli.status:status",
    "runs": "fleetexp.cli.status:runs",
    "pause": "fleetexp.cli.control:pause",
    "resume": "fleetexp.cli.run:resume",
    "abort": "fleetexp.cli.control:abort",
    "import": "fleetexp.cli.imports:import_",
    "report": "fleetexp.cli.report:report",
    "serve": "fleetexp.cli.serve:serve",
    "sql": "fleetexp.cli.sql:sql",
    "export": "fleetexp.cli.export:export",
    "restore": "fleetexp.cli.restore:restore",
    "db": "fleetexp.cli.db:db",
    "completion": "fleetexp.cli.completion:completion",
}
# Where a user's installed package names commands of its own; read only for a name that is not above, and for help.
ENTRY_POINTS = "fleetexp.commands"


def _installed() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINTS) if point.name not in COMMANDS}


def _load(point: EntryPoint) -> click.Command:
    """Load a package's command; one that can't be loaded stays listed, and says why when it is called."""
    try:
        command = point.load()
        if isinstance(command, click.Command):
            return command
        problem = f"{point.value} is a {type(command).__name__}, not a click command"
    except Exception as error:
        problem = f"{point.value} can't be imported: {error}"

    def refuse() -> None:
        raise click.ClickException(f"command {point.name!r}: {problem} — repair or uninstall the package that adds it")

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    return click.Command(point.name, callback=refuse, context_settings=settings, help="(can't be loaded)")


class LazyGroup(click.Group):
    """A group that imports a command when it is named, and turns what a command raises into one line and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_installed())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            point = _installed().get(cmd_name)
            return None if point is None else _load(point)
        module, attribute = COMMANDS[cmd_name].split(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for place in misplaced_passwords(args):  # before click says what a word is not, and repeats it
            remedy = "the store's goes into FLEETEXP_STORE, or after --store"
            raise click.UsageError(f"an address with a password, where none is read [{place}] — {remedy}", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException, click.Abort, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            click.echo("error: interrupted", err=True)
            ctx.exit(ExitCode.ERROR)
        except Exception as error:
            code = report_failure(error, debug=bool(ctx.params.get("debug")), as_json=ctx.meta.get(JSON_WANTED, False))
            ctx.exit(code)


def _show_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from agents.versions import version_of

        click.echo(f"fleetexp {version_of('fleetexp')}")
        ctx.exit()


@click.command(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="""
    \b
    Start with:
      fleetexp doctor
      fleetexp example thp-2m-demo
      fleetexp plan thp-2m-demo.yaml
      fleetexp run thp-2m-demo.yaml

    \b
    Exit codes: 0 done, 1 error, 2 usage, 3 halted (all restored),
      4 too many hosts failed, 5 RESTORE INCOMPLETE, 6 inconclusive
    """,
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error, and log everything.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="warning",
    envvar="FLEETEXP_LOG_LEVEL",
    show_default=True,
    help="What is logged to stderr.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    envvar="FLEETEXP_LOG_FORMAT",
    show_default=True,
    help="Lines for people, or one JSON object a line.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit.",
)
def cli(debug: bool, log_level: str, log_format: str) -> None:
    """Find out, on real servers, whether a kernel memory setting is worth it.

    fleetexp puts the arms of an experiment on real kernels, measures, puts every
    host back as it was found, and says what the data show.
    """
    from fleetexp.logs import LogFormat, set_up_logging

    set_up_logging("debug" if debug else log_level, LogFormat(log_format))


def main() -> None:
    """Run the command line of this process."""
    cli(prog_name="fleetexp")
