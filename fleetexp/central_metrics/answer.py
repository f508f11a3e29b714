"""An answer of Prometheus' HTTP API, understood: https://prometheus.io/docs/prometheus/latest/querying/api/."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from agents.histograms.buckets import NativeBucket, NativeHistogram
from fleetexp.central_metrics.failure import CentralFailure
from fleetexp.domain import CentralOutcome

Floats = NDArray[np.float64]
_PARTIAL = "the answer is partial: some of the server's storage gave none"  # VictoriaMetrics says so without words


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CentralSeries:
    """One series of an answer: its labels, instants in Unix seconds by the server's clock, rising, and values.

    `histograms` are the native ones, each with its instant: they have no value.
    """

    labels: Mapping[str, str]
    seconds: Floats
    values: Floats
    histograms: tuple[tuple[float, NativeHistogram], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CentralAnswer:
    """What the server said. `sha256` is of its body as it came; `warnings` and `infos` are the server's own words.

    A warning means that a part may be missing (Thanos' partial response).
    """

    series: tuple[CentralSeries, ...]
    warnings: tuple[str, ...]
    infos: tuple[str, ...]
    sha256: str
    size_bytes: int
    took_seconds: float


def understood(body: bytes, *, where: str, took_seconds: float) -> CentralAnswer:
    """Read the body of a successful answer: a matrix, a vector or a scalar. CentralFailure where it is none.

    A body may say that it is an error whatever its HTTP status was, as behind some gateways.
    """
    try:
        said = orjson.loads(body)
        if said.get("status", "success") != "success":
            what = f"the server says {said['status']!r}: {refusal(body)}"
            raise CentralFailure(CentralOutcome.BROKEN, what, where, "mend the query, or what the server says")
        data = said["data"]
        series = tuple(_series(data["resultType"], data["result"]))
        words = [tuple(map(str, said.get(key) or ())) for key in ("warnings", "infos")]
        if said.get("isPartial"):
            words[0] += (_PARTIAL,)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        what = f"the answer is not one of Prometheus' HTTP API: {type(error).__name__} {error}"[:200]
        remedy = "let metrics.server.url end before /api/v1; Mimir's ends in /prometheus"
        raise CentralFailure(CentralOutcome.NOT_UNDERSTOOD, what, where, remedy) from None
    return CentralAnswer(
        series=series,
        warnings=words[0],
        infos=words[1],
        sha256=hashlib.sha256(body).hexdigest(),
        size_bytes=len(body),
        took_seconds=took_seconds,
    )


def _series(kind: str, result: Any) -> list[CentralSeries]:  # noqa: ANN401 - JSON is anything
    if kind == "matrix":
        return [_one(found["metric"], found.get("values") or (), found.get("histograms") or ()) for found in result]
    if kind == "vector":
        return [
            _one(
                found["metric"],
                [found["value"]] if "value" in found else (),
                [found["histogram"]] if "histogram" in found else (),
            )
            for found in result
        ]
    if kind == "scalar":
        return [_one({}, [result])]
    raise ValueError(f"a result of type {kind!r}")


def _one(labels: Mapping[str, str], points: Any, histograms: Any = ()) -> CentralSeries:  # noqa: ANN401
    """Values are text: 'NaN' and '+Inf' are numbers there. A native histogram has no `values`, and so no point."""
    seconds = np.array([at for at, _ in points], dtype=np.float64)
    values = np.array([float(value) for _, value in points], dtype=np.float64)
    if (np.diff(seconds) <= 0).any():
        raise ValueError("a series whose instants do not rise")
    native = tuple((float(at), _histogram(said)) for at, said in histograms)
    return CentralSeries(labels=dict(labels), seconds=seconds, values=values, histograms=native)


def _histogram(said: Mapping[str, Any]) -> NativeHistogram:
    """Read buckets as [which of its ends are in it, lower, upper, count]; empty ones are left out of an answer."""
    buckets = (
        NativeBucket(lower=float(lower), upper=float(upper), count=float(count))
        for _, lower, upper, count in said.get("buckets") or ()
    )
    return NativeHistogram(buckets=tuple(buckets), observations=float(said["count"]))


def refusal(body: bytes) -> str:
    """Return what the server says of why it refused, in its own words; its first line where they are not JSON."""
    try:
        said = orjson.loads(body)
        text = said.get("error") or said.get("message") or ""
    except (ValueError, AttributeError):
        text = body.decode(errors="replace").strip().splitlines()[0] if body.strip() else ""
    return " ".join(str(text).split())[:300]
