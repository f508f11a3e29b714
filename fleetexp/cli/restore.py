"""`fleetexp restore`: put this host's knobs back by hand, or see to the hosts that a run could not reach."""

from __future__ import annotations

import click

from fleetexp.cli.options import json_option, root_option, unread_store_option
from fleetexp.cli.output import emit_json, labelled, visible
from fleetexp.secret import Secret
from fleetexp.store.url import Database, parse_url


@click.command(
    epilog="""
    \b
    Example:
      fleetexp restore
      fleetexp restore --force
      fleetexp restore --run 7
    """
)
@click.option("--force", is_flag=True, help="Also where a live run still holds this host: its period is lost.")
@click.option(
    "--run", "run_id", type=click.IntRange(min=1), metavar="RUN", help="See to the hosts that this run could not reach."
)
@root_option
@unread_store_option
@json_option
def restore(*, force: bool, run_id: int | None, root: str, store_url: Secret, as_json: bool) -> None:
    """Put back what a dead run left changed on this host.

    The original values come from the journal that was written before the first
    knob was. Each is read back. A host without a claim is left alone.

    With --root the host is a mounted image or a copied tree: no link in it
    leads out of it, and no process that its journal names is ended.

    With --run the hosts are those that RUN ended without seeing restored
    (restore incomplete), wherever they are: what their guardians have put back
    meanwhile is entered into the store, each knob is read, and once every host
    reads as it was found the run is halted, every host restored.
    """
    if run_id is not None:
        if force:
            raise click.UsageError("--force is for this host, --run for the hosts of a run: use one of them")
        _of_run(run_id, root, parse_url(store_url.reveal()), as_json)
        return
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


def _of_run(run_id: int, root: str, store_url: Database, as_json: bool) -> None:
    from agents.errors import RestoreIncomplete
    from agents.sysroot import FolderRoot
    from fleetexp.control.launch import restore_run

    left = restore_run(run_id, store_url=store_url, root=FolderRoot(root))
    if left:
        raise RestoreIncomplete(
            f"{len(left)} hosts of run {run_id} are not restored yet: "
            + "; ".join(f"{host}: {why}" for host, why in left.items()),
            where=f"run {run_id}",
            remedy="once they can be reached, run the same command again",
        )
    if as_json:
        emit_json({"run_id": run_id, "left": {}})
    else:
        click.echo(visible(f"restored: every host reads as run {run_id} found it"))
