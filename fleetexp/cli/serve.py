"""`fleetexp serve`: the live view of a store's runs, as web pages that can only read."""

from __future__ import annotations

import contextlib

import click

from fleetexp.cli.options import store_option
from fleetexp.cli.output import wrapped
from fleetexp.store.url import shown


@click.command(
    epilog="""
    \b
    Example:
      fleetexp serve
      fleetexp serve --host 0.0.0.0 --token "$(openssl rand -hex 16)"
    """
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8450, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--token",
    default="",
    envvar="FLEETEXP_TOKEN",
    show_envvar=True,
    help="What a reader must know; needed off localhost.",
)
@store_option
def serve(*, host: str, port: int, token: str, store_url: str) -> None:
    """Show the store's runs as web pages, read-only, until Ctrl-C.

    Runs, stages, hosts by state, guardrails with their bounds, each host's
    periods and writes, and the report of every run that has one.
    """
    from fleetexp.live.server import LiveServer
    from fleetexp.store.store import open_store

    open_store(store_url, create=False, read_only=True).close()  # a wrong URL or schema is said now, not on a page
    with LiveServer(store_url, host=host, port=port, token=token) as server:
        click.echo(f"serving {shown(store_url)} at {server.address}")
        if token:
            click.echo(wrapped("add ?token=... to the address once; the token is not shown here"))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)
