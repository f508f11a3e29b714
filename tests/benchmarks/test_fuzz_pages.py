"""10,000 mangled pages: a value, or a typed reason, each within a second of CPU time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from agents.messages import MetricSource
from agents.metric_sources.page import SourcePage
from tests.agents.metric_sources.mangled import mangled_pages, read_mangled
from tests.web_server import Web, serving

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]
EXAMPLES = 10_000


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


def test_ten_thousand_mangled_pages_give_values_or_typed_reasons(web: Web) -> None:
    longest = 0.0

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(mangled_pages())
    def read_one(drawn: tuple[SourcePage, list[MetricSource]]) -> None:
        nonlocal longest
        longest = max(longest, read_mangled(web, *drawn))

    read_one()
    print(f"{EXAMPLES} mangled pages; the longest reading took {longest:.3f} s of CPU time")
