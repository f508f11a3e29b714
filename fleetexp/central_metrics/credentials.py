"""What the client shows to the metrics' server, read where the spec says that it is: the environment, or a file."""

from __future__ import annotations

import os
import stat

import urllib3

from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.domain import CentralOutcome
from fleetexp.experiment.central import MetricsServer
from fleetexp.secret import Secret

_MOST_BYTES = 16 * 1024
_ENVIRONMENT, _FILE = "env:", "file:"


def secret_at(reference: str) -> Secret:
    """Read the secret that 'env:NAME' or 'file:/PATH' names, without the line's end; CentralFailure where it is not
    there, or every user of this machine can get at it."""
    if reference.startswith(_ENVIRONMENT):
        name = reference.removeprefix(_ENVIRONMENT)
        text, where, remedy = os.environ.get(name, ""), name, f"export {name}=..."
    else:
        where = reference.removeprefix(_FILE)
        text, remedy = _content(where), f"write it into {where}"
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise CentralFailure(CentralOutcome.NO_SECRET, "there is no secret", where, remedy)
    if not text.isascii() or not text.isprintable():
        raise CentralFailure(CentralOutcome.NO_SECRET, "the secret is more than printable ASCII", where, remedy)
    return Secret(text)


def _content(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            mode = os.fstat(descriptor).st_mode
            content = os.read(descriptor, _MOST_BYTES) if stat.S_ISREG(mode) else b""
        finally:
            os.close(descriptor)
    except OSError as error:
        what = f"the secret can't be read: {error.strerror}"
        raise CentralFailure(CentralOutcome.NO_SECRET, what, path, "name a file that holds it") from None
    if mode & stat.S_IRWXO:
        what = "every user of this machine can get at the secret"
        raise CentralFailure(CentralOutcome.NO_SECRET, what, path, f"chmod 600 {path}")
    return content.decode("latin-1")


def headers(server: MetricsServer) -> dict[str, str]:
    """Return the headers of a request: the spec's own, and who asks. Read anew each time: tokens are renewed."""
    out = dict(server.headers)
    if server.bearer is not None:
        out["Authorization"] = f"Bearer {secret_at(server.bearer).reveal()}"
    elif server.user is not None and server.password is not None:
        basic = f"{server.user}:{secret_at(server.password).reveal()}"
        out.update(urllib3.make_headers(basic_auth=basic))
    return out
