"""Asking a metrics' server: within a time, again where that may help, never more than memory can take."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from contextlib import closing

import urllib3
from urllib3.exceptions import HTTPError, LocationParseError, ReadTimeoutError, SSLError
from urllib3.response import BaseHTTPResponse
from urllib3.util import Timeout

from fleetexp.central_metrics.answer import CentralAnswer, refusal, understood
from fleetexp.central_metrics.credentials import headers
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.domain import CentralOutcome
from fleetexp.experiment.central import MetricsServer

MOST_BYTES = 128 * 2**20  # of one answer, unpacked
MOST_POINTS = 3_000_000  # of one answer: at 40 bytes each it stays below that
MOST_STEPS = 10_000  # of one request: Prometheus takes 11,000
TRIES = 4
_CONNECT_SECONDS = 5.0
_BEHIND_ERRORS = frozenset({500, 502, 503, 504})
_AGAIN = frozenset({CentralOutcome.AWAY, CentralOutcome.BROKEN, CentralOutcome.LIMITED})
_REMEDIES = {
    CentralOutcome.UNAUTHORISED: "look at metrics.server: bearer, user and password, and the tenant's header",
    CentralOutcome.LIMITED: "ask for less: a longer step, fewer series, or raise the server's limit",
    CentralOutcome.REFUSED: "mend the query; the server's own page under /graph shows what it answers",
}


class MetricsClient:
    """Asks one server. Used from one thread at a time; `requests` counts what was sent, repeats included."""

    def __init__(self, server: MetricsServer, *, most_bytes: int = MOST_BYTES) -> None:
        self._server = server
        self._most_bytes = most_bytes
        self.requests = 0
        self._pool = urllib3.PoolManager(
            num_pools=1,
            ca_certs=server.ca,
            cert_file=server.certificate,
            key_file=server.private_key,
            retries=False,  # also no redirect: what is shown to this server is shown to no other
        )

    def close(self) -> None:
        self._pool.clear()

    def query_range(
        self, promql: str, *, start: float, end: float, step_seconds: float, fresh_seconds: float | None = None
    ) -> CentralAnswer:
        """Return a query's values at `start`, and each step later up to `end`, Unix seconds; CentralFailure else.

        `fresh_seconds`: a sample that is older stands for no instant; servers other than Prometheus may not heed it.
        """
        form = {"query": promql, "start": _written(start), "end": _written(end), "step": _written(step_seconds)}
        if fresh_seconds is not None:
            form["lookback_delta"] = _written(fresh_seconds)
        return self._ask("query_range", form)

    def query(self, promql: str, *, at: float | None = None) -> CentralAnswer:
        """Return a query's values at one instant, the server's now by default; CentralFailure where it gives none."""
        return self._ask("query", {"query": promql} if at is None else {"query": promql, "time": _written(at)})

    def clock_ahead(self) -> tuple[float, float]:
        """Return by how many seconds the server's clock is ahead of ours, and how far that may be wrong."""
        before = time.time()
        answer = self.query("time()")
        after = time.time()
        return float(answer.series[0].values[0]) - (before + after) / 2, (after - before) / 2

    def _ask(self, kind: str, form: Mapping[str, str]) -> CentralAnswer:
        began = time.monotonic()
        deadline = began + self._server.timeout
        for attempt in range(TRIES):
            try:
                body = self._once(f"{self._server.url}/api/v1/{kind}", form, deadline)
            except _Refused as refused:
                wait = refused.wait_seconds or 0.1 * 2**attempt * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                lasting = refused.failure.outcome not in _AGAIN or time.monotonic() + wait >= deadline
                if lasting or attempt == TRIES - 1:
                    raise refused.failure from None
                time.sleep(wait)
            else:
                return understood(body, where=self._server.url, took_seconds=time.monotonic() - began)
        raise AssertionError("the last try raises")

    def _once(self, url: str, form: Mapping[str, str], deadline: float) -> bytes:
        shown = headers(self._server)
        self.requests += 1
        try:
            left = max(0.05, deadline - time.monotonic())
            response = self._pool.request(
                "POST",
                url,
                fields=dict(form),
                encode_multipart=False,
                headers={**shown, "Accept": "application/json", "Accept-Encoding": "gzip", "User-Agent": "fleetexp"},
                timeout=Timeout(connect=min(_CONNECT_SECONDS, left), read=left),
                preload_content=False,
            )
            with closing(response):
                body = self._body(response, deadline)
        except (HTTPError, OSError, LocationParseError) as error:
            raise _Refused(_failure(error, self._server.url)) from None
        if response.status != 200:
            raise self._refused(response, body)
        return body

    def _body(self, response: BaseHTTPResponse, deadline: float) -> bytes:
        """Read to the end: a server that drips is given up at the deadline, and one that floods at the limit."""
        out = bytearray()
        while piece := response.read1(65536, decode_content=True):
            out += piece
            if len(out) > self._most_bytes:
                what = f"the answer is larger than {self._most_bytes // 2**20} MiB"
                remedy = "ask for less: aggregate by host, or a longer step"
                raise _Refused(CentralFailure(CentralOutcome.TOO_LARGE, what, self._server.url, remedy))
            if time.monotonic() > deadline:
                raise ReadTimeoutError(None, self._server.url, "the answer took too long")  # type: ignore[arg-type]
        return bytes(out)

    def _refused(self, response: BaseHTTPResponse, body: bytes) -> _Refused:
        status = response.status
        if status in {401, 403}:
            outcome = CentralOutcome.UNAUTHORISED
        elif status in {413, 422, 429}:
            outcome = CentralOutcome.LIMITED if status != 422 else CentralOutcome.REFUSED
        elif status in _BEHIND_ERRORS:
            outcome = CentralOutcome.BROKEN
        else:
            outcome = CentralOutcome.REFUSED
        said = refusal(body)
        what = f"HTTP {status} {response.reason or ''}".rstrip() + (f": {said}" if said else "")
        if 300 <= status < 400:
            what = f"HTTP {status}: it is at another address, {(response.headers.get('Location') or '')[:200]!r}"
        after = response.headers.get("Retry-After", "")
        return _Refused(
            CentralFailure(outcome, what, self._server.url, _REMEDIES.get(outcome, "")),
            wait_seconds=float(after) if after.isdigit() else 0.0,
        )


class _Refused(Exception):
    """One try that failed; `wait_seconds` is what the server asks for before the next, 0 for nothing."""

    def __init__(self, failure: CentralFailure, wait_seconds: float = 0.0) -> None:
        super().__init__(failure)
        self.failure = failure
        self.wait_seconds = wait_seconds


def _failure(error: Exception, where: str) -> CentralFailure:
    cause = error.__cause__ or error.__context__ or error
    match error:
        case urllib3.exceptions.NewConnectionError() | urllib3.exceptions.NameResolutionError():
            said = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(error)
            return CentralFailure(CentralOutcome.AWAY, f"no connection: {said.lower()}", where, "is it running there?")
        case ReadTimeoutError() | urllib3.exceptions.ConnectTimeoutError():
            remedy = "raise metrics.server.timeout, or ask for less"
            return CentralFailure(CentralOutcome.SLOW, "the answer took too long", where, remedy)
        case SSLError():
            remedy = "look at metrics.server: ca, certificate and private_key"
            return CentralFailure(CentralOutcome.UNTRUSTED, f"no trusted connection: {cause}"[:300], where, remedy)
        case _:
            return CentralFailure(CentralOutcome.AWAY, f"the connection broke: {error}"[:300], where, "")


def _written(seconds: float) -> str:
    return f"{seconds:.3f}"
