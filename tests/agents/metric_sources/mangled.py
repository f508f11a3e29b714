"""Pages of the gallery with parts cut out, doubled, swapped, and odd things put in: what a broken service may write."""

from __future__ import annotations

import time
from dataclasses import replace

from hypothesis import strategies as st

from agents.collectors.own_cost import child_seconds
from agents.messages import MetricSource, SourceForm
from agents.metric_sources.cancellation import Cancellation
from agents.metric_sources.page import SourcePage
from agents.metric_sources.prometheus_text import SeriesValue
from agents.metric_sources.reading import places, read_place
from agents.metric_sources.unreadable import Unreadable
from agents.sysroot import FolderRoot
from tests.agents.metric_sources.gallery import page_cases, serve
from tests.web_server import Web

CASES = page_cases()
BODIES = {case.name: case.page.body for case in CASES}  # of one moment: an example is the same each time
DOCUMENTS = (
    b'{"a": {"b": [{"c": 1.5}, {"p.99": "2"}]}}',
    b"17.5\n",
    b'{"status": "success", "value": [1435781451.7, "1"]}',
)
_ODD = st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b"{",
            b"}",
            b",",
            b"=",
            b"#",
            b" ",
            b"\t",
            b"\n",
            b"\r",
            b"\0",
            b"\xff",
            b"\xef\xbb\xbf",
            b"# EOF\n",
        ),
        *(
            b"# TYPE ",
            b"# HELP ",
            b"NaN",
            b"+Inf",
            b"0x1",
            b"1e999",
            b"9" * 400,
            b"-",
            b"_total",
            b"_bucket",
            b"le",
            b"[",
            b"]",
        ),
        *(
            "\u2028".encode(),
            "\u0661".encode(),
            "\ud800".encode(errors="surrogatepass"),
            b'{"":',
            b"\\" * 500,
            b'"' * 500,
        ),
        *(b"[" * 5000, b" " * 5000, b'a="",' * 2000, b"1 " * 3000, b"{count:", b"x" * 70_000),
    ]
)
_EDITS = st.lists(
    st.tuples(st.sampled_from(("cut", "double", "put", "swap", "end")), st.floats(0, 1), st.integers(0, 200), _ODD),
    max_size=6,
)
_TYPES = st.sampled_from(["text/plain", "application/openmetrics-text; version=1.0.0", ""])


@st.composite
def mangled_pages(draw: st.DrawFn) -> tuple[SourcePage, list[MetricSource]]:
    """Draw a page and sources that read it, of any form."""
    case = draw(st.sampled_from(CASES))
    body = draw(st.sampled_from([BODIES[case.name]] * 3 + [*DOCUMENTS, b""]))
    for what, where, length, odd in draw(_EDITS):
        at = int(where * len(body))
        part = body[at : at + length]
        match what:
            case "cut":
                body = body[:at] + body[at + length :]
            case "double":
                body = body[:at] + part * 2 + body[at + length :]
            case "put":
                body = body[:at] + odd + body[at:]
            case "swap":
                body = body[at + length :] + part + body[:at]
            case _:
                body = body[:at]
    content_type = draw(st.sampled_from([case.page.content_type, draw(_TYPES)]))
    sources = [read.source for read in case.reads]
    sources += [
        MetricSource(metric="json", form=SourceForm.JSON, pick=draw(st.sampled_from(["a.b[0].c", "[0]", "value[1]"]))),
        MetricSource(metric="number"),
    ]
    return SourcePage(body=body, content_type=content_type, whole=draw(st.booleans())), sources


def read_mangled(web: Web, page: SourcePage, sources: list[MetricSource]) -> float:
    """Read a page as each kind of source: a value, or a typed reason with a remedy. Return the CPU seconds it took."""
    serve(web, page)
    began = time.thread_time() + child_seconds()
    for place in places([replace(source, url=web.url, timeout_seconds=30.0) for source in sources], "web-1"):
        found = read_place(place, FolderRoot(), Cancellation())
        assert found.keys() == {source.metric for source in place.sources}
        for one in found.values():
            assert isinstance(one, SeriesValue | Unreadable)
            if isinstance(one, Unreadable):
                assert one.what
                assert one.remedy, one.what
                assert "in time" not in one.what
                assert "a defect" not in one.what
    took = time.thread_time() + child_seconds() - began
    assert took < 1.0  # of CPU time: other processes of the machine hold it up, too
    return took
