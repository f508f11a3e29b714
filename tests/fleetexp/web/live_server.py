"""The live pages of a store, served on a free loopback port for as long as a test needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fleetexp.web.server import LiveServer


@contextmanager
def live_server(url: str, **options: Any) -> Iterator[LiveServer]:  # noqa: ANN401 - as LiveServer has them
    with LiveServer(url, port=0, **options) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
