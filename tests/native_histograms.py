"""A page of native histograms as exporters serve it: protobuf, written here byte by byte.

https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

CONTENT_TYPE = "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
_HISTOGRAM = 4


@dataclass(frozen=True, kw_only=True)
class NativeSeries:
    """One native histogram; `positive` and `negative` are index -> observations since the exporter began."""

    labels: Mapping[str, str]
    schema: int = 3
    zero_threshold: float = 1e-128
    zero: int = 0
    positive: Mapping[int, int] = field(default_factory=dict)
    negative: Mapping[int, int] = field(default_factory=dict)


def native_page(name: str, series: Iterable[NativeSeries]) -> bytes:
    """Return the page; its sum is 0, which no quantile reads."""
    family = _text(1, name) + _number(3, _HISTOGRAM) + b"".join(_part(4, _metric(one)) for one in series)
    return _varint(len(family)) + family


def _metric(one: NativeSeries) -> bytes:
    labels = b"".join(_part(1, _text(1, key) + _text(2, value)) for key, value in one.labels.items())
    count = one.zero + sum(one.positive.values()) + sum(one.negative.values())
    histogram = _number(1, count) + _double(2, 0.0) + _number(5, _zigzag(one.schema))
    histogram += _double(6, one.zero_threshold) + _number(7, one.zero)
    histogram += _buckets(one.negative, 9, 10) + _buckets(one.positive, 12, 13)
    if not one.positive and not one.negative:
        histogram += _part(12, _number(1, 0) + _number(2, 0))  # how an empty one says that it is native
    return labels + _part(7, histogram)


def _buckets(counts: Mapping[int, int], span_field: int, delta_field: int) -> bytes:
    places = sorted(counts)
    if not places:
        return b""
    spans: list[list[int]] = [[places[0], 1]]
    for before, place in pairwise(places):
        if place == before + 1:
            spans[-1][1] += 1
        else:
            spans.append([place - before - 1, 1])
    values = [0, *(counts[place] for place in places)]
    deltas = b"".join(_varint(_zigzag(after - before)) for before, after in pairwise(values))
    written = b"".join(_part(span_field, _number(1, _zigzag(offset)) + _number(2, long)) for offset, long in spans)
    return written + _part(delta_field, deltas)


def _zigzag(value: int) -> int:
    return value << 1 if value >= 0 else (-value << 1) - 1


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(place: int, value: int) -> bytes:
    return _varint(place << 3) + _varint(value)


def _double(place: int, value: float) -> bytes:
    return _varint(place << 3 | 1) + struct.pack("<d", value)


def _part(place: int, body: bytes) -> bytes:
    return _varint(place << 3 | 2) + _varint(len(body)) + body


def _text(place: int, text: str) -> bytes:
    return _part(place, text.encode())
