"""The bucket that a histogram's metric lies in is shown as its error, and an end that is missing as missing."""

from __future__ import annotations

from dataclasses import replace

from analysis.report import render_html, render_markdown
from analysis.report.content import BucketRow
from tests.analysis.report.sample import sample

CLOSED = BucketRow(metric="p99", unit="seconds", arm="never", periods=8, without_end=0, low=0.1, high=0.5, width=0.2)
OPEN = replace(CLOSED, arm="always", without_end=3, high=None, width=None)


def test_the_width_of_the_buckets_stands_beside_the_arms() -> None:
    content = replace(sample(), buckets=(CLOSED, OPEN))
    for page in (render_markdown(content), render_html(content)):
        assert "What a histogram can tell" in page
        assert "100 ms" in page
        assert "200 ms" in page
        assert "in 3 of 8 periods its bucket has no end" in page
    assert "What a histogram can tell" not in render_markdown(sample())
