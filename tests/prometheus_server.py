"""A real Prometheus on a free loopback port that scrapes what a test tells it to, and a proxy before it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import urllib3

from tests.free_port import free_port
from tests.web_server import Web, serving


@dataclass
class Prometheus:
    """A server that can be stopped and started again with what it has stored."""

    folder: Path
    targets: Mapping[str, Sequence[str]]  # job -> addresses, without scheme; a page's own instance labels are kept
    scrape_every: str = "1s"
    features: Sequence[str] = ()
    options: Sequence[str] = ()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        jobs = [
            {"job_name": job, "honor_labels": True, "static_configs": [{"targets": list(addresses)}]}
            for job, addresses in self.targets.items()
        ]
        config = {
            "global": {"scrape_interval": self.scrape_every, "scrape_timeout": self.scrape_every},
            "scrape_configs": jobs,
        }
        path = self.folder / "prometheus.yml"  # JSON is YAML
        path.write_text(json.dumps(config))
        features = [f"--enable-feature={','.join(self.features)}"] if self.features else []
        with (self.folder / "prometheus.log").open("ab") as log:
            self.process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={path}",
                    f"--storage.tsdb.path={self.folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                    *features,
                    *self.options,
                ],
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "GOMAXPROCS": "1"},
                stdout=log,
                stderr=log,
                user="nobody" if os.geteuid() == 0 else None,
            )
        deadline = time.monotonic() + 60
        while not self._ready():
            assert self.process.poll() is None, (self.folder / "prometheus.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "Prometheus is not ready"
            time.sleep(0.05)

    def _ready(self) -> bool:
        try:
            status = urllib3.request("GET", f"{self.url}/-/ready", timeout=1, retries=False).status
            return status in {200, 400}  # 400: one that is configured to speak TLS alone
        except urllib3.exceptions.HTTPError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)
            self.process = None

    def ask(self, promql: str, at: float | None = None) -> list[dict[str, object]]:
        """Return what an instant query gives, by none of the code that is tested."""
        form = {"query": promql} | ({} if at is None else {"time": repr(at)})
        answer = urllib3.request("GET", f"{self.url}/api/v1/query", fields=form, timeout=10)
        return list(answer.json()["data"]["result"])

    def wait_for(self, promql: str, count: int = 1, seconds: float = 30.0) -> None:
        deadline = time.monotonic() + seconds
        while len(self.ask(promql)) < count:
            assert time.monotonic() < deadline, f"{promql} has no {count} series"
            time.sleep(0.1)


@contextmanager
def prometheus(
    targets: Mapping[str, Sequence[str]],
    *,
    scrape_every: str = "1s",
    features: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[Prometheus]:
    """Start a Prometheus that scrapes `targets`; skips where it is not installed. It has ended on leaving."""
    if shutil.which("prometheus") is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    with tempfile.TemporaryDirectory(prefix="prometheus-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        server = Prometheus(
            folder=folder, targets=targets, scrape_every=scrape_every, features=features, options=options
        )
        try:
            server.start()
            yield server
        finally:
            server.stop()


@contextmanager
def exporter(page: str = "") -> Iterator[Web]:
    """Serve a page of metrics; `body` of what is given may be set to another page, or to a function that makes it."""
    with serving() as web:
        web.body = page.encode()
        yield web


@dataclass
class Gate:
    """What a proxy before the server lets through."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)  # those that a request must have
    delay_seconds: float = 0.0
    fail: int = 0  # so many requests are answered with 503 first
    warnings: Sequence[str] = ()  # stand in every answer, as Thanos' words on a partial response do
    ahead_seconds: float = 0.0  # of the server's clock, as time() tells it
    passed: list[tuple[str, dict[str, str]]] = field(default_factory=list)  # address and form of what came through
    answers: list[bytes] = field(default_factory=list)  # to those


@contextmanager
def proxy(server: Prometheus) -> Iterator[Gate]:
    """Stand before a Prometheus: demand headers, wait, fail, and note what is asked."""
    with serving() as web:
        gate = Gate(url=web.url.removesuffix("/metrics"))

        def behave(handler: BaseHTTPRequestHandler) -> None:
            body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
            web.release.wait(gate.delay_seconds)
            if any(handler.headers.get(name) != value for name, value in gate.headers.items()):
                _say(handler, 401, b"no org id\n")
                return
            if gate.fail > 0:
                gate.fail -= 1
                _say(handler, 503, b"upstream is away\n")
                return
            form = dict(urllib.parse.parse_qsl(body.decode()))
            gate.passed.append((handler.path, form))
            try:
                answer = urllib3.request(
                    "POST",
                    server.url + handler.path,
                    body=body,
                    headers={"Content-Type": "application/x-www-form-urlencoded"},
                    timeout=30,
                    retries=False,
                )
                gate.answers.append(_altered(answer.data, gate, form.get("query", "")))
                _say(handler, answer.status, gate.answers[-1])
            except urllib3.exceptions.HTTPError:
                _say(handler, 502, b"")

        web.behave = behave
        yield gate


def _altered(answer: bytes, gate: Gate, promql: str) -> bytes:
    if not gate.warnings and not gate.ahead_seconds:
        return answer
    said = json.loads(answer)
    if promql == "time()":
        said["data"]["result"][1] = str(float(said["data"]["result"][1]) + gate.ahead_seconds)
    return json.dumps({**said, "warnings": list(gate.warnings)}).encode()


def _say(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
