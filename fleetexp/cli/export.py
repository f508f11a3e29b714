"""`fleetexp export`: a run as files that other tools read."""

from __future__ import annotations

from pathlib import Path

import click

from fleetexp.cli.options import json_option, store_option
from fleetexp.cli.output import emit_json, visible
from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp export 3 --to run-3
      fleetexp export 3 --to run-3-again --json
    """
)
@click.argument("run_id", metavar="RUN", type=click.IntRange(min=1))
@click.option(
    "--to",
    "folder",
    metavar="FOLDER",
    required=True,
    type=click.Path(path_type=Path),
    help="A new folder, or an empty one.",
)
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["parquet"]),
    default="parquet",
    show_default=True,
    help="How the tables are written.",
)
@store_option
@json_option
def export(run_id: int, folder: Path, file_format: str, store_url: Database, as_json: bool) -> None:
    """Write every table and view of RUN to a new folder.

    One Parquet file each, with the meaning and unit of every column, and
    manifest.json with rows and checksums. The folder is there whole, or not at
    all; nothing is ever overwritten.
    """
    from agents.versions import version_of
    from fleetexp.store.export import MANIFEST, export_run

    done = export_run(store_url, run_id, folder, fleetexp_version=version_of("fleetexp"))
    if as_json:
        emit_json({"run_id": run_id, "folder": str(folder), "format": file_format, "manifest": done.manifest})
        return
    files = len(done.manifest["files"])
    click.echo(visible(f"run {run_id}: {done.rows} rows in {files} files, described by {folder / MANIFEST}"))
