"""A web server that answers as a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.web_server import Web, serving


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as server:
        yield server
