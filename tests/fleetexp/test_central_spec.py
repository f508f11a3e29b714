"""The parts of a spec that a metrics' server is asked by: what is refused, and which host a series is of."""

from __future__ import annotations

import pytest

from fleetexp.errors import ConfigError
from fleetexp.experiment import parse_experiment
from fleetexp.experiment.central import HostOfSeries, lookback_seconds, unclear_time

SPEC = """
name: x
design: switchback
arms: {{control: {{}}, treatment: {{thp/2048kB/enabled: always}}}}
periods: {{washout: 10s, measure: {measure}}}
metrics:
  primary: p99
  {server}
  sources: {{p99: {{{source}}}}}
  better: {{p99: decrease}}
"""
SERVER = 'server: {url: "https://prometheus:9090"}'
SOURCE = "promql: 'rate(x[1m])', by: instance"


def spec(source: str = SOURCE, server: str = SERVER, measure: str = "5m") -> str:
    return SPEC.format(source=source, server=server, measure=measure)


def test_agents_are_asked_for_nothing_of_it() -> None:
    experiment = parse_experiment(spec())
    assert experiment.sources == ()
    (query,) = experiment.central_queries
    assert (query.step_seconds, query.settle_seconds, query.lookback_seconds) == (15.0, 30.0, 60.0)
    assert [one.metric for one in experiment.simulated_sources] == ["p99"], "made-up hosts make it up"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"server": ""}, "no server is named.*write 'server"),
        ({"source": "promql: up"}, "nothing says which host.*by: instance"),
        ({"source": "promql: 'up{{i=\"{host}\"}}', by: instance"}, "for one host, and for all"),
        ({"source": "promql: 'rate(x[1m] @ end())', by: i"}, "'@' says no plain length of time.*and no '@'"),
        ({"source": "promql: 'x * 1 offset -5m', by: i"}, "'offset -5m' says no plain length of time back"),
        ({"source": "promql: 'rate(x[90])', by: i"}, r"'\[90\]' says no plain length of time.*\[90s\]"),
        ({"source": "promql: 'rate(x[1i] offset 1m)', by: i"}, r"'\[1i\]' says no"),
        ({"source": "promql: 'avg_over_time(x[1m:] offset 0.5h)', by: i"}, "'offset 0.5h' says no"),
        ({"source": "promql: 'hits_total{job=\"a\"}', by: i"}, r"hits_total is a counter.*rate\(hits_total\[1m\]\)"),
        ({"source": "promql: 'x_bucket{i=\"{host}\"}'"}, "x_bucket is a counter"),
        ({"source": "promql: x_bucket, by: 'i) (x', quantile: 0.9"}, "is not the name of a label"),
        ({"source": f"{SOURCE}, to_host: as is"}, "not legal here.*did you mean 'as it is'"),
        ({"source": f"{SOURCE}, to_host: as it is, host_pattern: '(.*)'"}, "two things of one label"),
        ({"source": f"{SOURCE}, host_pattern: 'a('"}, "is no pattern"),
        ({"source": f"{SOURCE}, host_pattern: 'a'"}, "has no group"),
        ({"source": f"{SOURCE}, kind: counter"}, "'kind' says nothing of a query"),
        ({"source": "promql: 'rate(x_bucket[1m])', by: i, quantile: 0.9"}, "needs the histogram's own series.*_bucket"),
        ({"source": "promql: x_bucket, by: i, quantile: 0.9, share_below: 1"}, "are two metrics"),
        ({"source": "promql: x_bucket, by: i, quantile: 1"}, "quantile"),
        ({"source": "promql: x_bucket, by: i, histogram: x, quantile: 0.9"}, "'histogram' says nothing of a query"),
        ({"source": "promql: x_bucket, by: i, quantile: 0.9", "measure": "30s"}, "measure for more than"),
        ({"source": "file: /run/x, step: 5s"}, "'step' is for a metric that the metrics' server"),
        ({"source": f"{SOURCE}, step: 2h"}, "out of bounds"),
        ({"source": f"{SOURCE}, command: [a]"}, "a source is one place"),
        ({"measure": "1m"}, "looks back 1m.*measure for more than 1m15s"),
        ({"server": 'server: {url: "prometheus:9090"}'}, "not the address of a metrics' server"),
        ({"server": 'server: {url: "https://me:pw@prometheus"}'}, "must not hold a password"),
        ({"server": 'server: {url: "https://p", bearer: eyJhbGciOi}'}, "a secret is not written into a spec"),
        ({"server": 'server: {url: "https://p", bearer: "env:HOME"}'}, "name where it is: 'env:FLEETEXP_SECRET_NAME'"),
        ({"server": 'server: {url: "https://p", headers: {Authorization: x}}'}, "Authorization is not to be set"),
        ({"server": 'server: {url: "https://p", user: me}'}, "needs both user and password"),
        ({"server": 'server: {url: "https://p", certificate: /x}'}, "needs both certificate and private_key"),
        ({"server": 'server: {url: "http://p", bearer: "file:/x"}'}, "in the clear.*https"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_the_remedy(changed: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        parse_experiment(spec(**changed))
    assert "eyJhbGciOi" not in str(caught.value)


@pytest.mark.parametrize(
    ("promql", "seconds"),
    [
        ("up", 0.0),
        ("rate(x[5m])", 300.0),
        ("rate(x[1m30s]) / rate(y[ 2m ])", 120.0),
        ("rate(x[5m] offset 1h)", 3900.0),
        ("max_over_time(rate(x[1m])[10m:])", 660.0),
        ("max_over_time(rate(x[1m])[10m:30s])", 660.0),
        ('rate(x{path="[9d]"}[1m])', 60.0),
        ("rate(x[1m]) # [9d] @ 5", 60.0),
        ('rate(x{offset="-1", mail="a@b", path=~"[a-z]"}[1m] offset 1m)', 120.0),
    ],
)
def test_how_far_a_query_looks_back_is_read_from_it(promql: str, seconds: float) -> None:
    assert lookback_seconds(promql) == seconds
    assert unclear_time(promql) == ""


@pytest.mark.parametrize(
    ("way", "value", "host"),
    [
        ({}, "web-1:9100", "web-1"),
        ({}, "web-1", "web-1"),
        ({}, "[::1]:9100", "[::1]"),
        ({}, "[fd00::5]:9100", "fd00::5"),
        ({}, "fd00::5", "fd00::5"),
        ({}, "fd00::5:1", ""),
        ({"host_label": "ip"}, "[fd00::5]:9100", "fd00::5"),
        ({"strip_port": False}, "web-1:9100", ""),
        ({"pattern": "ip-(.*)\\.example:[0-9]+"}, "ip-web-1.example:9100", "web-1"),
        ({"pattern": "ip-(.*)\\.example"}, "ip-web-1.example:9100", ""),
        ({"host_label": "ip"}, "10.0.0.1:9100", "web-1"),
        ({"host_label": "ip"}, "10.0.0.2:9100", ""),
    ],
)
def test_a_label_leads_to_a_host(way: dict[str, object], value: str, host: str) -> None:
    labels = {"web-1": {"ip": "10.0.0.1"}, "[::1]": {}, "web-2": {"ip": "10.0.0.2"}, "web-3": {"ip": "10.0.0.2"}}
    labels["fd00::5"] = {"ip": "fd00::5"}
    mapping = HostOfSeries(by="instance", **way)  # type: ignore[arg-type]
    assert mapping.hosts(labels).get(mapping.name(value), "") == host


@pytest.mark.parametrize(
    ("promql", "asked"),
    [
        ("up", "last_over_time(up[30000ms])"),
        (' node_load1{job="a", x=~"}"} ', 'last_over_time(node_load1{job="a", x=~"}"}[30000ms])'),
        ("up{a=`}`}", "last_over_time(up{a=`}`}[30000ms])"),
        ("rate(x[1m])", "rate(x[1m])"),
        ("sum by (instance) (up)", "sum by (instance) (up)"),
        ("up * 2", "up * 2"),
    ],
)
def test_a_bare_selector_holds_no_old_sample(promql: str, asked: str) -> None:
    (query,) = parse_experiment(spec(f"promql: '{promql}', by: instance")).central_queries
    assert query.asked() == asked


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        (
            "promql: 'x_bucket{{job=\"web\"}}', by: instance, quantile: 0.9",
            'sum by (instance, le) (increase(x_bucket{job="web"}[285000ms])) or label_replace(count by (instance, le) '
            '(increase(x_bucket{job="web"}[285000ms])), "fleetexp_part", "series", "", "")',
        ),
        ("promql: x, by: instance, share_below: 0.25", "sum by (instance) (increase(x[285000ms]))"),
        (
            "promql: 'x{{instance=\"{host}:1\"}}', quantile: 0.9",
            'sum by () (increase(x{instance="web-1:1"}[285000ms]))',
        ),
    ],
    ids=["classic", "native", "one host"],
)
def test_a_histogram_is_asked_for_over_as_much_of_a_period_as_is_surely_its_own(source: str, asked: str) -> None:
    (query,) = parse_experiment(spec(source.replace("{{", "{").replace("}}", "}"))).central_queries
    assert query.asked("web-1") == asked
    assert query.lookback_seconds + query.step_seconds == 300.0


def test_a_host_stands_in_its_query() -> None:
    source = "promql: 'rate(x{instance=\"{host}:9100\"}[1m])'"
    (query,) = parse_experiment(spec(source)).central_queries
    assert query.asked("web-1") == 'rate(x{instance="web-1:9100"}[1m])'
