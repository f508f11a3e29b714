"""`fleetexp restore`: put this host's knobs back by hand, after a run that could not."""

from __future__ import annotations

import click

from fleetexp.cli.options import json_option, root_option
from fleetexp.cli.output import emit_json, labelled


@click.command(
    epilog="""
    \b
    Example:
      fleetexp restore
      fleetexp restore --force
    """
)
@click.option("--force", is_flag=True, help="Also where a live run still holds this host: its period is lost.")
@root_option
@json_option
def restore(force: bool, root: str, as_json: bool) -> None:
    """Put back what a dead run left changed on this host.

    The original values come from the journal that was written before the first
    knob was. Each is read back. A host without a claim is left alone.
    """
    from agents.claim import claim_status
    from agents.claim import restore as put_back
    from agents.errors import RestoreIncomplete
    from agents.sysroot import FolderRoot

    host = FolderRoot(root)
    status = claim_status(host)
    changes = put_back(host, force=force) if status is not None else ()
    failed = [change for change in changes if not change.ok]
    if failed:
        raise RestoreIncomplete(
            f"{len(failed)} of {len(changes)} knobs could not be put back: "
            + "; ".join(
                f"{change.knob} reads {change.after}, was {change.wanted} ({change.error})" for change in failed
            ),
            where=str(host.root),
            remedy="write the values shown by hand, then run 'fleetexp restore' again",
        )
    if as_json:
        emit_json({"claimed": status is not None, "changes": changes})
    elif status is None:
        click.echo("nothing to restore: no run holds this host")
    else:
        for change in changes:
            click.echo(labelled("", f"{change.knob}: {change.before} -> {change.after}"))
        click.echo(f"restored: this host reads as run {status.run} found it")
