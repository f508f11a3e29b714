"""A real Prometheus is asked, by way of a proxy where it must misbehave; every refusal is of its own kind."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from fleetexp.central_metrics.client import MetricsClient
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.domain import CentralOutcome
from fleetexp.experiment.central import MetricsServer
from tests.prometheus_server import Gate, Prometheus, exporter, prometheus, proxy
from tests.web_server import Web, serving

pytestmark = pytest.mark.slow  # a Prometheus is started

TOKEN = "FLEETEXP_SECRET_TEST"  # noqa: S105 - the variable's name
HASHED = "$2b$04$abcdefghijklmnopqrstuuLZYjhNQAOdpbzt4WxWlUHjv1wsyH5DG"  # s3cret, by bcrypt


@pytest.fixture(scope="module")
def server() -> Iterator[Prometheus]:
    page = 'queue{instance="a:9100"} 3\nqueue{instance="b:9100"} NaN\n'
    with exporter(page) as web, prometheus({"own": [web.url.split("/")[2]]}) as running:
        running.wait_for("queue", 2)
        yield running


@pytest.fixture
def gate(server: Prometheus) -> Iterator[Gate]:
    with proxy(server) as before:
        yield before


def client(url: str, **more: object) -> MetricsClient:
    return MetricsClient(MetricsServer.model_validate({"url": url, "timeout": "5s", **more}))


def outcome(asker: MetricsClient, promql: str = "queue") -> CentralFailure:
    with pytest.raises(CentralFailure) as caught:
        asker.query(promql)
    return caught.value


def test_a_range_and_an_instant_are_read_as_the_server_has_them(server: Prometheus) -> None:
    asker = client(server.url)
    now = time.time()
    answer = asker.query_range("queue * 2", start=now - 1, end=now, step_seconds=0.5)
    found = {one.labels["instance"]: one for one in answer.series}
    assert found["a:9100"].values[-1] == 6.0
    assert found["b:9100"].values[-1] != found["b:9100"].values[-1], "NaN stays NaN"
    assert list(found["a:9100"].seconds) == pytest.approx(
        [now - 1, now - 0.5, now][-len(found["a:9100"].seconds) :], abs=0.002
    )
    assert len(answer.sha256) == 64
    assert asker.query("time()").series[0].values[0] == pytest.approx(time.time(), abs=1.0)
    assert asker.requests == 2


def test_the_clock_of_the_server_is_measured_with_its_error(server: Prometheus) -> None:
    ahead, error = client(server.url).clock_ahead()
    assert abs(ahead) <= error + 0.01  # it is this machine's; Prometheus gives milliseconds


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        ({"headers": {"X-Scope-OrgID": "web"}}, {"X-Scope-OrgID": "web"}),
        ({"bearer": f"env:{TOKEN}"}, {"Authorization": "Bearer s3cret"}),
        ({"user": "me", "password": f"env:{TOKEN}"}, {"Authorization": "Basic bWU6czNjcmV0"}),
    ],
    ids=["tenant", "bearer", "basic"],
)
def test_who_asks_is_shown_and_a_stranger_refused(
    gate: Gate, shown: dict[str, object], wanted: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "s3cret")
    gate.headers = wanted
    assert client(gate.url, **shown).query("queue").series
    refused = outcome(client(gate.url))
    assert refused.outcome is CentralOutcome.UNAUTHORISED
    assert "no org id" in str(refused)
    assert "s3cret" not in str(refused)


def test_a_token_in_a_file_is_read_anew_and_only_from_a_private_one(gate: Gate, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    path.chmod(0o600)
    gate.headers = {"Authorization": "Bearer second"}
    asker = client(gate.url, bearer=f"file:{path}")
    assert outcome(asker).outcome is CentralOutcome.UNAUTHORISED
    path.write_text("second\n")
    assert asker.query("queue").series
    path.chmod(0o644)
    refused = outcome(asker)
    assert refused.outcome is CentralOutcome.NO_SECRET
    assert f"chmod 600 {path}" in str(refused)
    assert outcome(client(gate.url, bearer=f"file:{tmp_path / 'none'}")).outcome is CentralOutcome.NO_SECRET


def test_what_may_pass_is_asked_again_and_what_may_not_is_not(gate: Gate) -> None:
    gate.fail = 2
    asker = client(gate.url)
    assert asker.query("queue").series
    assert asker.requests == 3
    gate.fail = 99
    assert outcome(asker).outcome is CentralOutcome.BROKEN
    assert asker.requests == 7, "four tries and no more"
    gate.fail = 0
    refused = outcome(asker, "rate(queue)")
    assert refused.outcome is CentralOutcome.REFUSED
    assert "expected type range vector" in refused.what
    assert asker.requests == 8


def test_a_slow_server_is_given_up_in_time(gate: Gate) -> None:
    gate.delay_seconds = 60.0
    began = time.monotonic()
    assert outcome(client(gate.url, timeout="300ms")).outcome is CentralOutcome.SLOW
    assert time.monotonic() - began < 30


def test_nobody_there_is_told_as_that() -> None:
    refused = outcome(client("http://127.0.0.1:1", timeout="1s"))
    assert refused.outcome is CentralOutcome.AWAY
    assert "connection refused" in refused.what


def _raw(answer: bytes, pause: float = 0.0) -> object:
    def behave(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        head, _, body = answer.partition(b"\r\n\r\n")
        handler.wfile.write(head + b"\r\n\r\n")
        for place in range(0, len(body), 1 if pause else 65536):
            try:
                handler.wfile.write(body[place : place + (1 if pause else 65536)])
            except OSError:
                return
            time.sleep(pause)

    return behave


def _says(web: Web, answer: bytes, pause: float = 0.0) -> str:
    web.behave = _raw(answer, pause)  # type: ignore[assignment]
    return web.url.removesuffix("/metrics")


OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (OK + b"\r\n<html>log in</html>", CentralOutcome.NOT_UNDERSTOOD),
        (OK + b"\r\n{}", CentralOutcome.NOT_UNDERSTOOD),
        (
            OK + b'\r\n{"data": {"resultType": "vector", "result": [{"metric": {}, "value": [1]}]}}',
            CentralOutcome.NOT_UNDERSTOOD,
        ),
        (
            OK + b'\r\n{"data": {"resultType": "matrix", "result": [{"metric": {}, "values": [[2, "1"], [2, "1"]]}]}}',
            CentralOutcome.NOT_UNDERSTOOD,
        ),
        (OK + b'Content-Length: 99\r\n\r\n{"data": ', CentralOutcome.AWAY),
        (b"HTTP/1.0 302 Found\r\nLocation: http://elsewhere/\r\n\r\n", CentralOutcome.REFUSED),
        (b"HTTP/1.0 429 Too Many Requests\r\nRetry-After: 3600\r\n\r\nslow down", CentralOutcome.LIMITED),
        (OK + b"\r\n" + b" " * 3 * 2**20, CentralOutcome.TOO_LARGE),
        (OK + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(b" " * 3 * 2**20), CentralOutcome.TOO_LARGE),
    ],
    ids=["html", "empty", "odd", "one instant twice", "cut off", "redirect", "limit", "large", "bomb"],
)
def test_an_answer_that_is_none_is_told_by_its_kind(answer: bytes, expected: CentralOutcome) -> None:
    with serving() as web:
        asker = MetricsClient(
            MetricsServer.model_validate({"url": _says(web, answer), "timeout": "2s"}), most_bytes=2**20
        )
        began = time.monotonic()
        assert outcome(asker).outcome is expected
        assert time.monotonic() - began < 60, "an hour is not waited for"


def test_a_dripping_answer_is_given_up_in_time() -> None:
    with serving() as web:
        url = _says(web, OK + b"\r\n" + b" " * 400, pause=0.1)
        began = time.monotonic()
        assert outcome(client(url, timeout="500ms")).outcome is CentralOutcome.SLOW
        assert time.monotonic() - began < 20, "40 s are not waited for"


def test_warnings_and_infos_are_kept_apart() -> None:
    body = (
        b'{"status": "success", "data": {"resultType": "vector", "result": []},'
        b' "warnings": ["store b: unavailable"], "infos": ["metric might not be a counter"]}'
    )
    with serving() as web:
        answer = client(_says(web, OK + b"\r\n" + body)).query("x")
    assert answer.warnings == ("store b: unavailable",)
    assert answer.infos == ("metric might not be a counter",)
    assert answer.sha256 == hashlib.sha256(body).hexdigest()


def test_a_partial_answer_that_says_so_without_words_is_a_warning_too() -> None:
    body = b'{"status": "success", "isPartial": true, "data": {"resultType": "vector", "result": []}}'
    with serving() as web:
        answer = client(_says(web, OK + b"\r\n" + body)).query("x")
    assert ["partial" in one for one in answer.warnings] == [True]


@pytest.mark.parametrize("data", [b"", b', "data": {"resultType": "vector", "result": []}'])
def test_an_error_under_a_status_of_success_is_a_failure_in_the_servers_words(data: bytes) -> None:
    body = b'{"status": "error", "errorType": "timeout", "error": "query timed out in queue"' + data + b"}"
    with serving() as web:
        refused = outcome(client(_says(web, OK + b"\r\n" + body)))
    assert refused.outcome is CentralOutcome.BROKEN
    assert "query timed out in queue" in refused.what


@pytest.fixture(scope="module")
def keys() -> Iterator[Path]:
    """An authority, a server's certificate and a client's, made by openssl, and what Prometheus is to demand."""
    with tempfile.TemporaryDirectory(prefix="keys-") as name:
        folder = Path(name)

        def openssl(*words: str) -> None:
            subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ours", "-days", "2")
        (folder / "names").write_text("subjectAltName=IP:127.0.0.1\n")
        for who in ("server", "me"):
            openssl("req", *curve, "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj", f"/CN={who}")
            openssl(
                *("x509", "-req", "-in", f"{who}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
                *("-extfile", "names", "-out", f"{who}.pem", "-days", "2"),
            )
        tls = {"cert_file": "server.pem", "key_file": "server.key"}
        ours_alone = {"client_ca_file": "ca.pem", "client_auth_type": "RequireAndVerifyClientCert"}
        web = {"tls_server_config": tls | ours_alone, "basic_auth_users": {"me": HASHED}}
        (folder / "web.yml").write_text(json.dumps(web))  # JSON is YAML
        for path in (folder, *folder.iterdir()):  # Prometheus is another user
            path.chmod(0o755)
        yield folder


def test_both_sides_show_certificates_and_we_a_password(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(TOKEN, "s3cret")
    with prometheus({}, options=[f"--web.config.file={keys / 'web.yml'}"]) as running:
        url = running.url.replace("http:", "https:")
        ours = {"ca": f"{keys}/ca.pem", "certificate": f"{keys}/me.pem", "private_key": f"{keys}/me.key"}
        who = {"user": "me", "password": f"env:{TOKEN}"}
        assert client(url, **ours, **who).query("vector(2)").series[0].values.tolist() == [2.0]
        assert outcome(client(url, **ours)).outcome is CentralOutcome.UNAUTHORISED
        assert outcome(client(url, **who)).outcome is CentralOutcome.UNTRUSTED
        stranger = client(url, ca=f"{keys}/ca.pem", **who)
        assert outcome(stranger).outcome in {CentralOutcome.UNTRUSTED, CentralOutcome.AWAY}
        assert "No such file" in outcome(client(url, ca=f"{keys}/none.pem")).what
