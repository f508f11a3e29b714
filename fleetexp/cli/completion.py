"""`fleetexp completion`: the script that makes a shell complete our commands."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(
    epilog="""
    \b
    Example:
      fleetexp completion bash > /etc/bash_completion.d/fleetexp
      source <(fleetexp completion zsh)
    """
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    assert found is not None  # noqa: S101 - the choices above are click's own
    click.echo(found(ctx.find_root().command, {}, "fleetexp", "_FLEETEXP_COMPLETE").source())
