"""`fleetexp serve`: the live view of a store's runs, as web pages that can only read."""

from __future__ import annotations

import contextlib

import click

from fleetexp.cli.options import store_option
from fleetexp.cli.output import wrapped
from fleetexp.errors import RunError
from fleetexp.store.url import Database


@click.command(
    epilog="""
    \b
    Example:
      fleetexp serve
      fleetexp serve --host :: --token-file /etc/fleetexp/serve-token
    """
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; IPv6 too.")
@click.option("--port", default=8450, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option(
    "--token-file",
    metavar="FILE",
    default="",
    envvar="FLEETEXP_TOKEN_FILE",
    show_envvar=True,
    help="File with what a reader must know, 16 characters or more; or FLEETEXP_TOKEN holds it. Where others reach "
    "the pages and neither is given, a token is made and shown.",
)
@click.option("--token", hidden=True, is_flag=False, flag_value="", default=None)
@click.option(
    "--name", "names", metavar="NAME", multiple=True, help="A further name that readers use for it, as behind a proxy."
)
@click.option(
    "--proxy",
    "proxies",
    metavar="ADDRESS",
    multiple=True,
    help="A proxy with TLS, whose X-Forwarded-For and -Proto are believed.",
)
@store_option
def serve(
    *,
    host: str,
    port: int,
    token_file: str,
    token: str | None,
    names: tuple[str, ...],
    proxies: tuple[str, ...],
    store_url: Database,
) -> None:
    """Show the store's runs as web pages, read-only, until Ctrl-C.

    Runs, stages, hosts by state, guardrails with their bounds, each host's
    periods and writes, and the report of every run that has one.
    """
    from fleetexp.store.store import open_store
    from fleetexp.web.access import needs_token, new_token
    from fleetexp.web.server import LiveServer, listen_address

    if token is not None:
        raise RunError(
            "an argument can be read by every user of this machine",
            where="--token",
            remedy="put the token into the environment variable FLEETEXP_TOKEN, or into a file for --token-file",
        )
    open_store(store_url, read_only=True).close()  # a wrong URL or schema is said now, not on a page
    given = _given(token_file)
    _, address = listen_address(host, port)
    made = new_token() if not given and needs_token(address[0], names=names, proxies=proxies) else ""
    with LiveServer(store_url, host=host, port=port, token=given or made, names=names, proxies=proxies) as server:
        click.echo(f"serving {store_url.name} at {server.address}")
        if made:
            click.echo(f"token, made for this time: {made}")
        if given or made:
            text = "add ?token=... to the address once; a token that was given is not shown here"
            click.echo(wrapped(text))
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.2)


def _given(file: str) -> str:
    """Return the token of the file or of the environment; '' where neither is given, RunError where both are."""
    import os

    from fleetexp.web.access import checked_token, token_of_file

    held = os.environ.get("FLEETEXP_TOKEN")
    if file and held is not None:
        raise RunError("two tokens are given", where="--token-file, FLEETEXP_TOKEN", remedy="give one of them")
    if file:
        return token_of_file(file)
    return checked_token(held, "FLEETEXP_TOKEN") if held is not None else ""
