"""`fleetexp init`: a first experiment for this host, written to a file with comments."""

from __future__ import annotations

from pathlib import Path

import click

from fleetexp.cli.options import root_option
from fleetexp.cli.output_file import Over, write_output


@click.command(
    epilog="""
    \b
    Example:
      fleetexp init
      fleetexp init my-experiment.yaml
    """
)
@click.argument("path", metavar="[FILE]", default="experiment.yaml", type=click.Path(dir_okay=False, path_type=Path))
@root_option
def init(path: Path, root: str) -> None:
    """Write a commented first experiment for this host.

    It fits the page sizes and the memory that are here. FILE is
    experiment.yaml where none is named; a file that is there is kept. Its first
    line tells editors where the schema of its keys is.
    """
    from agents.facts import survey
    from agents.sysroot import FolderRoot
    from fleetexp.experiment.starter_spec import starter_spec
    from fleetexp.shipped import SCHEMA, shipped_files

    text = f"# yaml-language-server: $schema={shipped_files()[SCHEMA].as_uri()}\n"
    text += starter_spec(survey(FolderRoot(root)))
    write_output(text, path, Over.NOTHING, remedy="name another one")
    click.echo(f"wrote {path}\nsee what it would do: fleetexp plan {path}\nrun it: fleetexp run {path}")
