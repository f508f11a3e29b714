"""Numbers at paths of JSON documents, and paths that lead nowhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.metric_sources.json_document import number_at, parse_document, parse_path
from agents.metric_sources.unreadable import Unreadable

DOCUMENT = json.dumps(
    {"a": {"b": [{"c": 1.5}, {"p.99": 2}]}, "text": "3.25", "yes": True, "none": None, "big": 10**400, "list": []}
).encode()


@pytest.mark.parametrize(
    ("path", "value"), [("a.b[0].c", 1.5), ('a.b[1]["p.99"]', 2.0), ("text", 3.25), ('["text"]', 3.25)]
)
def test_a_path_leads_to_its_number(path: str, value: float) -> None:
    assert number_at(parse_document(DOCUMENT), path) == value


def test_the_answer_of_a_prometheus_server_can_be_read() -> None:
    # https://prometheus.io/docs/prometheus/latest/querying/api/, "Instant queries"
    answer = b"""{"status" : "success", "data" : {"resultType" : "vector", "result" : [
        {"metric" : {"__name__" : "up", "job" : "prometheus"}, "value": [ 1435781451.781, "1" ]}]}}"""
    assert number_at(parse_document(answer), "data.result[0].value[1]") == 1.0


@pytest.mark.parametrize(
    ("document", "path", "said"),
    [
        (DOCUMENT, "a.x", "a has no 'x'; it has b"),
        (DOCUMENT, "a.b[7]", "a.b has no 7; it has 2 entries"),
        (DOCUMENT, "a.b.c", "a.b has no 'c'; it has 2 entries"),
        (DOCUMENT, "text.x", "text has no 'x': it is '3.25'"),
        (DOCUMENT, "yes", "True is not a number"),
        (DOCUMENT, "none", "None is not a number"),
        (DOCUMENT, "big", "too large"),
        (DOCUMENT, "a", "is not a number"),
        (b'{"x": NaN}', "x", "nan"),
        (b'{"x": -Infinity}', "x", "-inf"),
        (b'{"x": "NaN"}', "x", "'NaN' is not a number"),
        (b'{"x": 1e999}', "x", "inf"),
        (b'{"a": {"x": 1, "y": 2, "x": 3}}', "a.x", "a has 'x' twice"),
        (b"<html>", "x", "it is no JSON"),
        (b"", "x", "it is no JSON"),
        (b'{"x": 1', "x", "it is no JSON"),
        (b"\xff\xfe\x00", "x", "it is no JSON"),
        (b"[" * 100_000, "x", "it is no JSON"),
    ],
)
def test_what_is_no_number_gives_no_value(document: bytes, path: str, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        number_at(parse_document(document), path)
    assert said in str(caught.value)


@pytest.mark.parametrize("path", ["", ".", "a..b", "a.", "a[", "a[-1]", "a[x]", "a]b", '["a', "a b", "[]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="path"):
        parse_path(path)


@given(st.lists(st.one_of(st.integers(0, 999), st.text(min_size=1).filter(lambda key: '"' not in key)), min_size=1))
def test_every_key_can_be_written(steps: list[str | int]) -> None:
    written = "".join(f"[{step}]" if isinstance(step, int) else f'["{step}"]' for step in steps)
    assert parse_path(written) == tuple(steps)
