"""Queries tried before a run: what a server's answer of numbers that are no host's own leads to."""

from __future__ import annotations

import json
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from agents.messages import HostFacts
from fleetexp.control.central_trial import refusals_of, try_queries
from fleetexp.experiment import parse_experiment
from tests.web_server import serving

SPEC = """
name: x
design: switchback
arms: {{control: {{}}, treatment: {{thp/2048kB/enabled: always}}}}
periods: {{washout: 10s, measure: 5m}}
metrics:
  primary: load
  server: {{url: "{url}"}}
  sources: {{load: {{promql: 'rate(x[1m])', by: instance}}}}
  better: {{load: decrease}}
"""
HOSTS = ("web-1", "web-2", "web-3")
Answer = Callable[[str, int], dict[str, Any]]  # of a host at the instant of this number


@pytest.fixture
def server() -> Iterator[Callable[[Answer], str]]:
    """Start a server that gives each host at each instant what a test says."""
    with serving() as web:

        def start(answer: Answer) -> str:
            def behave(handler: BaseHTTPRequestHandler) -> None:
                body = handler.rfile.read(int(handler.headers["Content-Length"])).decode()
                form = {key: float(value) for key, value in urllib.parse.parse_qsl(body) if key != "query"}
                instants = [form["start"] + form["step"] * n for n in range(5)]
                series = []
                for host in HOSTS:
                    found: dict[str, list[Any]] = {}
                    for number, at in enumerate(instants):
                        for key, said in answer(host, number).items():
                            found.setdefault(key, []).append([at, said])
                    series.append({"metric": {"instance": f"{host}:9100"}, **found})
                out = json.dumps({"status": "success", "data": {"resultType": "matrix", "result": series}}).encode()
                handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(out), out))

            web.behave = behave
            return web.url.removesuffix("/metrics")

        yield start


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda host, number: {"values": str(0.1 * number)}, "ALL HAVE THE VERY SAME VALUES"),
        (lambda host, number: {"values": str(0.1 * number + (host == "web-3") * (number == 4))}, ""),
        (lambda host, number: {"values": "0"}, ""),  # no errors on any host
        (
            lambda host, number: {"histograms": {"count": "3", "sum": "2", "buckets": [[0, "1", "2", "3"]]}},
            "it has native histograms, which are no numbers: add 'quantile'",
        ),
    ],
    ids=["one number of all", "nearly alike", "all still", "native histograms"],
)
def test_numbers_that_are_no_hosts_own_are_told_and_decide_nothing(
    server: Callable[[Answer], str], make_facts: Callable[..., HostFacts], answer: Answer, said: str
) -> None:
    """As of `scalar(sum(...))` beside each host's label: the fleet's number would count as many hosts' that agree."""
    experiment = parse_experiment(SPEC.format(url=server(answer)))
    (trial,) = try_queries(experiment, [make_facts(host=host) for host in HOSTS])
    refusals = list(refusals_of(experiment, [trial]))
    if said:
        assert said in trial.text
        assert said in refusals[0].what and refusals[0].remedy
    else:
        assert refusals == []
        assert "SAME" not in trial.text and "native" not in trial.text
