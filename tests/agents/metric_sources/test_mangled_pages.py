"""Whatever a page holds: a value, or a typed reason that names place and remedy; nothing hangs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given

from agents.messages import MetricSource
from agents.metric_sources.page import SourcePage
from tests.agents.metric_sources.mangled import mangled_pages, read_mangled
from tests.fuzz_examples import draws, quick_and_slow
from tests.web_server import Web, serving


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    with serving() as server:
        yield server


@quick_and_slow
def test_a_mangled_page_gives_a_value_or_a_typed_reason(web: Web, examples: int) -> None:
    @draws(examples)
    @given(mangled_pages())
    def check(drawn: tuple[SourcePage, list[MetricSource]]) -> None:
        read_mangled(web, *drawn)

    check()
