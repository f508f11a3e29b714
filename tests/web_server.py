"""A real web server on loopback that answers as a test tells it to, also badly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TEXT = "text/plain; version=0.0.4; charset=utf-8"


@dataclass
class Web:
    """What the server answers next, and what it was asked."""

    url: str
    release: threading.Event = field(default_factory=threading.Event)  # ends every answer that hangs
    body: bytes | Callable[[], bytes] = b""
    content_type: str = TEXT
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    behave: Callable[[BaseHTTPRequestHandler], None] | None = None
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@contextmanager
def serving() -> Iterator[Web]:
    """Serve on a free port; everything has ended on leaving."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            told.asked.append((self.path, dict(self.headers.items())))
            if told.behave is not None:
                told.behave(self)
                return
            body = told.body() if callable(told.body) else told.body
            self.send_response(told.status)
            headers = {"Content-Type": told.content_type, "Content-Length": str(len(body)), **told.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            return

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            return  # readers cut their connections off: that is what is tested

    server = Server(("127.0.0.1", 0), Handler)
    told = Web(url=f"http://127.0.0.1:{server.server_address[1]}/metrics")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield told
    finally:
        told.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
