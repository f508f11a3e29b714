"""Series out of pages as the formats' own documentation shows them, and out of pages that are wrong."""

from __future__ import annotations

from typing import Any

import pytest

from agents.messages import MetricSource, SourceForm
from agents.metric_sources.exposition import exposition
from agents.metric_sources.page import SourcePage
from agents.metric_sources.prometheus_text import SeriesValue, series_value
from agents.metric_sources.unreadable import Unreadable

# https://prometheus.io/docs/instrumenting/exposition_formats/, "Text format example"
TEXT = b"""\
# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\\\DIR\\\\FILE.TXT",error="Cannot find file:\\n\\"FILE.TXT\\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="0.1"} 33444
http_request_duration_seconds_bucket{le="0.2"} 100392
http_request_duration_seconds_bucket{le="0.5"} 129389
http_request_duration_seconds_bucket{le="1"} 133988
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320

# Finally a summary, which has a complex representation, too:
# HELP rpc_duration_seconds A summary of the RPC duration in seconds.
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile="0.01"} 3102
rpc_duration_seconds{quantile="0.05"} 3272
rpc_duration_seconds{quantile="0.5"} 4773
rpc_duration_seconds{quantile="0.9"} 9001
rpc_duration_seconds{quantile="0.99"} 76656
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
"""

# https://prometheus.io/docs/specs/om/open_metrics_spec/, "Overall structure" and "Counter", "Exemplars"
OPENMETRICS = b"""\
# TYPE acme_http_router_request_seconds summary
# UNIT acme_http_router_request_seconds seconds
# HELP acme_http_router_request_seconds Latency though all of ACME's HTTP request router.
acme_http_router_request_seconds_sum{path="/api/v1",method="GET"} 9036.32
acme_http_router_request_seconds_count{path="/api/v1",method="GET"} 807283.0
acme_http_router_request_seconds_created{path="/api/v1",method="GET"} 1605281325.0
acme_http_router_request_seconds_sum{path="/api/v2",method="POST"} 479.3
acme_http_router_request_seconds_count{path="/api/v2",method="POST"} 34.0
acme_http_router_request_seconds_created{path="/api/v2",method="POST"} 1605281325.0
# TYPE go_goroutines gauge
# HELP go_goroutines Number of goroutines that currently exist.
go_goroutines 69
# TYPE process_cpu_seconds counter
# UNIT process_cpu_seconds seconds
# HELP process_cpu_seconds Total user and system CPU time spent in seconds.
process_cpu_seconds_total 4.20072246e+06
# TYPE foo histogram
foo_bucket{le="0.01"} 0
foo_bucket{le="0.1"} 8 # {} 0.054
foo_bucket{le="1"} 11 # {trace_id="KOO5S4vxi0o"} 0.67
foo_bucket{le="10"} 17 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789
foo_bucket{le="+Inf"} 17
foo_count 17
foo_sum 324789.3
foo_created 1520430000.123
# EOF
"""
AS_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def series(page: bytes, source: MetricSource, content_type: str = "text/plain") -> SeriesValue:
    return series_value(exposition(SourcePage(body=page, content_type=content_type)), source)


def read(page: bytes, name: str, content_type: str = "text/plain", **more: Any) -> float:  # noqa: ANN401 - as MetricSource takes them
    source = MetricSource(metric="m", form=SourceForm.PROMETHEUS, pick=name, **more)
    return series(page, source, content_type).value


def refused(page: bytes, name: str, content_type: str = "text/plain", **more: Any) -> Unreadable:  # noqa: ANN401 - as MetricSource takes them
    with pytest.raises(Unreadable) as caught:
        read(page, name, content_type, **more)
    return caught.value


@pytest.mark.parametrize(
    ("name", "more", "value"),
    [
        ("http_requests_total", {"labels": {"code": "200"}, "counter": True}, 1027),
        ("http_requests_total", {"sum_series": True, "counter": True}, 1030),
        ("metric_without_timestamp_and_labels", {}, 12.47),
        ("msdos_file_access_time_seconds", {"labels": {"error": 'Cannot find file:\n"FILE.TXT"'}}, 1.458255915e9),
        ("http_request_duration_seconds_bucket", {"labels": {"le": "0.5"}, "counter": True}, 129389),
        ("http_request_duration_seconds_sum", {"counter": True}, 53423),
        ("rpc_duration_seconds", {"labels": {"quantile": "0.99"}}, 76656),
        ("rpc_duration_seconds_count", {"counter": True}, 2693),
    ],
)
def test_the_text_format_is_read_as_documented(name: str, more: dict[str, Any], value: float) -> None:
    assert read(TEXT, name, **more) == value


@pytest.mark.parametrize(
    ("name", "more", "value"),
    [
        ("go_goroutines", {}, 69),
        ("process_cpu_seconds_total", {"counter": True}, 4.20072246e06),
        ("process_cpu_seconds", {"counter": True}, 4.20072246e06),  # its name in the text format of the same exporter
        ("acme_http_router_request_seconds_sum", {"labels": {"path": "/api/v2"}, "counter": True}, 479.3),
        ("foo_bucket", {"labels": {"le": "10"}, "counter": True}, 17),
        ("foo_count", {"counter": True}, 17),
    ],
)
def test_openmetrics_is_read_as_documented(name: str, more: dict[str, Any], value: float) -> None:
    assert read(OPENMETRICS, name, AS_OPENMETRICS, **more) == value


def test_the_instant_that_a_page_gives_comes_with_the_value() -> None:
    source = MetricSource(
        metric="m", form=SourceForm.PROMETHEUS, pick="http_requests_total", labels={"code": "400"}, counter=True
    )
    assert series(TEXT, source).at_seconds == 1395066363.0


def test_several_series_are_no_value_unless_they_are_to_be_added() -> None:
    error = refused(TEXT, "http_requests_total", counter=True)
    assert '2 series match: http_requests_total{method="post", code="200"}' in error.what
    assert "sum: true" in error.remedy


def test_a_name_or_label_that_is_not_there_is_said_with_what_is() -> None:
    error = refused(TEXT, "http_request_total")
    assert "no series 'http_request_total'" in error.what
    assert "http_requests_total" in error.remedy
    error = refused(TEXT, "http_requests_total", labels={"code": "500"}, counter=True)
    assert 'has {code="500"}' in error.what
    assert 'code="400"' in error.remedy


def test_what_the_page_says_of_its_kind_is_not_contradicted_silently() -> None:
    assert "is a counter" in refused(TEXT, "http_requests_total", sum_series=True).what
    error = refused(OPENMETRICS, "go_goroutines", AS_OPENMETRICS, counter=True)
    assert (error.what, error.remedy) == ("the page says that 'go_goroutines' is a gauge", "write 'kind: gauge'")
    assert read(OPENMETRICS, "go_goroutines", AS_OPENMETRICS, counter=True, kind_said=True) == 69
    assert "does not say whether" in refused(b"jobs_count 3\n", "jobs_count", counter=True).what


def test_infinity_and_nan_are_no_values() -> None:
    assert "inf" in refused(TEXT, "something_weird").what
    assert "nan" in refused(b"x NaN\n", "x").what
    assert "inf" in refused(b'x{a="1"} +Inf\nx{a="2"} -Inf\n', "x", sum_series=True).what


@pytest.mark.parametrize(
    ("page", "content_type", "said"),
    [
        (b"<html><body>x 1</body></html>\n", "text/html", "no series 'x'"),
        (b"", "text/plain", "cut off"),
        (b"x 123", "text/plain", "cut off"),  # it may have been 12345
        (b"x 1\n", AS_OPENMETRICS, "does not end with '# EOF'"),
        (b"x one\n", "text/plain", "not understood"),
        (b"x{a=1} 1\n", "text/plain", "not understood"),
        (b'x{a="1} 1\n', "text/plain", "not understood"),
        (b"# TYPE x counter\nx NaN\n# EOF\n", AS_OPENMETRICS, "not understood"),
        (b"x \xff\n", "text/plain", "no UTF-8"),
        (b"x 1\nx 2\n", "text/plain", "stands on the page twice"),
        (b"x\n", "text/plain", "no series"),
    ],
)
def test_a_page_that_is_wrong_gives_no_value(page: bytes, content_type: str, said: str) -> None:
    assert said in refused(page, "x", content_type, sum_series=True).what


def test_one_broken_line_elsewhere_costs_no_other_metric() -> None:
    assert read(b"y{ broken\nx 1\n", "x") == 1


def test_only_the_whole_name_counts() -> None:
    assert read(b"xy 1\nx 2\nx_y 3\nzx 4\n", "x") == 2
