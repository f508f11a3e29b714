"""`fleetexp schema`: what a spec may look like, for editors."""

from __future__ import annotations

import click


@click.command(
    epilog="""
    \b
    Example:
      fleetexp schema > experiment.schema.json
    \b
    An editor with the YAML language server reads it where a spec begins with
      # yaml-language-server: $schema=experiment.schema.json
    """
)
def schema() -> None:
    """Print the JSON schema of an experiment.

    Editors offer, explain and mark keys and values by it. What hangs together
    across keys only 'fleetexp plan' can tell.
    """
    from fleetexp.experiment.json_schema import schema_text

    click.echo(schema_text(), nl=False)
